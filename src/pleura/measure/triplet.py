"""The decision rule and its exact optimum.

An image is empty unless at least `min_pixels` of it reach `top_threshold`; then the mask is all that reaches
`bottom_threshold`. Probabilities are kept as one histogram per image (256 levels x {background, mask}), from which
Dice at every bottom threshold and the area above every top threshold follow by cumulative sums: memory does not grow
with the size of the images, and no threshold needs a second pass.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEVELS = 256
REFERENCE_AREA_PX = 1024 * 1024
SCORED_SHARE = 0.001
"""The image score is the mean of this share of an image's highest probabilities: 1,049 px of 1024 x 1024."""


@dataclass(frozen=True)
class Triplet:
    """The decision rule. Thresholds in [0, 1]; min_pixels counts pixels of a 1024 x 1024 image and scales with area.

    Source: 1st place of SIIM-ACR 2019 (`TripletMaskBinarization`).
    """

    top_threshold: float = 0.5
    min_pixels: int = 0
    bottom_threshold: float = 0.5

    def apply(self, probabilities: NDArray[np.float32], square_area_px: int) -> NDArray[np.uint8]:
        """(H, W) probabilities -> (H, W) uint8 mask in {0, 1}.

        square_area_px: pixels of the square the image was padded to, which min_pixels is scaled with.
        """
        needed = max(self.min_pixels * square_area_px / REFERENCE_AREA_PX, 1e-9)
        if np.count_nonzero(probabilities >= self.top_threshold) < needed:
            return np.zeros(probabilities.shape, dtype=np.uint8)
        return (probabilities >= self.bottom_threshold).astype(np.uint8)


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

    counts: (N, 256, 2) int64, pixels of each level that are background and mask. Level k holds k/256 <= p < (k+1)/256,
    so that p >= k/256 is exactly level >= k.
    """

    counts: NDArray[np.int64]

    @classmethod
    def of(cls, probabilities: NDArray[np.float32], masks: NDArray[np.uint8]) -> Histograms:
        """probabilities (N, H, W) float32 in [0, 1] and masks (N, H, W) in {0, 1}."""
        counts = np.zeros((len(probabilities), LEVELS, 2), dtype=np.int64)
        for image, mask, into in zip(probabilities, masks, counts, strict=True):  # one at a time stays in the cache
            levels = (image * np.float32(LEVELS)).astype(np.uint16)
            np.minimum(levels, LEVELS - 1, out=levels)
            into[:] = np.bincount((2 * levels + mask).reshape(-1), minlength=2 * LEVELS).reshape(LEVELS, 2)
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
        """(N, 256) pixels at or above each threshold k / 256."""
        return np.asarray(self.counts.sum(axis=2)[:, ::-1].cumsum(axis=1)[:, ::-1])

    def dice(self) -> NDArray[np.float64]:
        """(N, 256) SIIM Dice of the mask at or above each threshold k / 256; 1 where both masks are empty."""
        inside = self.counts[:, :, 1][:, ::-1].cumsum(axis=1)[:, ::-1]
        sizes = self.areas() + inside[:, :1]
        return np.where(sizes == 0, 1.0, 2.0 * inside / np.maximum(sizes, 1))

    def scores(self, share: float = SCORED_SHARE) -> NDArray[np.float64]:
        """(N,) image scores in [0, 1]: mean probability of the highest 0.1 % of pixels, to the width of a level."""
        wanted = max(1, round(self.area_px * share))
        above = np.minimum(self.areas(), wanted)
        taken = above - np.concatenate([above[:, 1:], np.zeros((len(above), 1), dtype=above.dtype)], axis=1)
        middles = (np.arange(LEVELS) + 0.5) / LEVELS
        return np.asarray(taken @ middles / wanted)

    def decided(self, triplet: Triplet) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """(N,) whether the rule finds a pneumothorax, and (N,) the SIIM Dice of its masks. Thresholds to 1/256."""
        top, bottom = (
            min(LEVELS - 1, round(value * LEVELS)) for value in (triplet.top_threshold, triplet.bottom_threshold)
        )
        needed = max(triplet.min_pixels * self.area_px / REFERENCE_AREA_PX, 1e-9)
        called = self.areas()[:, top] >= needed
        called &= self.areas()[:, bottom] > 0  # above the top but nothing above a higher bottom: an empty mask
        return called, np.where(called, self.dice()[:, bottom], np.where(self.positive, 0.0, 1.0))


@dataclass(frozen=True)
class Gains:
    """What a search adds up: how a score changes when the rule finds something on an image, image by image."""

    base: float
    """The score where nothing is found on any image."""
    gains: NDArray[np.float64]
    """(N, 256) by the bottom threshold, or (N, 1) where the score does not depend on it."""
    alarms: NDArray[np.float64] | None = None
    """(N,) what finding something on an image counts towards the most that is allowed."""
    most: float = math.inf
    second: NDArray[np.float64] | None = None
    """(N, 256) gains that decide between rules of equal score; needed where `gains` has one column."""


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
    areas, scale = histograms.areas(), REFERENCE_AREA_PX / histograms.area_px
    best, best_second, found = 0.0, 0.0, NOTHING
    for top in range(LEVELS):
        reached = np.flatnonzero(areas[:, top])
        order = reached[np.argsort(-areas[reached, top], kind="stable")]
        sorted_areas = areas[order, top]
        # The k images of largest area are called positive: possible where a whole min_pixels lies between their
        # areas and the next one's.
        allowed = np.floor(sorted_areas * scale) > np.append(sorted_areas[1:], 0) * scale
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
            needed = _between(below, int(sorted_areas[largest]), scale)
            best, best_second = score, second
            found = Triplet(top / LEVELS, needed, bottom / LEVELS)
    return Found(found, wanted.base + best)


def _between(below: int, area: int, scale: float) -> int:
    """min_pixels at 1024 x 1024 that lets `area` in and keeps `below` out: half-way, where whole numbers allow."""
    half_way = math.ceil((below + area) / 2 * scale)
    return half_way if half_way <= area * scale else math.floor(area * scale)


def prevalence_weights(positive: NDArray[np.bool_], prevalence: float) -> NDArray[np.float64]:
    """(N,) weights, of sum 1, under which positives make up `prevalence`; equal ones if a class is missing."""
    share = positive.mean()
    if share in (0, 1):
        return np.full(len(positive), 1 / len(positive))
    return np.asarray(np.where(positive, prevalence / share, (1 - prevalence) / (1 - share)) / len(positive))
