"""MobileNetV2 as a pyramid of features, the encoder of the default model: its keys and its arithmetic are timm's.

It is written here because timm imports all of its nets, torchvision and torch's compiler, which takes longer than a
prediction. Checkpoints and files of weights fit timm's net and this one alike.

Sources: Sandler et al. 2018 (arXiv 1801.04381), table 2; timm's `mobilenetv2_100` for names and first weights.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, channels, blocks and stride of the first block, of each stage."""
STEM_CHANNELS = 32
FEATURE_STAGES = (0, 1, 2, 4, 6)
"""The last stage at each resolution: what a decoder takes."""


class MobileNetV2(nn.Module):
    """(N, in_channels, H, W) -> five features at strides 2 to 32. mean, std: of each channel of the input in [0, 1]."""

    feature_stages = FEATURE_STAGES
    channels = tuple(STAGES[stage][1] for stage in FEATURE_STAGES)
    reductions = (2, 4, 8, 16, 32)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

    def __init__(self, in_channels: int = 3) -> None:
        super().__init__()
        self.conv_stem = nn.Conv2d(in_channels, STEM_CHANNELS, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM_CHANNELS)
        self.act = nn.ReLU6(inplace=True)
        for _ in range(2):
            # timm's builder draws two such layers and drops them. With them a seed gives the weights that it gives
            # with timm, and the same decoder behind them, so that a run can be repeated with either.
            nn.Conv2d(8, 8, 1)
        stages, ins = [], STEM_CHANNELS
        for expansion, width, n_blocks, stride in STAGES:
            blocks = []
            for number in range(n_blocks):
                step = stride if number == 0 else 1
                blocks.append(_Inverted(ins, width, step, expansion) if expansion > 1 else _Separable(ins, width, step))
                ins = width
            stages.append(nn.Sequential(*blocks))
        self.blocks = nn.Sequential(*stages)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
                nn.init.normal_(module.weight, 0, math.sqrt(2 / fan_out))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (N, in_channels, H, W) -> features, high to low resolution."""
        features, current = [], self.act(self.bn1(self.conv_stem(images)))
        for number, stage in enumerate(self.blocks):
            current = stage(current)
            if number in FEATURE_STAGES:
                features.append(current)
        return features


class _Separable(nn.Module):
    """Each channel by itself, then all of them at each pixel; the first stage's only block has no shortcut."""

    def __init__(self, ins: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv_dw = nn.Conv2d(ins, ins, 3, stride, 1, groups=ins, bias=False)
        self.bn1 = nn.BatchNorm2d(ins)
        self.conv_pw = nn.Conv2d(ins, width, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.act = nn.ReLU6(inplace=True)

    def forward(self, features: Tensor) -> Tensor:
        features = self.act(self.bn1(self.conv_dw(features)))
        projected: Tensor = self.bn2(self.conv_pw(features))
        return projected


class _Inverted(nn.Module):
    """The inverted residual: to more channels, each of them by itself, and back to few."""

    def __init__(self, ins: int, width: int, stride: int, expansion: int) -> None:
        super().__init__()
        between = ins * expansion
        self.conv_pw = nn.Conv2d(ins, between, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(between)
        self.conv_dw = nn.Conv2d(between, between, 3, stride, 1, groups=between, bias=False)
        self.bn2 = nn.BatchNorm2d(between)
        self.conv_pwl = nn.Conv2d(between, width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.act = nn.ReLU6(inplace=True)
        self.has_shortcut = stride == 1 and ins == width

    def forward(self, features: Tensor) -> Tensor:
        inner = self.act(self.bn1(self.conv_pw(features)))
        inner = self.act(self.bn2(self.conv_dw(inner)))
        projected: Tensor = self.bn3(self.conv_pwl(inner))
        return projected + features if self.has_shortcut else projected
