"""What every net has: logits, all of its outputs, and probabilities, by one presence rule."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from pleura.config.model import ModelConfig
from pleura.models.encoders import Encoder


class Outputs(NamedTuple):
    """All that a net computes: logits, none of them behind a sigmoid."""

    logits: Tensor
    """(N, classes, H, W)."""
    presence: Tensor | None = None
    """(N, 1): is there any pneumothorax on the image. None without a presence head."""
    deep: tuple[Tensor, ...] = ()
    """(N, classes, H, W) from each decoder stage, low to high resolution. Empty without deep supervision."""


class PresenceHead(nn.Module):
    """Is there any pneumothorax: the deepest feature pooled over the image, and one linear layer.

    The mean is the 4th place's; of a small finding, in one cell of 256, it leaves little, which the maximum beside it
    keeps (Woo et al. 2018, arXiv 1807.06521, pool both).
    Source: https://github.com/amirassov/kaggle-pneumothorax (mean).
    """

    def __init__(self, channels: int, pooling: Literal["mean", "mean_max"] = "mean") -> None:
        super().__init__()
        self.with_maximum = pooling == "mean_max"
        self.linear = nn.Linear(2 * channels if self.with_maximum else channels, 1)

    def forward(self, deepest: Tensor) -> Tensor:
        """(N, channels, H, W) -> (N, 1) logits."""
        pooled = deepest.mean(dim=(2, 3))
        if self.with_maximum:
            pooled = torch.cat([pooled, deepest.amax(dim=(2, 3))], dim=1)
        logits: Tensor = self.linear(pooled)
        return logits


class Net(nn.Module):
    """A net of `build_model`: its call returns the logits."""

    encoder: Encoder
    config: ModelConfig
    stride: int
    """Sides that are multiples of it are not padded inside."""
    presence: PresenceHead | None

    def outputs(self, images: Tensor) -> Outputs:
        """(N, in_channels, H, W) normalised images -> the logits of every head that the net has; any H and W."""
        return Outputs(self(images))

    def probabilities(self, images: Tensor) -> Tensor:
        """(N, in_channels, H, W) normalised images -> (N, classes, H, W) float32 in [0, 1]: the sigmoid, once.

        A presence head takes part by `ModelConfig.presence_rule`.
        """
        # The deep heads are for training: without a presence head the logits are enough.
        outputs = Outputs(self(images)) if self.presence is None else self.outputs(images)
        return torch.sigmoid(with_presence(outputs.logits, outputs.presence, self.config.presence_rule))


def with_presence(logits: Tensor, presence: Tensor | None, rule: Literal["cap", "mean"]) -> Tensor:
    """Combine the pixels' logits (N, C, H, W) with the image's (N, 1), if there are any; float32, (N, C, H, W).

    cap: no pixel is more probable than a pneumothorax on the image, as in the 4th place's net. mean: all pixels move
    alike, so that the highest of them becomes the mean of itself and of the image's logit.
    Source: https://github.com/amirassov/kaggle-pneumothorax (cap).
    """
    pixels = logits.float()
    if presence is None:
        return pixels
    image = presence.float()[:, :, None, None]
    if rule == "cap":
        # The sigmoid rises, so that the smaller logit has the smaller probability: one sigmoid is enough.
        return torch.minimum(pixels, image)
    return pixels + (image - pixels.amax(dim=(1, 2, 3), keepdim=True)) / 2


def image_logits(logits: Tensor, presence: Tensor | None, rule: Literal["cap", "mean"]) -> Tensor:
    """Return the logit of any pneumothorax on each image, (N, 1) float32: that of the highest pixel by `with_presence`.

    logits: (N, C, H, W); presence: (N, 1), None without a presence head.
    """
    highest = logits.float().amax(dim=(1, 2, 3))[:, None]
    if presence is None:
        return highest
    image = presence.float()
    return torch.minimum(highest, image) if rule == "cap" else (highest + image) / 2
