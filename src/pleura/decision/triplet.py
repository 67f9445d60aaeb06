"""The decision rule, and weights that bring a sample to another prevalence.

An image is empty unless at least `min_pixels` of it reach `top_threshold`; then the mask is all pixels that reach
`bottom_threshold`. Thresholds lie on a grid of 1/256.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pleura.errors import InputError

LEVELS = 256
"""Steps of the grid: thresholds are k / 256, k from 0 to 256."""
REFERENCE_AREA_PX = 1024 * 1024
SIIM_PREVALENCE = 0.2215
"""2,669 of 12,047 training radiographs show a pneumothorax; scores on other mixtures are re-weighted to this share."""
SCORED_SHARE = 0.001
"""The image score is the mean of this share of an image's highest probabilities: 1,049 px of 1024 x 1024."""


@dataclass(frozen=True)
class Triplet:
    """The decision rule. Thresholds in [0, 1]; min_pixels counts pixels of a 1024 x 1024 image and scales with area.

    Thresholds are moved to the nearest k / 256, except that one above 0 stays above 0, and one below 1 below 1.
    Every min_pixels above the area of the whole image is stored as one value: the rule that finds nothing.
    Source: 1st place of SIIM-ACR 2019 (`TripletMaskBinarization`).
    """

    top_threshold: float = 0.5
    min_pixels: int = 0
    bottom_threshold: float = 0.5

    def __post_init__(self) -> None:
        """Raises: InputError for a threshold outside [0, 1] or NaN, and for a min_pixels that is no whole number."""
        for name in ("top_threshold", "bottom_threshold"):
            object.__setattr__(self, name, _on_grid(name, getattr(self, name)))
        pixels = self.min_pixels
        if not isinstance(pixels, Integral) or isinstance(pixels, bool) or pixels < 0:
            raise InputError(f"min_pixels is a whole number of at least 0, not {pixels!r:.40}")
        object.__setattr__(self, "min_pixels", min(int(pixels), REFERENCE_AREA_PX + 1))

    @classmethod
    def of(cls, document: object) -> Triplet:
        """Read the JSON of a header or a report. Raises: InputError if it is no mapping of just these three numbers."""
        names = [each.name for each in fields(cls)]
        if not isinstance(document, Mapping) or set(document) != set(names):
            raise InputError(f"a triplet has just {', '.join(names)}, this is {document!r:.60}")
        return cls(**document)

    def __str__(self) -> str:
        if self.finds_nothing:
            return "finds nothing on any image"
        return f"{self.top_threshold:.3f} / {self.min_pixels} px / {self.bottom_threshold:.3f}"

    def in_words(self) -> str:
        """Return the rule as a sentence."""
        if self.finds_nothing:
            return "Every image is empty: the rule finds nothing."
        return (
            f"An image is empty unless {self.min_pixels or 'any'} pixels, of 1024 x 1024, reach "
            f"{self.top_threshold:.4f}; then the mask is all that reaches {self.bottom_threshold:.4f}."
        )

    @property
    def finds_nothing(self) -> bool:
        """Whether min_pixels exceeds the image, so that no image can be positive."""
        return self.min_pixels > REFERENCE_AREA_PX

    def decides(self, reach_top: Any, reach_bottom: Any, square_area_px: int) -> Any:
        """Return whether images are positive.

        reach_top, reach_bottom: how many of their pixels reach each threshold, whole numbers or arrays of them.
        square_area_px: pixels of the square that an image was padded to; min_pixels scales with it.
        """
        # In whole numbers: a quotient would be rounded, and 1 pixel more or less is another decision.
        enough = reach_top * REFERENCE_AREA_PX >= self.min_pixels * square_area_px
        return enough & (reach_top > 0) & (reach_bottom > 0)

    def apply(self, probabilities: NDArray[np.floating[Any]], square_area_px: int) -> NDArray[np.uint8]:
        """Return the mask (H, W), uint8 in {0, 1}, of probabilities (H, W); empty unless `decides` is true.

        square_area_px: pixels of the square image that the probabilities were cut from.
        """
        mask = (probabilities >= self.bottom_threshold).view(np.uint8)
        reach_top = np.count_nonzero(probabilities >= self.top_threshold)
        if not self.decides(reach_top, np.count_nonzero(mask), square_area_px):
            return np.zeros(probabilities.shape, dtype=np.uint8)
        return mask


def _on_grid(name: str, value: object) -> float:
    if not isinstance(value, int | float | np.floating) or isinstance(value, bool) or not 0 <= value <= 1:
        raise InputError(f"{name} is a number within 0 and 1, not {value!r:.40}")
    level = round(float(value) * LEVELS)
    return min(max(level, int(value > 0)), LEVELS - int(value < 1)) / LEVELS


NOTHING = Triplet(1.0, REFERENCE_AREA_PX + 1, 1.0)
"""The rule that finds nothing, not even on an image whose every probability is 1."""


def prevalence_weights(positive: NDArray[np.bool_], prevalence: float) -> NDArray[np.float64]:
    """Return weights (N,) of sum 1 under which positives make up `prevalence`; equal weights if a class is missing."""
    share = positive.mean()
    if share in (0, 1):
        return np.full(len(positive), 1 / len(positive))
    return np.asarray(np.where(positive, prevalence / share, (1 - prevalence) / (1 - share)) / len(positive))


def image_score(probabilities: NDArray[np.float32]) -> float:
    """Return the mean of the highest 0.1 % of an image's probabilities, (H, W) in [0, 1] -> [0, 1]."""
    wanted = max(1, round(probabilities.size * SCORED_SHARE))
    return float(np.partition(probabilities.reshape(-1), -wanted)[-wanted:].mean())


def mean_triplet(triplets: Sequence[Triplet], weights: NDArray[np.float64]) -> Triplet:
    """Return the triplet of a mean of models, until one is tuned for it: the mean of theirs by the same weights.

    A triplet that finds nothing does not count, unless all of them find nothing.
    """
    finds = np.array([not triplet.finds_nothing for triplet in triplets])
    rules = np.array([(triplet.top_threshold, triplet.min_pixels, triplet.bottom_threshold) for triplet in triplets])
    top, pixels, bottom = np.average(rules, axis=0, weights=weights * finds if finds.any() else weights)
    return Triplet(float(top), round(float(pixels)), float(bottom))
