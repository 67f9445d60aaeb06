"""Nets: any timm encoder with a U-Net decoder, and AlbuNet. A net takes images (N, C, H, W) and returns logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from pleura.config.model import ModelConfig
from pleura.config.parse import parse_model
from pleura.errors import ConfigError, InputError
from pleura.models.albunet import AlbuNet
from pleura.models.encoders import Encoder, list_encoders
from pleura.models.net import Net
from pleura.models.unet import UNet

__all__ = [
    "ARCHITECTURES",
    "NetInput",
    "build_model",
    "check_model",
    "list_encoders",
    "preprocessing_of",
]

ARCHITECTURES: dict[str, Callable[[Encoder, ModelConfig], Net]] = {"unet": UNet, "albunet": AlbuNet}


def check_model(config: ModelConfig, needs_weights: bool = False) -> None:
    """Refuse a net that cannot be built, before any data is read.

    needs_weights: also refuse pretrained weights that cannot be had.

    Raises: ConfigError for settings that do not fit, InputError for weights that are missing.
    """
    if isinstance(config.pretrained, str) and not Path(config.pretrained).is_file():
        raise InputError(f"model.pretrained: there is no file {config.pretrained}; give a path, true or false")
    downloads = needs_weights and config.pretrained is True
    build_model(config if downloads else config.model_copy(update={"pretrained": False}))


def build_model(config: ModelConfig | Mapping[str, Any] | str | None = None, **settings: Any) -> Net:
    """Build a net that maps (N, in_channels, H, W) float32 to (N, classes, H, W) logits, for any H and W.

    config: the name of an encoder or architecture, or a mapping with the keys of `ModelConfig`. settings: the same
    keys; they override the mapping. Sizes that do not fit the stride are padded and cropped inside.

    >>> net = build_model("test_resnet", pretrained=False, in_channels=1, classes=2)
    >>> net(torch.zeros(1, 1, 100, 70)).shape
    torch.Size([1, 2, 100, 70])

    Raises: ConfigError for settings that do not fit, InputError if pretrained weights cannot be had.
    """
    config = _config(config, settings)
    encoder = Encoder(config.encoder, config.in_channels, config.pretrained)
    return ARCHITECTURES[config.architecture](encoder, config)


def _config(config: ModelConfig | Mapping[str, Any] | str | None, settings: Mapping[str, Any]) -> ModelConfig:
    if isinstance(config, ModelConfig) and not settings:
        return config
    if isinstance(config, ModelConfig):
        given: dict[Any, Any] = config.model_dump(mode="json")
    elif isinstance(config, str):
        given = {"architecture" if config in ARCHITECTURES else "encoder": config}
        if twice := given.keys() & settings.keys():
            raise ConfigError(f"model.{twice.pop()} is given twice, as {config!r} and by its name; give it once")
    elif isinstance(config, Mapping) or config is None:
        given = dict(config or {})
    else:
        raise ConfigError(
            f"model: a net is named by its encoder, such as 'resnet34', or by a mapping of settings, "
            f"not by {type(config).__name__}"
        )
    if no_names := [key for key in given if not isinstance(key, str)]:
        raise ConfigError(f"model: the keys of a mapping of settings are names, not {no_names[0]!r:.40}")
    return parse_model({**given, **settings})


@dataclass(frozen=True)
class NetInput:
    """What a net expects: `(image - mean) / std`, of an image in [0, 1], in `in_channels` equal channels."""

    mean: float
    std: float
    in_channels: int
    input_scaling: Literal["encoder", "none"]
    """`encoder`: mean and std are those of the encoder's weights; `none`: 0 and 1."""
    stride: int
    """Sides that are multiples of it are not padded inside."""


def preprocessing_of(net: nn.Module | ModelConfig | Mapping[str, Any] | str, **settings: Any) -> NetInput:
    """Return what a net of `build_model` expects, or the net that the same arguments build; nothing is downloaded.

    A `Predictor` does this preprocessing itself, and a checkpoint's header carries it.
    Raises: ConfigError for settings that do not fit, or a net that `build_model` has not built.
    """
    if not isinstance(net, nn.Module):
        config = _config(net, settings)
        with torch.device("meta"):
            return preprocessing_of(build_model(config.model_copy(update={"pretrained": False})))
    # Whatever the net is wrapped in (an average, several devices), it is one of its modules.
    built = next((module for module in net.modules() if isinstance(module, Net)), None)
    if built is None or settings:
        what = f"{type(net).__name__} is none of its nets" if built is None else "the net is built already"
        raise ConfigError(f"pleura.preprocessing_of takes what pleura.build_model does or returns; {what}")
    scaled = built.config.input_scaling == "encoder"
    mean, std = (built.encoder.mean, built.encoder.std) if scaled else (0.0, 1.0)
    return NetInput(mean, std, built.config.in_channels, built.config.input_scaling, built.stride)
