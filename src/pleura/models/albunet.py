"""AlbuNet: ResNet34 with the decoder of TernausNet, the winner's first net.

Sources: Iglovikov & Shvets 2018 (arXiv 1801.05746); Shvets et al. 2018 (arXiv 1804.08024);
https://github.com/sneddy/pneumothorax-segmentation.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from pleura.config.model import ModelConfig
from pleura.models.encoders import Encoder, padded
from pleura.models.net import Net


class DecoderBlock(nn.Module):
    """Bilinear upsample x2, conv 3x3 + ReLU, conv 3x3 + ReLU."""

    def __init__(self, in_channels: int, middle: int, out: int) -> None:
        super().__init__()
        self.middle = nn.Conv2d(in_channels, middle, 3, padding=1)
        self.out = nn.Conv2d(middle, out, 3, padding=1)

    def forward(self, *features: Tensor) -> Tensor:
        """Features of one size (N, ., H, W), concatenated -> (N, out, 2H, 2W)."""
        joined = torch.cat(features, dim=1)
        larger = functional.interpolate(joined, scale_factor=2, mode="bilinear", align_corners=False)
        return functional.relu(self.out(functional.relu(self.middle(larger))))


class AlbuNet(Net):
    """ResNet34 encoder, centre block below it, six decoder blocks. Has no skip at stride 2."""

    stride = 64  # the centre block pools the deepest feature, of stride 32, once more

    def __init__(self, encoder: Encoder, config: ModelConfig) -> None:
        super().__init__()
        self.encoder, self.config, self.presence = encoder, config, None
        encoder.net.maxpool = nn.MaxPool2d(2)  # TernausNet's, in place of ResNet's 3 x 3
        # The published net carries ResNet34's ImageNet classifier along, unused; it is kept, frozen, so that
        # published state dicts load whole and the parameter count is the published one.
        self.encoder.fc = nn.Linear(encoder.channels[-1], 1000).requires_grad_(False)
        _, conv2, conv3, conv4, conv5 = encoder.channels
        self.centre = DecoderBlock(conv5, 512, 256)
        self.dec5 = DecoderBlock(conv5 + 256, 512, 256)
        self.dec4 = DecoderBlock(conv4 + 256, 512, 256)
        self.dec3 = DecoderBlock(conv3 + 256, 256, 64)
        self.dec2 = DecoderBlock(conv2 + 64, 128, 128)
        self.dec1 = DecoderBlock(128, 128, 32)
        self.dec0 = nn.Conv2d(32, 32, 3, padding=1)
        self.head = nn.Conv2d(32, config.classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """(N, in_channels, H, W) normalised images -> (N, classes, H, W) logits; any H and W."""
        height, width = images.shape[-2:]
        _, conv2, conv3, conv4, conv5 = self.encoder(padded(images, self.stride))
        decoded = self.centre(functional.max_pool2d(conv5, 2))
        decoded = self.dec5(decoded, conv5)
        decoded = self.dec4(decoded, conv4)
        decoded = self.dec3(decoded, conv3)
        decoded = self.dec1(self.dec2(decoded, conv2))
        logits: Tensor = self.head(functional.relu(self.dec0(decoded)))[..., :height, :width]
        return logits
