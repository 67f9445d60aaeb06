"""The exact optimum of the decision rule, from one histogram of levels per image.

Thresholds lie on a grid of 1/256, so that counts of 257 levels x {background, mask} replace the probabilities without
changing any decision. Dice at every bottom threshold and the area above every top threshold follow by cumulative sums:
memory does not grow with the size of the images, no threshold needs a second pass over pixels, and the scored mask is
the one that is written.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pleura.decision.triplet import LEVELS, NOTHING, REFERENCE_AREA_PX, Triplet


@dataclass(frozen=True)
class Histograms:
    """Probabilities of N images against their masks, by level.

    counts: (N, 257, 2) int64, pixels of each level that are background and mask. Level k holds k/256 <= p < (k+1)/256,
    so that p >= k/256 is exactly level >= k; the last holds p = 1.
    """

    counts: NDArray[np.int64]

    @classmethod
    def of(cls, probabilities: NDArray[np.float32], masks: NDArray[np.uint8]) -> Histograms:
        """Count probabilities (N, H, W), float32 in [0, 1], by their masks (N, H, W) in {0, 1}."""
        counts = np.zeros((len(probabilities), LEVELS + 1, 2), dtype=np.int64)
        for image, mask, into in zip(probabilities, masks, counts, strict=True):  # one at a time stays in the cache
            levels = (image * np.float32(LEVELS)).astype(np.uint16)
            into[:] = np.bincount((2 * levels + mask).reshape(-1), minlength=into.size).reshape(into.shape)
        return cls(counts)

    @classmethod
    def join(cls, parts: Sequence[Histograms]) -> Histograms:
        """Return all images of several histograms, in order."""
        return cls(np.concatenate([part.counts for part in parts]))

    def __len__(self) -> int:
        return len(self.counts)

    def take(self, rows: NDArray[np.int64]) -> Histograms:
        """Return some of the images, by row."""
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
        """Return (N, 257) pixels at or above each threshold k / 256."""
        return np.asarray(self.counts.sum(axis=2)[:, ::-1].cumsum(axis=1)[:, ::-1])

    def dice(self) -> NDArray[np.float64]:
        """Return (N, 257) SIIM Dice of the mask at or above each threshold k / 256; 1 where both masks are empty."""
        inside = self.counts[:, :, 1][:, ::-1].cumsum(axis=1)[:, ::-1]
        sizes = self.areas() + inside[:, :1]
        return np.where(sizes == 0, 1.0, 2.0 * inside / np.maximum(sizes, 1))

    def decided(self, triplet: Triplet) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """Return (N,) whether the rule finds a pneumothorax, and (N,) the SIIM Dice of the masks of `Triplet.apply`."""
        areas, (top, bottom) = (
            self.areas(),
            (round(t * LEVELS) for t in (triplet.top_threshold, triplet.bottom_threshold)),
        )
        found = triplet.decides(areas[:, top], areas[:, bottom], self.area_px)
        return found, np.where(found, self.dice()[:, bottom], np.where(self.positive, 0.0, 1.0))

    def both_areas(self, triplet: Triplet) -> NDArray[np.float64]:
        """Return (N,) the area of the true mask plus that of the predicted one, in px."""
        found = self.areas()[:, round(triplet.bottom_threshold * LEVELS)] * self.decided(triplet)[0]
        return np.asarray(self.counts[:, :, 1].sum(axis=1) + found, dtype=np.float64)


@dataclass(frozen=True)
class Gains:
    """By how much a score changes, image by image, when the rule finds something; a search maximises the sum."""

    base: float
    """The score where nothing is found on any image."""
    gains: NDArray[np.float64]
    """(N, 256 or more) by the bottom threshold, or (N, 1) where the score does not depend on it."""
    alarms: NDArray[np.float64] | None = None
    """(N,) the cost of finding something on each image; the search keeps the sum at or below `most`."""
    most: float = math.inf
    second: NDArray[np.float64] | None = None
    """(N, 256 or more) gains that decide between rules of equal score; needed where `gains` has one column."""


@dataclass(frozen=True)
class Optimum:
    """The optimum of a search."""

    triplet: Triplet
    score: float


def search(histograms: Histograms, weights: NDArray[np.float64] | None = None) -> Optimum:
    """Return the triplet of highest (weighted) mean SIIM Dice among all 256 x areas x 256, bottom <= top; exact.

    weights: (N,) of the images, such as `prevalence_weights`; equal by default.
    """
    n = len(histograms)
    shares = np.full(n, 1.0 / n) if weights is None else weights / weights.sum()
    base = float(np.where(histograms.positive, 0.0, 1.0) @ shares)
    return search_gains(histograms, Gains(base, dice_gains(histograms, shares)))


def dice_gains(histograms: Histograms, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (N, 257) by how much the weighted SIIM Dice changes with a mask at or above each threshold k / 256."""
    empty = np.where(histograms.positive, 0.0, 1.0)
    return np.asarray((histograms.dice() - empty[:, None]) * weights[:, None])


def search_gains(histograms: Histograms, wanted: Gains) -> Optimum:
    """Return the triplet of highest base and gains among all 256 x areas x 256, bottom <= top; exact."""
    areas, whole = histograms.areas(), histograms.area_px
    best, best_second, found = 0.0, 0.0, NOTHING
    for top in range(LEVELS):
        reached = np.flatnonzero(areas[:, top])
        order = reached[np.argsort(-areas[reached, top], kind="stable")]
        sorted_areas = areas[order, top]
        # The k images of largest area are predicted positive. A whole min_pixels has to lie between their areas and
        # the next one's.
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
    return Optimum(found, wanted.base + best)


def _between(below: int, area: int, whole: int) -> int:
    """Return min_pixels at 1024 x 1024 that `area` reaches and `below` does not: half-way if it can."""
    half_way = -((below + area) * REFERENCE_AREA_PX // (-2 * whole))
    return min(half_way, area * REFERENCE_AREA_PX // whole)
