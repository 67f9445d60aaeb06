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
    """Is there any pneumothorax: mean of the deepest feature, and one linear layer, as in the 4th place's net.

    Source: https://github.com/amirassov/kaggle-pneumothorax.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, 1)

    def forward(self, deepest: Tensor) -> Tensor:
        """(N, channels, H, W) -> (N, 1) logits."""
        logits: Tensor = self.linear(deepest.mean(dim=(2, 3)))
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
