"""Encoders: timm nets that give a pyramid of features. The only file that imports timm.

Source: https://github.com/huggingface/pytorch-image-models (`features_only`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pleura.errors import ConfigError, InputError
from pleura.model.weights import fold_to_one_channel, read_weights


def _declare_torchvision_operators() -> None:
    # torchvision's wheel does not import beside a CPU-only torch ("operator torchvision::nms does not exist"): it
    # registers fake kernels for operators that its compiled library, built for CUDA, could not declare. timm imports
    # torchvision. Neither operator is called here, so that declaring them is enough.
    boxes = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            torch.library.define(f"torchvision::{name}", boxes)


_declare_torchvision_operators()

import timm  # noqa: E402  (only after the operators exist)
from timm.models import is_model, list_models  # noqa: E402


class Encoder(nn.Module):
    """A timm net that maps (N, C, H, W) to its features, high to low resolution.

    channels, reductions: of each feature, in that order. mean, std: of the input in [0, 1], one number for all
    channels: a grey image has one, and with one number for all a three-channel stem folds into one exactly.
    """

    def __init__(self, name: str, in_channels: int = 3, pretrained: bool | str = False) -> None:
        """Raises: ConfigError for an unknown net or one without a pyramid, InputError if weights cannot be had."""
        super().__init__()
        if not is_model(name):
            close = ", ".join(list_models(f"*{name.split('_')[0]}*")[:5])
            meant = f"did you mean one of: {close}?" if close else "see timm.list_models()"
            raise ConfigError(f"model.encoder: timm has no net {name!r}; {meant}")
        self.net = _create(name, in_channels, pretrained is True)
        self.name = name
        self.channels: list[int] = list(self.net.feature_info.channels())
        self.reductions: list[int] = list(self.net.feature_info.reduction())
        if any(deep != 2 * shallow for shallow, deep in zip(self.reductions, self.reductions[1:], strict=False)):
            raise ConfigError(f"model.encoder: {name} halves its features by {self.reductions}, a U-Net needs 2 each")
        if self.net.pretrained_cfg.get("fixed_input_size"):
            raise ConfigError(f"model.encoder: {name} takes images of one size only; choose another")
        self.channels_last = str(getattr(self.net, "output_fmt", "NCHW")).endswith("NHWC")
        if isinstance(pretrained, str):
            load_encoder(self.net, Path(pretrained), name)
        settings: dict[str, Any] = self.net.pretrained_cfg
        self.mean = float(sum(settings["mean"]) / len(settings["mean"]))
        self.std = float(sum(settings["std"]) / len(settings["std"]))

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, C, H, W) with H and W multiples of the deepest reduction -> features, high to low resolution."""
        features: list[Tensor] = self.net(images)
        return [feature.movedim(-1, 1) for feature in features] if self.channels_last else features


def _create(name: str, in_channels: int, download: bool) -> Any:
    try:
        return timm.create_model(name, features_only=True, in_chans=in_channels, pretrained=download)
    except (AttributeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(f"model.encoder: {name} has no feature pyramid in timm ({error}); choose another") from error
    except (OSError, RuntimeError) as error:
        if not download:
            raise ConfigError(f"model.encoder: {name} takes no such input ({error})") from error
        reason = " ".join(str(error).split())[:160]
        raise InputError(
            f"the weights of {name} could not be downloaded ({reason}); "
            "set model.pretrained to a local file with timm's key names, or to false"
        ) from error


def load_encoder(net: nn.Module, path: Path, name: str) -> None:
    """Load weights with timm's key names, classifier ignored; a three-channel stem is folded where it has to be.

    Raises: InputError if the file cannot be read or does not hold all of this net's tensors in their shapes.
    """
    # Feature nets flatten some module names (features.norm0 -> features_norm0); with one separator they agree.
    found = {key.replace(".", "_"): tensor for key, tensor in read_weights(path).items()}
    wanted = net.state_dict()
    for key, old in wanted.items():
        new = found.get(key.replace(".", "_"))
        if new is None:
            if key.endswith("num_batches_tracked"):
                continue
            raise InputError(f"{path}: holds no tensor {key}; these are not timm's weights of {name}")
        if new.ndim == 4 and old.shape[1] == 1 and new.shape[1] == 3:
            new = fold_to_one_channel(new)
        if new.shape != old.shape:
            shapes = f"{tuple(new.shape)}, not {tuple(old.shape)}"
            raise InputError(f"{path}: {key} is {shapes}; these are not timm's weights of {name}")
        wanted[key] = new.to(old.dtype)
    net.load_state_dict(wanted)


def padded(images: Tensor, stride: int) -> Tensor:
    """Images (N, C, H, W) with H and W grown to multiples of `stride`, below and to the right.

    The border is repeated, which invents no edge.
    """
    height, width = images.shape[-2:]
    below, right = -height % stride, -width % stride
    return functional.pad(images, (0, right, 0, below), mode="replicate") if below or right else images
