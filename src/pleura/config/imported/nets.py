"""The nets that the winner's files name -> our settings of a net."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pleura.config.imported.keys import Keys

Note = Callable[[str, str], None]

# Classes and their encoder unless ARGS names one; None: ARGS has to.
SELIM_ZOO: dict[str, str | None] = {
    "Resnet": None,
    "DensenetUnet": "densenet121",
    "SEUnet": "senet154",
    "SCSEUnet": "seresnext50",
}
# Their encoders: timm's name, decoder widths from low to high resolution, width of the last upsampling.
ENCODERS: dict[str, tuple[str, list[int], int]] = {
    **{name: (name, [256, 256, 128, 64], 64) for name in ("resnet18", "resnet34", "resnet50", "resnet101")},
    **{name: (name, [256, 256, 128, 64], 64) for name in ("densenet121", "densenet169", "densenet161")},
    "densenet161_fatter": ("densenet161", [256, 256, 128, 128], 128),
    "seresnext50": ("legacy_seresnext50_32x4d", [384, 256, 128, 64], 32),
    "seresnext101": ("legacy_seresnext101_32x4d", [384, 256, 128, 64], 64),
    "senet154": ("legacy_senet154", [384, 256, 128, 64], 32),
}


def net_of(keys: Keys, stage: dict[str, Any], note: Note) -> dict[str, Any]:
    """Settings of `model` for the section MODEL of a training file; a frozen encoder goes into `stage`.

    Raises: ConfigError for a net that is not built, or a part of the section that cannot be taken over.
    """
    if keys.flag("FREEZE", False):
        raise keys.refuse("FREEZE", "true only validates there, and trains nothing; leave this file out")
    before = keys.take("PRETRAINED", None)
    if before:
        earlier = keys.section("PRETRAINED")
        for key in ("PIPELINE_PATH", "CHECKPOINTS_FOLDER", "PIPELINE_NAME"):
            earlier.take(key, None)
        note(
            "MODEL.PRETRAINED",
            "a stage starts from the best weights of the one before, the first from model.pretrained or "
            "pleura train --weights (see pleura import-weights); theirs takes "
            "this file if it is there, and in later parts only what beats the best score of earlier ones",
        )
    module, name = keys.text("PY"), keys.text("CLASS")
    given = keys.section("ARGS", {})
    if (module, name) == ("models.ternausnets", "AlbuNet"):
        return _albunet(given, stage, note)
    if module == "models.selim_zoo.unet" and name in SELIM_ZOO:
        return _unet(given, name, note)
    known = ", ".join(("models.ternausnets.AlbuNet", *(f"models.selim_zoo.unet.{known}" for known in SELIM_ZOO)))
    raise keys.refuse("CLASS", f"{module}.{name} is not built; known are {known}")


def _albunet(given: Keys, stage: dict[str, Any], note: Note) -> dict[str, Any]:
    for key, value in (("num_classes", 1), ("num_filters", 32)):
        if given.whole(key, value) != value:
            raise given.refuse(key, f"only {value} can be taken over, the published net's")
    if given.flag("is_deconv", False):
        raise given.refuse("is_deconv", "only false can be taken over, the published net's")
    if given.flag("freeze_encoder", False):
        stage["freeze_encoder_epochs"] = 0  # all epochs, as soon as they are known
        note("MODEL.ARGS.freeze_encoder", "statistics of BatchNorm stand still too, theirs go on")
    pretrained = given.flag("pretrained", False)
    if not pretrained:
        note(
            "MODEL.ARGS.pretrained",
            "false: without the file of PRETRAINED the encoder starts at random; model.pretrained=true: ImageNet's",
        )
    return {"architecture": "albunet", "encoder": "resnet34", "pretrained": pretrained, "input_scaling": "none"}


def _unet(given: Keys, name: str, note: Note) -> dict[str, Any]:
    default = SELIM_ZOO[name]
    backbone = given.text("backbone_arch") if default is None else given.text("backbone_arch", default)
    if backbone not in ENCODERS:
        raise given.refuse("backbone_arch", f"{backbone} is not known; known are {', '.join(ENCODERS)}")
    fits = {"Resnet": "resnet", "DensenetUnet": "densenet"}.get(name, "se")
    if not backbone.startswith(fits):
        raise given.refuse("backbone_arch", f"{backbone} does not fit into {name}")
    if given.whole("seg_classes") != 1:
        raise given.refuse("seg_classes", "only 1 can be taken over: a dataset has one mask for each image")
    encoder, widths, last = ENCODERS[backbone]
    if encoder != backbone:
        note("MODEL.ARGS.backbone_arch", f"{backbone} is timm's {encoder}")
    return {
        "architecture": "unet",
        "encoder": encoder,
        "pretrained": True,
        "decoder_widths": widths,
        "last_width": last,
        "bottleneck": "scse" if name == "SCSEUnet" else "plain",
        # The published files normalise for these two alone.
        "input_scaling": "none" if fits == "se" else "encoder",
    }
