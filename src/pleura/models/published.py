"""Nets under the key names of the repositories that published them -> our nets, with equal outputs.

Sources: https://github.com/sneddy/pneumothorax-segmentation (`models.selim_zoo.unet` and `models.ternausnets.AlbuNet`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from pleura.config.model import ModelConfig
from pleura.config.parse import parse_model
from pleura.errors import CheckpointError

Pairs = list[tuple[str, str]]

# Prefixes of their keys, and of ours; the first that fits counts.
_STAGES: Pairs = [("encoder_stages.1.1.", "encoder.net.layer1.")] + [
    (f"encoder_stages.{stage}.", f"encoder.net.layer{stage}.") for stage in (2, 3, 4)
]
_DENSE: Pairs = [
    ("encoder_stages.0.0.", "encoder.net.features_conv0."),
    ("encoder_stages.0.1.", "encoder.net.features_norm0."),
    ("encoder_stages.1.1.", "encoder.net.features_denseblock1."),
    *((f"encoder_stages.{stage}.0.", f"encoder.net.features_transition{stage - 1}.") for stage in (2, 3, 4)),
    *((f"encoder_stages.{stage}.1.", f"encoder.net.features_denseblock{stage}.") for stage in (2, 3, 4)),
    ("encoder_stages.4.2.", "encoder.net.features_norm5."),
]
_ENCODERS: dict[str, Pairs] = {
    "resnet": [("encoder_stages.0.0.", "encoder.net.conv1."), ("encoder_stages.0.1.", "encoder.net.bn1."), *_STAGES],
    "densenet": _DENSE,
    "legacy_se": [("encoder_stages.0.", "encoder.net.layer0."), *_STAGES],
}
_DECODER: Pairs = [
    *((f"decoder_stages.{3 - place}.layer.1.", f"decoder.{place}.convolution.0.") for place in range(4)),
    *((f"bottlenecks.{place}.seq.0.", f"decoder.{place}.bottleneck.0.") for place in range(4)),
    *((f"bottlenecks.{place}.seq.2.fc1.", f"decoder.{place}.bottleneck.2.squeeze.") for place in range(4)),
    *((f"bottlenecks.{place}.seq.2.fc2.", f"decoder.{place}.bottleneck.2.excite.") for place in range(4)),
    *((f"bottlenecks.{place}.seq.2.spatial_se.0.", f"decoder.{place}.bottleneck.2.spatial.") for place in range(4)),
    ("last_upsample.layer.1.", "last_upsample.1.0."),
    ("final.0.", "head."),
]
_BLOCKS = {"center": "centre", **{f"dec{place}": f"dec{place}" for place in range(1, 6)}}
_ALBUNET: Pairs = [
    ("encoder.fc.", "encoder.fc."),
    ("encoder.", "encoder.net."),
    *((f"{theirs}.block.1.conv.", f"{ours}.middle.") for theirs, ours in _BLOCKS.items()),
    *((f"{theirs}.block.2.conv.", f"{ours}.out.") for theirs, ours in _BLOCKS.items()),
    ("dec0.conv.", "dec0."),
    ("final.", "head."),
]
# AlbuNet keeps its encoder under two names.
_ALBUNET_AGAIN: Pairs = [("conv1.0.", "encoder.conv1."), ("conv1.1.", "encoder.bn1.")] + [
    (f"conv{place + 1}.", f"encoder.layer{place}.") for place in (1, 2, 3, 4)
]
# Kind of block, and blocks in each stage -> timm's name.
_KNOWN: dict[tuple[str, tuple[int, ...]], str] = {
    ("basic", (2, 2, 2, 2)): "resnet18",
    ("basic", (3, 4, 6, 3)): "resnet34",
    ("bottleneck", (3, 4, 6, 3)): "resnet50",
    ("bottleneck", (3, 4, 23, 3)): "resnet101",
    ("bottleneck", (3, 8, 36, 3)): "resnet152",
    ("dense", (6, 12, 24, 16)): "densenet121",
    ("dense", (6, 12, 32, 32)): "densenet169",
    ("dense", (6, 12, 36, 24)): "densenet161",
    ("se", (3, 4, 6, 3)): "legacy_seresnext50_32x4d",
    ("se", (3, 4, 23, 3)): "legacy_seresnext101_32x4d",
    ("se", (3, 8, 36, 3)): "legacy_senet154",
}
_COUNTER = "num_batches_tracked"  # the forward pass does not use it, and older files do not have it


def published_config(state: Mapping[str, Tensor], architecture: str, encoder: str | None, origin: str) -> ModelConfig:
    """Return the settings of the net that a published state dict belongs to, read from its keys and shapes.

    architecture: `unet` or `albunet`. encoder: timm's name; None reads it off the blocks.
    Raises: CheckpointError if it is no net of that architecture; ConfigError for settings that do not fit.
    """
    marks = {"unet": "decoder_stages.", "albunet": "center.block."}
    if not any(key.startswith(marks[architecture]) for key in state):
        other = next((name for name, mark in marks.items() if any(key.startswith(mark) for key in state)), None)
        way_out = f"it looks like --architecture {other}" if other else "known are the winner's nets, in his key names"
        first = min(state, default="none")
        raise CheckpointError(
            f"{origin}: is no {architecture}, no key begins with {marks[architecture]} ({first}); {way_out}"
        )
    if architecture == "albunet":
        shapes = _Shapes(state, origin)
        settings = {
            "encoder": encoder or "resnet34",
            "in_channels": shapes.of("encoder.conv1.weight")[1],
            "classes": shapes.of("final.weight")[0],
        }
    else:
        settings = _unet_settings(state, encoder or _encoder_of(state, origin), origin)
    return parse_model({"architecture": architecture, "pretrained": False, **settings})


def _unet_settings(state: Mapping[str, Tensor], encoder: str, origin: str) -> dict[str, object]:
    family = _family(encoder, origin)
    shapes = _Shapes(state, origin)
    stem = "encoder_stages.0.conv1.weight" if family == "legacy_se" else "encoder_stages.0.0.weight"
    return {
        "encoder": encoder,
        "in_channels": shapes.of(stem)[1],
        "classes": shapes.of("final.0.weight")[0],
        "decoder_widths": [shapes.of(f"bottlenecks.{place}.seq.0.weight")[0] for place in range(4)],
        "last_width": shapes.of("last_upsample.layer.1.weight")[0],
        "bottleneck": "scse" if "bottlenecks.0.seq.2.fc1.weight" in state else "plain",
    }


def published_weights(
    net: nn.Module, config: ModelConfig, state: Mapping[str, Tensor], origin: str
) -> dict[str, Tensor]:
    """Return the tensors of a published state dict under the keys of `net`, a copy of each.

    Raises: CheckpointError if a tensor is missing, left over, of another shape or not finite, by its published key.
    """
    pairs = _ALBUNET if config.architecture == "albunet" else _ENCODERS[_family(config.encoder, origin)] + _DECODER
    found = _without_duplicates(state, origin) if config.architecture == "albunet" else dict(state)
    wanted = net.state_dict()
    named = {key: _theirs(key, pairs) for key in wanted}
    missing = [name for key, name in named.items() if name not in found and not key.endswith(_COUNTER)]
    extra = [name for name in found.keys() - set(named.values()) if not name.endswith(_COUNTER)]
    if missing or extra:
        first = f"{missing[0]} is missing" if missing else f"{min(extra)} is not known"
        raise CheckpointError(
            f"{origin}: is no {config.architecture} with {config.encoder} under its published key names: {first} "
            f"({len(missing)} missing, {len(extra)} not known); try another --architecture or --encoder"
        )
    return {
        key: _checked(found.get(name, wanted[key]), wanted[key], f"{origin}: {name}") for key, name in named.items()
    }


def _checked(tensor: Tensor, wanted: Tensor, where: str) -> Tensor:
    if tensor.shape != wanted.shape:
        raise CheckpointError(
            f"{where} is {tuple(tensor.shape)}, not {tuple(wanted.shape)}; these are the weights of another net"
        )
    if tensor.layout is not torch.strided or tensor.device.type != "cpu" or tensor.is_quantized or tensor.is_complex():
        raise CheckpointError(f"{where} is no plain tensor of numbers; save the state dict of the float net")
    if not torch.isfinite(tensor).all():
        raise CheckpointError(f"{where} holds NaN or infinite numbers; take another checkpoint")
    return tensor.to(wanted.dtype, copy=True).contiguous()


def _without_duplicates(state: Mapping[str, Tensor], origin: str) -> dict[str, Tensor]:
    found = dict(state)
    for key in state:
        prefix = next((prefix for prefix in _ALBUNET_AGAIN if key.startswith(prefix[0])), None)
        if prefix is None:
            continue
        original = prefix[1] + key.removeprefix(prefix[0])
        if original in state:
            again = found.pop(key)
            if not key.endswith(_COUNTER) and not torch.equal(again, state[original]):
                raise CheckpointError(
                    f"{origin}: {key} and {original} are one tensor in the net, but differ here; take another file"
                )
    return found


def _theirs(key: str, pairs: Pairs) -> str:
    theirs, ours = next(pair for pair in pairs if key.startswith(pair[1]))
    return theirs + key.removeprefix(ours)


def _family(encoder: str, origin: str) -> str:
    for family in _ENCODERS:
        if encoder.startswith(family):
            return family
    raise CheckpointError(
        f"{origin}: no published net has the encoder {encoder}; known are {', '.join(_KNOWN.values())}"
    )


def _encoder_of(keys: Iterable[str], origin: str) -> str:
    """timm's name of the encoder with these blocks."""
    text = "\n".join(keys)
    dense = ".denselayer" in text
    kind = "dense" if dense else "se" if ".se_module." in text else "bottleneck" if ".conv3." in text else "basic"
    counts = []
    for stage in (1, 2, 3, 4):
        inner = r"1\.denselayer" if dense else r"1\." if stage == 1 else ""
        blocks = re.findall(rf"^encoder_stages\.{stage}\.{inner}(\d+)\.", text, re.MULTILINE)
        counts.append(len(set(blocks)))
    name = _KNOWN.get((kind, tuple(counts)))
    if name is None:
        raise CheckpointError(f"{origin}: its encoder is not known ({kind} blocks: {counts}); give it with --encoder")
    return name


class _Shapes:
    """Shapes of a file's tensors, each of which has to be there."""

    def __init__(self, state: Mapping[str, Tensor], origin: str) -> None:
        self.state, self.origin = state, origin

    def of(self, key: str) -> torch.Size:
        tensor = self.state.get(key)
        if tensor is None or tensor.ndim != 4:
            raise CheckpointError(
                f"{self.origin}: {key} is {'missing' if tensor is None else 'no convolution'}; "
                "try another --architecture or --encoder"
            )
        return tensor.shape
