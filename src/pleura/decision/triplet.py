"""The decision rule and its exact optimum.

An image is empty unless at least `min_pixels` of it reach `top_threshold`; then the mask is all that reaches
`bottom_threshold`. Thresholds lie on a grid of 1/256, on which probabilities can be kept as one histogram per image
(257 levels x {background, mask}) without changing any decision: Dice at every bottom threshold and the area above
every top threshold follow by cumulative sums, memory does not grow with the size of the images, no threshold needs a
second pass, and what is scored is the mask that is written.
"""

from __future__ import annotations

import math
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
"""2,669 of 12,047 training radiographs show a pneumothorax: what scores of other mixtures are re-weighted to."""
SCORED_SHARE = 0.001
"""The image score is the mean of this share of an image's highest probabilities: 1,049 px of 1024 x 1024."""


@dataclass(frozen=True)
class Triplet:
    """The decision rule. Thresholds in [0, 1]; min_pixels counts pixels of a 1024 x 1024 image and scales with area.

    Thresholds are moved to the nearest k / 256, but what is between 0 and 1 stays so: a tiny threshold does not become
    none. All min_pixels of more than the whole image are the same: the rule that finds nothing.
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
        """From the JSON of a header or a report. Raises: InputError if it is no mapping of just these three numbers."""
        names = [each.name for each in fields(cls)]
        if not isinstance(document, Mapping) or set(document) != set(names):
            raise InputError(f"a triplet has just {', '.join(names)}, this is {document!r:.60}")
        return cls(**document)

    def __str__(self) -> str:
        if self.finds_nothing:
            return "finds nothing on any image"
        return f"{self.top_threshold:.3f} / {self.min_pixels} px / {self.bottom_threshold:.3f}"

    def in_words(self) -> str:
        """The rule as a sentence."""
        if self.finds_nothing:
            return "Every image is empty: the rule finds nothing."
        return (
            f"An image is empty unless {self.min_pixels or 'any'} pixels, of 1024 x 1024, reach "
            f"{self.top_threshold:.4f}; then the mask is all that reaches {self.bottom_threshold:.4f}."
        )

    @property
    def finds_nothing(self) -> bool:
        """Whether no image, however sure everywhere, can have enough pixels."""
        return self.min_pixels > REFERENCE_AREA_PX

    def decides(self, reach_top: Any, reach_bottom: Any, square_area_px: int) -> Any:
        """Whether images are positive: how many of their pixels reach each threshold, whole numbers or arrays of them.

        square_area_px: pixels of the square that an image was padded to, which min_pixels is scaled with.
        """
        # In whole numbers: a quotient would be rounded, and 1 pixel more or less is another decision.
        enough = reach_top * REFERENCE_AREA_PX >= self.min_pixels * square_area_px
        return enough & (reach_top > 0) & (reach_bottom > 0)

    def apply(self, probabilities: NDArray[np.floating[Any]], square_area_px: int) -> NDArray[np.uint8]:
        """(H, W) probabilities -> (H, W) uint8 mask in {0, 1}; not empty just where `decides` says so.

        square_area_px: pixels of the square image that the probabilities were cut from.
        """
        mask = (probabilities >= self.bottom_threshold).astype(np.uint8)
        reach_top = np.count_nonzero(probabilities >= self.top_threshold)
        if not self.decides(reach_top, np.count_nonzero(mask), square_area_px):
            return np.zeros(probabilities.shape, dtype=np.uint8)
        return mask


def _on_grid(name: str, value: object) -> float:
    if not isinstance(value, int | float | np.floating) or isinstance(value, bool) or not 0 <= value <= 1:
        raise InputError(f"{name} is a number within 0 and 1, not {value!r:.40}")
    level = round(float(value) * LEVELS)
    return min(max(level, int(value > 0)), LEVELS - int(value < 1)) / LEVELS


PUBLISHED = tuple(
    Triplet(top, area, bottom)
    for top, areas in ((0.75, (1000, 2000)), (0.6, (2000, 3000)))
    for area in areas
    for bottom in (0.3, 0.4)
)
"""The eight that the winner tried on validation."""


@dataclass(frozen=True)
class Histograms:
    """Probabilities of N images against their masks, by level.

    counts: (N, 257, 2) int64, pixels of each level that are background and mask. Level k holds k/256 <= p < (k+1)/256,
    so that p >= k/256 is exactly level >= k; the last holds p = 1.
    """

    counts: NDArray[np.int64]

    @classmethod
    def of(cls, probabilities: NDArray[np.float32], masks: NDArray[np.uint8]) -> Histograms:
        """probabilities (N, H, W) float32 in [0, 1] and masks (N, H, W) in {0, 1}."""
        counts = np.zeros((len(probabilities), LEVELS + 1, 2), dtype=np.int64)
        for image, mask, into in zip(probabilities, masks, counts, strict=True):  # one at a time stays in the cache
            levels = (image * np.float32(LEVELS)).astype(np.uint16)
            into[:] = np.bincount((2 * levels + mask).reshape(-1), minlength=into.size).reshape(into.shape)
        return cls(counts)

    @classmethod
    def join(cls, parts: Sequence[Histograms]) -> Histograms:
        """All images of several histograms, in order."""
        return cls(np.concatenate([part.counts for part in parts]))

    def __len__(self) -> int:
        return len(self.counts)

    def take(self, rows: NDArray[np.int64]) -> Histograms:
        """Only some images."""
        return Histograms(self.counts[rows])

    @property
    def positive(self) -> NDArray[np.bool_]:
        """(N,) whether the true mask has any pixel."""
        return np.asarray(self.counts[:, :, 1].sum(axis=1) > 0)

    @property
    def area_px(self) -> int:
        """Pixels of one image."""
        return int(self.counts[0].sum())

    def areas(self) -> NDArray[np.int64]:
        """(N, 257) pixels at or above each threshold k / 256."""
        return np.asarray(self.counts.sum(axis=2)[:, ::-1].cumsum(axis=1)[:, ::-1])

    def dice(self) -> NDArray[np.float64]:
        """(N, 257) SIIM Dice of the mask at or above each threshold k / 256; 1 where both masks are empty."""
        inside = self.counts[:, :, 1][:, ::-1].cumsum(axis=1)[:, ::-1]
        sizes = self.areas() + inside[:, :1]
        return np.where(sizes == 0, 1.0, 2.0 * inside / np.maximum(sizes, 1))

    def decided(self, triplet: Triplet) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """(N,) whether the rule finds a pneumothorax, and (N,) the SIIM Dice of its masks: those of `Triplet.apply`."""
        areas, (top, bottom) = (
            self.areas(),
            (round(t * LEVELS) for t in (triplet.top_threshold, triplet.bottom_threshold)),
        )
        found = triplet.decides(areas[:, top], areas[:, bottom], self.area_px)
        return found, np.where(found, self.dice()[:, bottom], np.where(self.positive, 0.0, 1.0))

    def both_areas(self, triplet: Triplet) -> NDArray[np.float64]:
        """(N,) the area in px of the true mask and of the one that the rule gives, added."""
        found = self.areas()[:, round(triplet.bottom_threshold * LEVELS)] * self.decided(triplet)[0]
        return np.asarray(self.counts[:, :, 1].sum(axis=1) + found, dtype=np.float64)


@dataclass(frozen=True)
class Gains:
    """What a search adds up: how a score changes when the rule finds something on an image, image by image."""

    base: float
    """The score where nothing is found on any image."""
    gains: NDArray[np.float64]
    """(N, 256 or more) by the bottom threshold, or (N, 1) where the score does not depend on it."""
    alarms: NDArray[np.float64] | None = None
    """(N,) what finding something on an image counts towards the most that is allowed."""
    most: float = math.inf
    second: NDArray[np.float64] | None = None
    """(N, 256 or more) gains that decide between rules of equal score; needed where `gains` has one column."""


@dataclass(frozen=True)
class Found:
    """The optimum of a search."""

    triplet: Triplet
    score: float


NOTHING = Triplet(1.0, REFERENCE_AREA_PX + 1, 1.0)
"""The rule that finds nothing, not even on an image that is sure everywhere."""


def search(histograms: Histograms, weights: NDArray[np.float64] | None = None) -> Found:
    """The triplet of highest (weighted) mean SIIM Dice among all 256 x areas x 256; exact.

    weights: (N,) of the images, such as `prevalence_weights`; equal by default. bottom <= top, as the rule means it.
    Of equal scores, the one with the smallest areas kept out wins.
    """
    n = len(histograms)
    shares = np.full(n, 1.0 / n) if weights is None else weights / weights.sum()
    empty = np.where(histograms.positive, 0.0, 1.0)
    return search_gains(
        histograms, Gains(float(empty @ shares), (histograms.dice() - empty[:, None]) * shares[:, None])
    )


def search_gains(histograms: Histograms, wanted: Gains) -> Found:
    """The triplet of highest base and gains among all 256 x areas x 256, bottom <= top; exact."""
    areas, whole = histograms.areas(), histograms.area_px
    best, best_second, found = 0.0, 0.0, NOTHING
    for top in range(LEVELS):
        reached = np.flatnonzero(areas[:, top])
        order = reached[np.argsort(-areas[reached, top], kind="stable")]
        sorted_areas = areas[order, top]
        # The k images of largest area are found positive: possible where a whole min_pixels lies between their
        # areas and the next one's.
        most = sorted_areas * REFERENCE_AREA_PX // whole
        allowed = most * whole > np.append(sorted_areas[1:], 0) * REFERENCE_AREA_PX
        if wanted.alarms is not None:
            allowed &= wanted.alarms[order].cumsum() <= wanted.most
        rows = np.flatnonzero(allowed)
        if not len(rows):
            continue
        totals = np.take(wanted.gains[:, : top + 1], order[: rows[-1] + 1], axis=0).cumsum(axis=0)[rows]
        row, bottom = map(int, np.unravel_index(int(totals.argmax()), totals.shape))
        score, second = float(totals[row, bottom]), 0.0
        if wanted.second is not None and score >= best - 1e-12:
            equal = np.flatnonzero(totals[:, 0] >= score - 1e-12)
            seconds = np.take(wanted.second[:, : top + 1], order[: rows[-1] + 1], axis=0).cumsum(axis=0)[rows[equal]]
            at, bottom = map(int, np.unravel_index(int(seconds.argmax()), seconds.shape))
            row, second = int(equal[at]), float(seconds[at, bottom])
        if score > best + 1e-12 or (score >= best - 1e-12 and second > best_second + 1e-12):
            largest = int(rows[row])
            below = int(sorted_areas[largest + 1]) if largest + 1 < len(order) else 0
            needed = _between(below, int(sorted_areas[largest]), whole)
            best, best_second = score, second
            found = Triplet(top / LEVELS, needed, bottom / LEVELS)
    return Found(found, wanted.base + best)


def _between(below: int, area: int, whole: int) -> int:
    """min_pixels at 1024 x 1024 that lets `area` in and keeps `below` out: half-way, where whole numbers allow."""
    half_way = -((below + area) * REFERENCE_AREA_PX // (-2 * whole))
    return min(half_way, area * REFERENCE_AREA_PX // whole)


def prevalence_weights(positive: NDArray[np.bool_], prevalence: float) -> NDArray[np.float64]:
    """(N,) weights, of sum 1, under which positives make up `prevalence`; equal ones if a class is missing."""
    share = positive.mean()
    if share in (0, 1):
        return np.full(len(positive), 1 / len(positive))
    return np.asarray(np.where(positive, prevalence / share, (1 - prevalence) / (1 - share)) / len(positive))
