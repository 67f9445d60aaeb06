"""The published nets, stated anew in plain torch from published facts: an opinion independent of pleura's own.

Key names and shapes are those of the repositories; what no list of shapes can tell (strides, padding, the order of
concatenation, which activation) stands here. Nothing of pleura, timm or torchvision is used.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Block(nn.Module):
    """A residual block of convolutions (width, kernel, stride, groups), each normalised; perhaps with a squeeze."""

    def __init__(self, inside: int, convolutions: list[tuple[int, int, int, int]], squeeze: bool) -> None:
        super().__init__()
        width, stride = inside, 1
        for place, (out, kernel, step, groups) in enumerate(convolutions, 1):
            convolution = nn.Conv2d(width, out, kernel, step, kernel // 2, groups=groups, bias=False)
            self.add_module(f"conv{place}", convolution)
            self.add_module(f"bn{place}", nn.BatchNorm2d(out))
            width, stride = out, stride * step
        self.last = len(convolutions)
        if squeeze:
            self.se_module = nn.ModuleDict(
                {"fc1": nn.Conv2d(width, width // 16, 1), "fc2": nn.Conv2d(width // 16, width, 1)}
            )
        if stride > 1 or inside != width:
            self.downsample = nn.Sequential(nn.Conv2d(inside, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, features: Tensor) -> Tensor:
        found = features
        for place in range(1, self.last + 1):
            found = self.get_submodule(f"bn{place}")(self.get_submodule(f"conv{place}")(found))
            if place < self.last:
                found = found.relu()
        if hasattr(self, "se_module"):
            gate = self.se_module["fc1"](found.mean((2, 3), keepdim=True)).relu()
            found = found * self.se_module["fc2"](gate).sigmoid()
        return (found + (self.downsample(features) if hasattr(self, "downsample") else features)).relu()


def layer(kind: str, inside: int, planes: int, blocks: int, stride: int) -> nn.Sequential:
    """Blocks of one resolution; the first may halve it, in its 3 x 3 convolution."""
    made = []
    for place in range(blocks):
        step = stride if place == 0 else 1
        if kind == "basic":
            convolutions = [(planes, 3, step, 1), (planes, 3, 1, 1)]
        elif kind == "bottleneck":
            convolutions = [(planes, 1, 1, 1), (planes, 3, step, 1), (planes * 4, 1, 1, 1)]
        else:  # ResNeXt 32 x 4d
            convolutions = [(planes * 2, 1, 1, 1), (planes * 2, 3, step, 32), (planes * 4, 1, 1, 1)]
        made.append(Block(inside, convolutions, kind == "se"))
        inside = convolutions[-1][0]
    return nn.Sequential(*made)


def stem(width: int) -> list[nn.Module]:
    return [nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU()]


def residual_stages(kind: str, blocks: list[int]) -> list[nn.Module]:
    """Features of ResNet and SE-ResNeXt at strides 2 to 32."""
    grow = 1 if kind == "basic" else 4
    layers = [
        layer(kind, 64 if place == 0 else 32 * 2**place * grow, 64 * 2**place, count, 1 if place == 0 else 2)
        for place, count in enumerate(blocks)
    ]
    if kind != "se":
        first, pool = nn.Sequential(*stem(64)), nn.MaxPool2d(3, 2, 1)
    else:
        first = nn.Sequential()
        for name, module in zip(("conv1", "bn1", "relu1"), stem(64), strict=True):
            first.add_module(name, module)
        pool = nn.MaxPool2d(3, 2, ceil_mode=True)
    return [first, nn.Sequential(pool, layers[0]), *layers[1:]]


class DenseLayer(nn.Module):
    """1 x 1 to 128 channels, 3 x 3 to 32 new ones."""

    def __init__(self, inside: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(inside), nn.Conv2d(inside, 128, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(128), nn.Conv2d(128, 32, 3, padding=1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        new = self.conv2(self.norm2(self.conv1(self.norm1(features).relu())).relu())
        return torch.cat([features, new], 1)


class Transition(nn.Module):
    def __init__(self, inside: int) -> None:
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(inside), nn.Conv2d(inside, inside // 2, 1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        return functional.avg_pool2d(self.conv(self.norm(features).relu()), 2)


def dense_stages(blocks: list[int]) -> list[nn.Module]:
    """Features of DenseNet with a growth of 32 at strides 2 to 32."""
    stages: list[nn.Module] = [nn.Sequential(*stem(64))]
    width = 64
    for place, count in enumerate(blocks):
        block = nn.Sequential()
        before: nn.Module = nn.MaxPool2d(3, 2, 1) if place == 0 else Transition(width)
        width = width if place == 0 else width // 2
        for number in range(count):
            block.add_module(f"denselayer{number + 1}", DenseLayer(width))
            width += 32
        stages.append(nn.Sequential(before, block))
    stages[-1] = nn.Sequential(*stages[-1], nn.BatchNorm2d(width), nn.ReLU())
    return stages


class Scse(nn.Module):
    """Channel gate and spatial gate; the larger of the two gated inputs."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Conv2d(width, width // 2, 1), nn.Conv2d(width // 2, width, 1)
        self.spatial_se = nn.Sequential(nn.Conv2d(width, 1, 1, bias=False), nn.Sigmoid())

    def forward(self, features: Tensor) -> Tensor:
        channels = self.fc2(self.fc1(functional.adaptive_avg_pool2d(features, 1)).relu()).sigmoid()
        return torch.max(channels * features, self.spatial_se(features) * features)


class Bottleneck(nn.Module):
    def __init__(self, inside: int, width: int, scse: bool) -> None:
        super().__init__()
        self.seq = nn.Sequential(nn.Conv2d(inside, width, 3, padding=1), nn.ReLU(), *([Scse(width)] if scse else []))

    def forward(self, decoded: Tensor, skip: Tensor) -> Tensor:
        return self.seq(torch.cat([decoded, skip], 1))


class Upsampled(nn.Module):
    def __init__(self, inside: int, width: int) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(inside, width, 3, padding=1), nn.ReLU())

    def forward(self, features: Tensor) -> Tensor:
        return self.layer(features)


class EncoderDecoder(nn.Module):
    """The U-Nets of the winner's `selim_zoo`: `widths` from high to low resolution, as it has them."""

    def __init__(self, stages: list[nn.Module], channels: list[int], widths: list[int], last: int, scse: bool) -> None:
        super().__init__()
        deepest_first = list(reversed(widths))
        skips = channels[-2::-1]
        self.bottlenecks = nn.ModuleList(
            Bottleneck(skip + width, width, scse) for skip, width in zip(skips, deepest_first, strict=True)
        )
        below = [*widths[1:], channels[-1]]
        self.decoder_stages = nn.ModuleList(Upsampled(deep, width) for deep, width in zip(below, widths, strict=True))
        self.last_upsample = Upsampled(widths[0], last)
        self.final = nn.Sequential(nn.Conv2d(last, 1, 1))
        self.encoder_stages = nn.ModuleList(stages)

    def forward(self, images: Tensor) -> Tensor:
        features = [images]
        for stage in self.encoder_stages:
            features.append(stage(features[-1]))
        decoded = features[-1]
        for depth, bottleneck in enumerate(self.bottlenecks):
            decoded = bottleneck(self.decoder_stages[3 - depth](decoded), features[-2 - depth])
        return self.final(self.last_upsample(decoded))


class ConvRelu(nn.Module):
    def __init__(self, inside: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inside, width, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        return self.conv(features).relu()


class AlbuBlock(nn.Module):
    def __init__(self, inside: int, middle: int, width: int) -> None:
        super().__init__()
        upsample = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        self.block = nn.Sequential(upsample, ConvRelu(inside, middle), ConvRelu(middle, width))

    def forward(self, *features: Tensor) -> Tensor:
        return self.block(torch.cat(features, 1))


class AlbuNet(nn.Module):
    """ResNet34 with TernausNet's decoder; the encoder's modules have two names each."""

    def __init__(self) -> None:
        super().__init__()
        first, second, *layers = residual_stages("basic", [3, 4, 6, 3])
        self.encoder = nn.Module()
        self.encoder.conv1, self.encoder.bn1 = first[0], first[1]
        for place, module in enumerate((second[1], *layers), 1):
            self.encoder.add_module(f"layer{place}", module)
        self.encoder.fc = nn.Linear(512, 1000)
        self.conv1 = nn.Sequential(first[0], first[1], nn.ReLU(), nn.MaxPool2d(2))
        self.conv2, self.conv3, self.conv4, self.conv5 = second[1], *layers
        self.center = AlbuBlock(512, 512, 256)
        self.dec5, self.dec4 = AlbuBlock(768, 512, 256), AlbuBlock(512, 512, 256)
        self.dec3, self.dec2 = AlbuBlock(384, 256, 64), AlbuBlock(128, 128, 128)
        self.dec1, self.dec0 = AlbuBlock(128, 128, 32), ConvRelu(32, 32)
        self.final = nn.Conv2d(32, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        conv2 = self.conv2(self.conv1(images))
        conv3 = self.conv3(conv2)
        conv4 = self.conv4(conv3)
        conv5 = self.conv5(conv4)
        decoded = self.center(functional.max_pool2d(conv5, 2))
        for block, skip in ((self.dec5, conv5), (self.dec4, conv4), (self.dec3, conv3), (self.dec2, conv2)):
            decoded = block(decoded, skip)
        return self.final(self.dec0(self.dec1(decoded)))


def published_net(name: str) -> nn.Module:
    """A net by the name of its list, with random weights and statistics as after a training; in eval mode."""
    with torch.device("meta"):  # torch's own start values would be drawn for nothing
        net = _unborn(name)
    net.to_empty(device="cpu")
    torch.manual_seed(5)
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.normal_(module.bias, 0, 0.1)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.3, 0.9)
            nn.init.normal_(module.bias, 0, 0.2)
            module.num_batches_tracked.fill_(7)
    return net.eval()


def _unborn(name: str) -> nn.Module:
    widths, deep = [64, 128, 256, 256], [64, 256, 512, 1024, 2048]
    if name == "albunet":
        return AlbuNet()
    if name == "densenet_unet-densenet121":
        return EncoderDecoder(dense_stages([6, 12, 24, 16]), [64, 256, 512, 1024, 1024], widths, 64, False)
    if name == "resnet_unet-resnet50":
        return EncoderDecoder(residual_stages("bottleneck", [3, 4, 6, 3]), deep, widths, 64, False)
    if name == "scse_unet-seresnext50":
        return EncoderDecoder(residual_stages("se", [3, 4, 6, 3]), deep, [64, 128, 256, 384], 32, True)
    # resnet_unet-resnet18, of a size that suits the tests that need any net
    return EncoderDecoder(residual_stages("basic", [2, 2, 2, 2]), [64, 64, 128, 256, 512], widths, 64, False)
