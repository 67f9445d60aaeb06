"""From grey images to probabilities: the one way in which a net is run, in validation, evaluation and prediction."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pleura.errors import CheckpointError
from pleura.model.decoder import Outputs, PresenceHead
from pleura.model.resize import REDUCTIONS, resize_images


@dataclass(frozen=True)
class Preprocessing:
    """What happens to an image before a net sees it; a checkpoint carries it."""

    prepared_px: int
    """Side of the square 8-bit image, as `pleura prepare` writes it."""
    size_px: int
    """Side to which it is resized for the net."""
    in_channels: int
    mean: float | list[float]
    """Of an image in [0, 1]: one number for all channels, or one for each, as imported weights may need."""
    std: float | list[float]
    """As `mean`."""
    reduction: str = "adaptive"
    """How it is reduced to `size_px`, a name in `REDUCTIONS`; the default is that of headers without the field."""

    def __post_init__(self) -> None:
        """Raises: CheckpointError if there is neither one number nor one for each channel, or no such reduction."""
        if self.reduction not in REDUCTIONS:
            raise CheckpointError(
                f"preprocessing.reduction is {self.reduction!r}; this version of pleura has {', '.join(REDUCTIONS)}"
            )
        for name, numbers in (("mean", self.mean), ("std", self.std)):
            if not isinstance(numbers, int | float) and len(numbers) != self.in_channels:
                raise CheckpointError(
                    f"preprocessing.{name} has {len(numbers)} numbers for {self.in_channels} channels; "
                    "give one for all, or one for each"
                )


def normalise(images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """(N, 1, H, W) float32 in [0, 1] -> (N, in_channels, H, W), normalised as the encoder expects."""
    mean, std = (
        numbers if isinstance(numbers, int | float) else images.new_tensor(numbers)[:, None, None]
        for numbers in (preprocessing.mean, preprocessing.std)
    )
    normal: Tensor = (images - mean) / std
    return normal.expand(-1, preprocessing.in_channels, -1, -1)


def _probabilities(model: nn.Module, inputs: Tensor) -> Tensor:
    # Whatever the net is wrapped in (an average, several devices), its modules are found; attributes are not.
    head = next((module for module in model.modules() if isinstance(module, PresenceHead)), None)
    outputs = model(inputs, every_output=True) if head is not None else Outputs(model(inputs))
    logits = outputs.logits.float()
    if head is not None and outputs.presence is not None:
        logits = head.heard(logits, outputs.presence)
    return torch.sigmoid(logits)


@torch.inference_mode()
def infer(model: nn.Module, images: Tensor, preprocessing: Preprocessing, flip: bool = False) -> Tensor:
    """Probabilities of a batch: the sigmoid is applied here, once.

    images: (N, 1, H, W) uint8, or float32 in [0, 1], of any side. flip: mean with the flipped image's (TTA).
    Returns: (N, size_px, size_px) float32 in [0, 1], the first class. A presence head is heard in each view, before the
    mean, by its `presence_rule`; `cap` is the 4th place's. Source: https://github.com/amirassov/kaggle-pneumothorax.
    """
    inputs = normalise(resize_images(images, preprocessing.size_px, preprocessing.reduction), preprocessing)
    inputs = inputs.contiguous(memory_format=torch.channels_last)
    probabilities = _probabilities(model, inputs)
    if flip:
        probabilities = (probabilities + _probabilities(model, inputs.flip(-1)).flip(-1)) / 2
    return probabilities[:, 0]
