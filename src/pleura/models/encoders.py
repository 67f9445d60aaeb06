"""Encoders: nets that give a pyramid of features, timm's or our own. The only file that imports timm.

Source: https://github.com/huggingface/pytorch-image-models (`features_only`).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pleura.errors import ConfigError, InputError
from pleura.models.download import offline_unless_reachable, why_not_downloaded
from pleura.models.mobilenet import MobileNetV2
from pleura.models.pickled import printable
from pleura.models.weights import fold_to_one_channel, not_finite, read_weights

OWN = {"mobilenetv2_100": MobileNetV2}
"""timm's name -> our own net with its keys and arithmetic. Only timm downloads weights."""

_MODULES = (
    "byobnet convnext cpubone cspnet cspnext davit densenet dla dpn edgenext efficientnet efficientvim "
    "efficientvit_mit fasternet fastvit focalnet ghostnet hardcorenas hgnet hieradet_sam2 hrnet iformer "
    "inception_next lcnetv2 lowformer mambaout metaformer mobilenetv3 mobilenetv5 mobilevit nextvit nfnet pvt_v2 "
    "rdnet regnet repghost repvit res2net resnest resnet resnetv2 rexnet selecsls senet shvit sknet starnet "
    "swin_transformer swin_transformer_v2 tiny_vit tresnet vgg vovnet xception xception_aligned"
)
PYRAMID_MODULES = tuple(_MODULES.split())
"""timm's modules whose nets have features that halve at any size; Inception's and NASNet's crop between them."""


@cache
def import_timm() -> Any:
    """Import timm when a net of it is first needed: with torchvision that takes longer than torch itself."""
    try:
        import torchvision  # noqa: F401
    except RuntimeError as error:
        if "does not exist" not in str(error):
            raise
        # Its wheel does not import beside a CPU-only torch ("operator torchvision::nms does not exist"): it registers
        # fake kernels for operators that its compiled library, built for CUDA, could not declare. Neither is called
        # here, so that declaring them is enough. Where the library loads, a second declaration ends the process.
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        for name in ("nms", "qnms"):
            if not hasattr(torch.ops.torchvision, name):
                boxes = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
                torch.library.define(f"torchvision::{name}", boxes)
    import timm  # which imports torchvision, so only now

    return timm


@dataclass(frozen=True)
class _Pyramid:
    net: nn.Module
    channels: list[int]
    reductions: list[int]
    layers: list[str]
    """The module that gives each feature."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channels_last: bool = False


class Encoder(nn.Module):
    """A net that maps (N, C, H, W) to its features, high to low resolution.

    channels, reductions: of each feature, in that order. mean, std: of the input in [0, 1], one number for all
    channels: a grey image has one, and with one number for all a three-channel stem folds into one exactly.
    """

    def __init__(self, name: str, in_channels: int = 3, pretrained: bool | str = False) -> None:
        """Raises: ConfigError for an unknown net or one without a pyramid, InputError if weights cannot be had."""
        super().__init__()
        self.name = name
        if name in OWN and pretrained is not True:
            own = OWN[name](in_channels)
            layers = [f"blocks.{stage}" for stage in own.feature_stages]
            made = _Pyramid(own, list(own.channels), list(own.reductions), layers, own.mean, own.std)
        else:
            made = _of_timm(name, in_channels, pretrained is True)
        self.net, self.channels, self.reductions = made.net, made.channels, made.reductions
        self.channels_last, self.layers = made.channels_last, made.layers
        if isinstance(pretrained, str):
            load_encoder(self.net, Path(pretrained), name)
        self.mean, self.std = (float(sum(numbers) / len(numbers)) for numbers in (made.mean, made.std))

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, C, H, W) with H and W multiples of the deepest reduction -> features, high to low resolution."""
        features: list[Tensor] = self.net(images)
        return [feature.movedim(-1, 1) for feature in features] if self.channels_last else features

    def until_stride(self, stride: int) -> list[nn.Parameter]:
        """The parameters of the layers up to the feature at `stride`, those of the stem included.

        Raises: ConfigError if the encoder has no feature there, or its layers cannot be told apart.
        """
        if stride not in self.reductions:
            strides = ", ".join(map(str, self.reductions))
            raise ConfigError(
                f"training.freeze_encoder_stride: {self.name} has features at strides {strides}, not {stride}"
            )
        # With one separator names agree, as in load_encoder; layers are registered in the order that images take.
        last = self.layers[self.reductions.index(stride)].replace(".", "_")
        modules = [name.replace(".", "_") for name, _ in self.net.named_modules()]
        if any(layer.replace(".", "_") not in modules for layer in self.layers):
            raise ConfigError(
                f"training.freeze_encoder_stride: {self.name} has features that no one layer gives, its layers "
                "cannot be told apart; set freeze_encoder_stride to 0"
            )
        before = [f"{name}_" for name in modules[1 : modules.index(last)]]
        until = tuple(name for name in before if not last.startswith(name))
        names = [name.replace(".", "_") for name, _ in self.net.named_parameters()]
        ends = max(position for position, name in enumerate(names) if name.startswith((f"{last}_", *until)))
        return list(self.net.parameters())[: ends + 1]


def list_encoders(pattern: str = "*") -> list[str]:
    """Return the sorted names of encoders that `build_model` takes; `*` and `?` in the pattern, such as `resnet*`.

    Of timm, as it is installed: the nets of the modules whose features halve. Needs a second, and no network.
    """
    models = import_timm().models
    every = {name for module in PYRAMID_MODULES for name in models.list_models(pattern, module=module)}
    return sorted(name for name in every if _is_swin(name) or not _is_of_one_size(name))


def _of_timm(name: str, in_channels: int, download: bool) -> _Pyramid:
    models = import_timm().models
    if not models.is_model(name):
        known = models.list_models()
        close = [each for each in known if name.split("_")[0] in each][:5] or get_close_matches(name, known, n=5)
        meant = f"did you mean one of: {', '.join(close)}?" if close else "see pleura.list_encoders()"
        raise ConfigError(f"model.encoder: timm has no net {name!r}; {meant}")
    net = _create(name, in_channels, download)
    channels, reductions = list(net.feature_info.channels()), list(net.feature_info.reduction())
    if any(deep != 2 * shallow for shallow, deep in pairwise(reductions)):
        raise ConfigError(f"model.encoder: {name} halves its features by {reductions}, a U-Net needs 2 each")
    settings: dict[str, Any] = net.pretrained_cfg
    if settings.get("fixed_input_size") and not _is_swin(name):
        raise ConfigError(f"model.encoder: {name} takes images of one size only; choose another")
    channels_last = str(getattr(net, "output_fmt", "NCHW")).endswith("NHWC")
    layers = list(net.feature_info.module_name())
    return _Pyramid(net, channels, reductions, layers, settings["mean"], settings["std"], channels_last)


def _is_of_one_size(name: str) -> bool:
    settings = import_timm().models.get_pretrained_cfg(name)
    return settings is not None and bool(settings.fixed_input_size)


def _is_swin(name: str) -> bool:
    """Whether timm's net has windows that slide over images of any size, though its weights are of one."""
    return name.startswith(("swin_", "swinv2_")) and not name.startswith("swinv2_cr_")


def _create(name: str, in_channels: int, download: bool) -> Any:
    options = {"strict_img_size": False} if _is_swin(name) else {}
    try:
        with offline_unless_reachable() if download else nullcontext():
            return import_timm().create_model(
                name, features_only=True, in_chans=in_channels, pretrained=download, **options
            )
    except (AttributeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(f"model.encoder: {name} has no feature pyramid in timm ({error}); choose another") from error
    except (OSError, RuntimeError) as error:
        if not download:
            raise ConfigError(f"model.encoder: {name} takes no such input ({error})") from error
        reason = why_not_downloaded(error)
        raise InputError(
            f"the weights of {name} could not be downloaded ({reason}); "
            "set model.pretrained to a local file with timm's key names, or to false"
        ) from error


def load_encoder(net: nn.Module, path: Path, name: str) -> None:
    """Load weights with timm's key names, classifier ignored; a three-channel stem is folded where it has to be.

    Raises: InputError if the file cannot be read or does not hold all of this net's tensors in their shapes.
    """
    state = read_weights(path)
    if wrong := not_finite(state):
        raise InputError(f"{path}: {len(wrong)} tensors hold NaN or infinity, {wrong[0]} first; copy the file again")
    # Feature nets flatten some module names (features.norm0 -> features_norm0); with one separator they agree.
    found = {key.replace(".", "_"): tensor for key, tensor in state.items()}
    wanted = net.state_dict()
    for key, old in wanted.items():
        new = found.get(key.replace(".", "_"))
        if new is None:
            if key.endswith("num_batches_tracked"):
                continue
            raise InputError(
                f"{path}: holds no tensor {key}; these are not timm's weights of {name}{_keys(state, key, path)}"
            )
        if new.ndim == 4 and old.shape[1] == 1 and new.shape[1] == 3:
            new = fold_to_one_channel(new)
        if new.shape != old.shape:
            shapes = f"{tuple(new.shape)}, not {tuple(old.shape)}"
            raise InputError(f"{path}: {key} is {shapes}; these are not timm's weights of {name}")
        wanted[key] = new.to(old.dtype)
    net.load_state_dict(wanted)


def _keys(state: Mapping[str, Tensor], wanted: str, path: Path) -> str:
    """Say what the keys of a file are, and how to remove a prefix that a wrapper has put before each."""
    found = f": its keys are {', '.join(printable(key) for key in list(state)[:3])} ({len(state)} in all)"
    ends = f".{wanted}".replace("_", ".")
    prefixes = [key[: 1 - len(ends)] for key in state if f".{key}".replace("_", ".").endswith(ends)]
    if not prefixes or prefixes[0] == "":
        return found
    prefix = prefixes[0]
    state_dict = f"pleura.models.weights.read_weights(pathlib.Path({path.name!r}))"
    plain = f"{{key.removeprefix({prefix!r}): tensor for key, tensor in {state_dict}.items()}}"
    return f"{found}; each has the prefix {prefix}, take it off: torch.save({plain}, 'plain.pth')"


def padded(images: Tensor, stride: int) -> Tensor:
    """Pad images (N, C, H, W) to multiples of `stride`, below and to the right.

    The border is repeated, which invents no edge.
    """
    height, width = images.shape[-2:]
    below, right = -height % stride, -width % stride
    return functional.pad(images, (0, right, 0, below), mode="replicate") if below or right else images
