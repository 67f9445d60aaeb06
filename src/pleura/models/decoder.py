"""What a U-Net's decoder is made of: three registries by the names of the settings, and a stage.

A registry maps a name to a builder. `decoder.i.convolution`, `decoder.i.bottleneck` and `last_upsample` keep their keys
whatever is chosen; a choice only adds layers behind the convolution, or weights of the upsampling.

Sources: Ronneberger et al. 2015 (arXiv 1505.04597); https://github.com/sneddy/pneumothorax-segmentation (the stage);
Roy et al. 2018 (arXiv 1803.02579; SCSE); Wu & He 2018 (arXiv 1803.08494; group normalisation).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from pleura.config.model import ModelConfig


def _conv(in_channels: int, out_channels: int, kernel: int, bias: bool = True) -> nn.Conv2d:
    layer = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=bias)
    nn.init.kaiming_normal_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def normalisation_groups(width: int) -> int:
    """Number of groups for a layer of `width` channels: the most, up to 32, that divide it with 8 channels or more.

    One where there is no such number: single channels, or pairs, would lose how bright one image is against another.
    """
    return max((groups for groups in range(1, 33) if width % groups == 0 and width // groups >= 8), default=1)


NORMALISATIONS: dict[str, Callable[[int], list[nn.Module]]] = {
    "none": lambda width: [],
    "batch": lambda width: [nn.BatchNorm2d(width)],
    "group": lambda width: [nn.GroupNorm(normalisation_groups(width), width)],
}
"""Channels -> the layers between a decoder convolution and its ReLU."""


class SCSE(nn.Module):
    """Spatial and channel squeeze-and-excitation; of the two gated inputs the element-wise maximum, as the winner's.

    Source: arXiv 1803.02579; the maximum and the half width: https://github.com/sneddy/pneumothorax-segmentation.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        between = max(1, channels // 2)
        self.squeeze, self.excite = _conv(channels, between, 1), _conv(between, channels, 1)
        self.spatial = _conv(channels, 1, 1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """(N, channels, H, W) -> the same shape."""
        mean = features.mean(dim=(2, 3), keepdim=True)
        by_channel = self.excite(functional.relu(self.squeeze(mean))).sigmoid()
        by_pixel = self.spatial(features).sigmoid()
        return torch.maximum(features * by_channel, features * by_pixel)


BOTTLENECKS: dict[str, Callable[[int], list[nn.Module]]] = {
    "plain": lambda width: [],
    "scse": lambda width: [SCSE(width)],
}
"""Channels -> the layers behind a stage's second convolution and its ReLU."""


def _interpolated(mode: str) -> Callable[[int, int, int], tuple[nn.Module, int]]:
    return lambda in_channels, width, factor: (nn.Upsample(scale_factor=factor, mode=mode), in_channels)


def _transposed(in_channels: int, width: int, factor: int) -> tuple[nn.Module, int]:
    # To the stage's width at once, as the up-convolution of the first U-Net: keeping 2,048 channels would cost 16.8
    # million weights, more than the whole of a small net. Kernel = stride, so that no two strokes overlap.
    layer = nn.ConvTranspose2d(in_channels, width, factor, stride=factor)
    # All pixels of a stroke start from equal weights, without a checkerboard (arXiv 1707.02937). No ReLU follows.
    pixel = nn.init.kaiming_normal_(torch.empty(width, in_channels, 1, 1), nonlinearity="linear").transpose(0, 1)
    with torch.no_grad():
        layer.weight.copy_(pixel.expand_as(layer.weight))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer, width


UPSAMPLINGS: dict[str, Callable[[int, int, int], tuple[nn.Module, int]]] = {
    "nearest": _interpolated("nearest"),
    "bilinear": _interpolated("bilinear"),
    "transposed": _transposed,
}
"""Channels, the stage's width, factor -> a layer to `factor` times the height and width, and the channels it gives."""


def convolution(in_channels: int, width: int, normalisation: str, bottleneck: str = "plain") -> nn.Sequential:
    """3x3 convolution, normalisation, ReLU, bottleneck. A bias only where no normalisation would cancel it."""
    norm = NORMALISATIONS[normalisation](width)
    first = _conv(in_channels, width, 3, bias=not norm)
    return nn.Sequential(first, *norm, nn.ReLU(inplace=True), *BOTTLENECKS[bottleneck](width))


class DecoderStage(nn.Module):
    """Upsample x2, conv 3x3, ReLU; concatenate with the encoder's feature of that size; conv 3x3, ReLU, bottleneck."""

    def __init__(self, in_channels: int, skip_channels: int, width: int, config: ModelConfig) -> None:
        super().__init__()
        self.upsample, channels = UPSAMPLINGS[config.upsampling](in_channels, width, 2)
        self.convolution = convolution(channels, width, config.normalisation)
        self.bottleneck = convolution(width + skip_channels, width, config.normalisation, config.bottleneck)

    def forward(self, features: Tensor, skip: Tensor) -> Tensor:
        """(N, in_channels, H, W) and (N, skip_channels, 2H, 2W) -> (N, width, 2H, 2W)."""
        features = self.convolution(self.upsample(features))
        decoded: Tensor = self.bottleneck(torch.cat([features, skip], dim=1))
        return decoded


def last_upsample(in_channels: int, factor: int, config: ModelConfig) -> nn.Sequential:
    """From the encoder's first resolution to the image's: upsample x `factor`, conv 3x3 to `last_width`, ReLU."""
    upsample, channels = UPSAMPLINGS[config.upsampling](in_channels, config.last_width, factor)
    return nn.Sequential(upsample, convolution(channels, config.last_width, config.normalisation))
