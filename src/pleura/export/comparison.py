"""An export beside its checkpoint on the same images: probabilities, masks, decisions, scores, and seconds.

PyTorch in float32 is what the export is held against; the export runs on the engine that serves it. Where they differ
by more than rounding mostly does, PyTorch in float64 says how much of that is float32 itself: a net with a layer that
cancels (`models/cancelling.py`) has few digits left, in any program.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from pleura.decision.triplet import Triplet
from pleura.evaluation.metrics.siim import CaseResults, siim_dice
from pleura.evaluation.scoring import CaseScores, on_grid, score_batch
from pleura.export.sample import Sample, digest_of
from pleura.inference.engines.engine import Engine
from pleura.progress import track

DIFFERENCE = 1e-4
"""By how much a probability of a float32 export may differ."""
TIMES_ROUNDING, MOST_DIFFERENCE = 4, 1e-3
"""Where PyTorch's own rounding on an image is larger than a part of DIFFERENCE: so many times that, and never more."""
BATCH_SIZES = (3, 8)
"""Besides 1, at which all images are run."""
IN_BATCHES = 16
"""How many images are run at those sizes too."""
CHUNK = 8
"""Images in memory at a time."""
TRUTH_METRICS = ("siim_dice", "dice_on_positives", "auroc")
Run: TypeAlias = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Squares (n, S, S) -> probabilities (n, h, h) in [0, 1]."""


@dataclass(frozen=True)
class Pair:
    """A number of the checkpoint's, and of its export's; NaN where the cases have none."""

    torch: float
    export: float

    @property
    def change(self) -> float:
        """By how much the export's is off."""
        return abs(self.export - self.torch)


@dataclass(frozen=True)
class Difference:
    """The largest of any pixel's probability on one image."""

    value: float
    """NaN where a probability is not finite."""
    batch_size: int
    rounding: float | None = None
    """PyTorch's own on that image, float32 against float64; None where nobody had to ask."""

    @property
    def allowed(self) -> float:
        """What a float32 export may differ by on that image."""
        return min(max(DIFFERENCE, TIMES_ROUNDING * (self.rounding or 0.0)), MOST_DIFFERENCE)

    @property
    def excess(self) -> float:
        """How many times what is allowed it is; infinite where it is no number."""
        return self.value / self.allowed if np.isfinite(self.value) else float("inf")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What was found on some images."""

    images: int
    images_sha256: str
    """Over their pixels, as prepared."""
    probability: dict[int, float]
    """Images at a time -> the largest difference of a pixel's probability; NaN if one is not finite."""
    worst: Difference
    """Of all images and sizes of a batch, by `Difference.excess`."""
    least: float
    """Of the export's probabilities."""
    most: float
    """As `least`."""
    mask_dice: NDArray[np.float64]
    """(N,) SIIM Dice between the two masks of each image."""
    found: Pair
    """On how many images a pneumothorax is found."""
    decisions_changed: int
    truth: dict[str, Pair] | None
    """By the names of TRUTH_METRICS; None where no truth is known."""
    seconds: Pair
    """Of one image, the median."""

    @property
    def dice_change(self) -> float:
        """The larger change of the mean SIIM Dice and of Dice on positives; without truth, 1 - mean of `mask_dice`."""
        if self.truth is None:
            return float(1 - self.mask_dice.mean())
        changes = [self.truth[name].change for name in ("siim_dice", "dice_on_positives")]
        return max((change for change in changes if change == change), default=float("nan"))


@dataclass(frozen=True)
class Sides:
    """What is compared."""

    checkpoint: Engine
    """PyTorch in float32."""
    exact: Run
    """PyTorch in float64."""
    export: Engine
    together: Run | None
    """Passes several images through the export's graph at once, as other programs than pleura may; None where none
    can."""


def compare(sides: Sides, triplet: Triplet, sample: Sample) -> Comparison:
    """Run both over a sample, in turn, an image at a time, and the export with several images in one pass too.

    triplet: the decision rule of both.
    Raises: InputError for a radiograph that cannot be read; CheckpointError if the export's graph fails.
    """
    notes = _Notes(sides, triplet, sample.has_truth)
    for squares, masks in track(sample.chunks(CHUNK), "certificate", total=-(-sample.count // CHUNK)):
        notes.add(squares, masks)
    return notes.comparison()


@dataclass
class _Half:
    """What one of the two says of the images so far."""

    engine: Engine
    triplet: Triplet
    seconds: list[float] = field(default_factory=list)
    scores: list[CaseScores] = field(default_factory=list)

    def timed(self, square: NDArray[np.uint8]) -> NDArray[np.float32]:
        began = time.perf_counter()
        found = self.engine.probabilities(square[None])
        self.seconds.append(time.perf_counter() - began)
        return found

    def masks(self, squares: NDArray[np.float32], truth: NDArray[np.uint8] | None, side_px: int) -> NDArray[np.uint8]:
        if truth is not None:
            self.scores.append(score_batch(squares, truth))
        return np.stack([self.triplet.apply(each, side_px**2) for each in on_grid(squares, side_px)])

    def results(self) -> CaseResults:
        return CaseScores.join(self.scores).by(self.triplet)


class _Notes:
    """What is kept of the images so far, no pixel among it."""

    def __init__(self, sides: Sides, triplet: Triplet, has_truth: bool) -> None:
        self.sides, self.has_truth, self.images, self.sha256 = sides, has_truth, 0, ""
        self.halves = _Half(sides.checkpoint, triplet), _Half(sides.export, triplet)
        self.differences: list[Difference] = []
        self.within: list[float] = []
        self.dice: list[NDArray[np.float64]] = []
        self.positive: list[NDArray[np.bool_]] = []

    def add(self, squares: NDArray[np.uint8], truth: NDArray[np.uint8]) -> None:
        """Measure the next images (n, S, S) and their true masks."""
        ours, theirs = self.halves
        if not self.images:  # kernels are made, and memory is mapped, in the first pass
            for half in self.halves:
                half.engine.probabilities(squares[:1])
        pairs = [(ours.timed(square), theirs.timed(square)) for square in squares]
        exact, exported = (np.concatenate(each) for each in zip(*pairs, strict=True))
        found = {1: exported}
        together = self.sides.together
        if self.images < IN_BATCHES and together is not None:
            found |= {size: _in_batches(together, squares, size) for size in BATCH_SIZES}
        for size, each in found.items():
            self.differences += self._differences(squares, exact, each, size)
        self.within += [float(exported.min()), float(exported.max())]
        known, side_px = truth if self.has_truth else None, squares.shape[-1]
        masks = [
            half.masks(_usable(each), known, side_px) for half, each in zip(self.halves, (exact, exported), strict=True)
        ]
        self.dice.append(siim_dice(*masks))
        self.positive.append(np.stack([each.any(axis=(1, 2)) for each in masks]))
        self.sha256, self.images = digest_of(squares, self.sha256), self.images + len(squares)

    def _differences(
        self, squares: NDArray[np.uint8], exact: NDArray[np.float32], found: NDArray[np.float32], size: int
    ) -> list[Difference]:
        with np.errstate(invalid="ignore"):
            each = [float(np.abs(one - other).max()) for one, other in zip(exact, found, strict=True)]
        return [
            Difference(value, size, self._rounding(squares[row], exact[row]))
            if DIFFERENCE < value <= MOST_DIFFERENCE
            else Difference(value, size)
            for row, value in enumerate(each)
        ]

    def _rounding(self, square: NDArray[np.uint8], found: NDArray[np.float32]) -> float:
        return float(np.abs(self.sides.exact(square[None])[0] - found).max())

    def comparison(self) -> Comparison:
        """Return all of it."""
        ours, theirs = self.halves
        positive = np.concatenate(self.positive, axis=1)
        sizes = dict.fromkeys(one.batch_size for one in self.differences)
        by_size = {size: [one.value for one in self.differences if one.batch_size == size] for size in sizes}
        truth = None
        if self.has_truth:
            before, after = ours.results().summary(), theirs.results().summary()
            truth = {name: Pair(before[name], after[name]) for name in TRUTH_METRICS}
        return Comparison(
            images=self.images,
            images_sha256=self.sha256,
            probability={size: float(np.max(values)) for size, values in by_size.items()},  # NaN stays
            worst=max(self.differences, key=lambda one: one.excess),
            least=min(self.within),
            most=max(self.within),
            mask_dice=np.concatenate(self.dice),
            found=Pair(*map(int, positive.sum(axis=1))),
            decisions_changed=int((positive[0] != positive[1]).sum()),
            truth=truth,
            seconds=Pair(float(np.median(ours.seconds)), float(np.median(theirs.seconds))),
        )


def _in_batches(run: Run, squares: NDArray[np.uint8], size: int) -> NDArray[np.float32]:
    return np.concatenate([run(squares[first : first + size]) for first in range(0, len(squares), size)])


def _usable(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities of a damaged graph as numbers in [0, 1], so that the rest of it can still be measured."""
    return np.clip(np.nan_to_num(probabilities, nan=0.0, posinf=1.0, neginf=0.0), 0, 1)
