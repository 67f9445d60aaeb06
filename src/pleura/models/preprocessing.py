"""What happens to an image before a net sees it: its size, and the numbers it is normalised with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import TYPE_CHECKING

from pleura.errors import CheckpointError

if TYPE_CHECKING:  # a header is read without torch
    from torch import Tensor

REDUCTION, OLD_REDUCTION = "area", "adaptive"
"""What nets are trained with, and what they were trained with before checkpoints and states said which."""
REDUCTIONS = (REDUCTION, OLD_REDUCTION)
MOST_PX, MOST_CHANNELS = 16384, 1024
LEAST_STD, MOST_NUMBER = 1e-6, 1e6
"""Beyond these a preprocessing is damaged: float32 would end in infinity, or a batch in all of the memory."""


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
    reduction: str = OLD_REDUCTION
    """How it is reduced to `size_px`, a name in `REDUCTIONS`; the default is that of headers without it."""

    def __post_init__(self) -> None:
        """Raises: CheckpointError for a size, or a number, that none can be, or no number for each channel."""
        for name, most in (("prepared_px", MOST_PX), ("size_px", MOST_PX), ("in_channels", MOST_CHANNELS)):
            size = getattr(self, name)
            if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= most:
                raise CheckpointError(f"preprocessing.{name} is a whole number within 1 and {most}, not {size!r:.60}")
        if not isinstance(self.reduction, str) or self.reduction not in REDUCTIONS:
            raise CheckpointError(
                f"preprocessing.reduction is {self.reduction!r}; this version of pleura has {', '.join(REDUCTIONS)}"
            )
        for name, numbers, least in (("mean", self.mean, -MOST_NUMBER), ("std", self.std, LEAST_STD)):
            every = numbers if isinstance(numbers, list) else [numbers]
            if wrong := [number for number in every if not _is_within(number, least, MOST_NUMBER)]:
                raise CheckpointError(
                    f"preprocessing.{name} is a number within {least:g} and {MOST_NUMBER:g}, or one for each channel, "
                    f"not {wrong[0]!r:.60}"
                )
            if isinstance(numbers, list) and len(numbers) != self.in_channels:
                raise CheckpointError(
                    f"preprocessing.{name} has {len(numbers)} numbers for {self.in_channels} channels; "
                    "give one for all, or one for each"
                )

    @classmethod
    def of(cls, document: object) -> Preprocessing:
        """From the JSON of a header. Raises: CheckpointError for fields that are missing, of others, or damaged."""
        names = [each.name for each in fields(cls)]
        needed = {each.name for each in fields(cls) if each.default is MISSING}
        if not isinstance(document, Mapping) or not needed <= document.keys() <= set(names):
            raise CheckpointError(f"a preprocessing has {', '.join(names)}, and no other fields, not {document!r:.60}")
        return cls(**document)


def _is_within(number: object, least: float, most: float) -> bool:
    return isinstance(number, int | float) and not isinstance(number, bool) and least <= number <= most


def normalise(images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """(N, 1, H, W) float32 in [0, 1] -> (N, in_channels, H, W), normalised as the encoder expects."""
    mean, std = (
        numbers if isinstance(numbers, int | float) else images.new_tensor(numbers)[:, None, None]
        for numbers in (preprocessing.mean, preprocessing.std)
    )
    normal: Tensor = (images - mean) / std
    return normal.expand(-1, preprocessing.in_channels, -1, -1)
