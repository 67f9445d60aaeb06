"""Nets: any timm encoder with a U-Net decoder, and AlbuNet. A net takes images (N, C, H, W) and returns logits.

With `every_output=True` it returns `Outputs`: the logits, and those of the presence and deep heads that it has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from pleura.config import parse_model
from pleura.errors import InputError
from pleura.model.albunet import AlbuNet
from pleura.model.decoder import Outputs
from pleura.model.encoders import Encoder
from pleura.model.unet import UNet
from pleura.settings import ModelConfig

__all__ = ["ARCHITECTURES", "Outputs", "build_model", "check_model"]

ARCHITECTURES: dict[str, Callable[[Encoder, ModelConfig], nn.Module]] = {"unet": UNet, "albunet": AlbuNet}


def check_model(config: ModelConfig, begins: bool = False) -> None:
    """Refuse a net that cannot be built, before any data is read; one that begins, also without its pretrained weights.

    Raises: ConfigError for settings that do not fit, InputError for weights that are not there and cannot be had.
    """
    if isinstance(config.pretrained, str) and not Path(config.pretrained).is_file():
        raise InputError(f"model.pretrained: there is no file {config.pretrained}; give a path, true or false")
    downloads = begins and config.pretrained is True
    build_model(config if downloads else config.model_copy(update={"pretrained": False}))


def build_model(config: ModelConfig | Mapping[str, Any]) -> nn.Module:
    """Build a net of `config`; call it with (N, in_channels, H, W) float32, it returns (N, classes, H, W) logits.

    Any H and W will do: sizes that do not fit the stride are padded and cropped inside.
    Raises: ConfigError for settings that do not fit, InputError if pretrained weights cannot be had.
    """
    if not isinstance(config, ModelConfig):
        config = parse_model(config)
    encoder = Encoder(config.encoder, config.in_channels, config.pretrained)
    return ARCHITECTURES[config.architecture](encoder, config)
