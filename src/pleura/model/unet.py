"""U-Net over any encoder with features at strides 2, 4, 8, 16, 32 (or fewer), as in the notebook and the 1st place.

Sources: Ronneberger et al. 2015 (arXiv 1505.04597); https://github.com/sneddy/pneumothorax-segmentation (the decoder).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pleura.errors import ConfigError
from pleura.model.encoders import Encoder, run_padded
from pleura.settings import ModelConfig


def _convolution(in_channels: int, out_channels: int, normalisation: str) -> nn.Sequential:
    plain = normalisation == "none"
    convolution = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=plain)
    nn.init.kaiming_normal_(convolution.weight)
    layers: list[nn.Module] = [convolution]
    if plain:
        nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]  # there is a bias where nothing follows
    else:
        layers.append(nn.BatchNorm2d(out_channels))
    return nn.Sequential(*layers, nn.ReLU(inplace=True))


class DecoderStage(nn.Module):
    """Upsample x2, conv 3x3, ReLU; concatenate with the encoder's feature of that size; conv 3x3, ReLU."""

    def __init__(self, in_channels: int, skip_channels: int, width: int, normalisation: str) -> None:
        super().__init__()
        self.upsample = nn.Upsample(scale_factor=2)
        self.convolution = _convolution(in_channels, width, normalisation)
        self.bottleneck = _convolution(width + skip_channels, width, normalisation)

    def forward(self, features: Tensor, skip: Tensor) -> Tensor:
        """(N, in_channels, H, W) and (N, skip_channels, 2H, 2W) -> (N, width, 2H, 2W)."""
        features = self.convolution(self.upsample(features))
        decoded: Tensor = self.bottleneck(torch.cat([features, skip], dim=1))
        return decoded


class UNet(nn.Module):
    """Encoder, one decoder stage for each feature but the deepest, one last upsample, a 1x1 convolution."""

    def __init__(self, encoder: Encoder, config: ModelConfig) -> None:
        """Raises: ConfigError if `decoder_widths` does not have one width for each stage."""
        super().__init__()
        skips = encoder.channels[-2::-1]
        widths = config.decoder_widths
        if len(widths) != len(skips):
            raise ConfigError(
                f"model.decoder_widths: {encoder.name} has {len(encoder.channels)} features, so that the decoder has "
                f"{len(skips)} stages; give {len(skips)} widths, not {len(widths)}"
            )
        self.stride = encoder.reductions[-1]
        self.encoder = encoder
        ins = [encoder.channels[-1], *widths[:-1]]
        self.decoder = nn.ModuleList(
            DecoderStage(deep, skip, width, config.normalisation)
            for deep, skip, width in zip(ins, skips, widths, strict=True)
        )
        # Encoders that begin at stride 4 (ConvNeXt) leave more for the last upsample to do.
        self.last_upsample = nn.Sequential(
            nn.Upsample(scale_factor=encoder.reductions[0]),
            _convolution(widths[-1], config.last_width, config.normalisation),
        )
        self.head = nn.Conv2d(config.last_width, config.classes, 1)

    def _logits(self, images: Tensor) -> Tensor:
        *skips, decoded = self.encoder(images)
        for stage, skip in zip(self.decoder, reversed(skips), strict=True):
            decoded = stage(decoded, skip)
        logits: Tensor = self.head(self.last_upsample(decoded))
        return logits

    def forward(self, images: Tensor) -> Tensor:
        """(N, in_channels, H, W) normalised images -> (N, classes, H, W) logits; any H and W."""
        return run_padded(images, self.stride, self._logits)
