"""The one pass over the pixels of cases: what any decision rule needs of them, lesions and outlines.

A lesion is a connected component of the true mask (diagonal neighbours count), a candidate one of the pixels at or
above a threshold. A lesion is found by candidates that cover a tenth of it; a candidate that touches none is a false
alarm; one that touches a lesion without covering a tenth is neither.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pleura.data.dataset import Dataset
from pleura.data.geometry import SquareGeometry
from pleura.data.problems import Finding
from pleura.decision.calibration import LOGIT_LEVELS, pixel_counts
from pleura.decision.laterality import side_of
from pleura.decision.search import Histograms
from pleura.decision.triplet import REFERENCE_AREA_PX, Triplet, image_score
from pleura.errors import InputError
from pleura.evaluation.checks import OrientationCheck
from pleura.evaluation.metrics.components import components
from pleura.evaluation.metrics.operating import Candidates
from pleura.evaluation.metrics.siim import CaseResults
from pleura.evaluation.metrics.surface import SurfaceDistances
from pleura.progress import track

if TYPE_CHECKING:  # `pleura score` has masks and no net: it starts without torch
    from pleura.inference.predictor import Predictor

COVERED_SHARE = 0.1
BATCH_SIZE = 8
"""Cases that pass a net together: some engines' last bits depend on it."""
LEAST_AREA_PX = 100
"""Candidates below this many pixels of 1024 x 1024 are dropped: a dust of them has no meaning, and takes memory."""
REFERENCE_SIDE_PX = round(REFERENCE_AREA_PX**0.5)
TOLERANCE_PX, TOLERANCE_MM = 8.0, 3.0
"""Of the surface Dice: 8 px of 1024 are 3 mm of a chest 38 cm wide."""


@dataclass(frozen=True)
class CaseNumbers:
    """Of one case; NaN where there is no number."""

    candidates: Candidates
    area_share: float
    """Of the true mask in the square image, in [0, 1]."""
    hd95: float
    """Of positives, in the unit of the spacing; NaN where nothing is found, and for negatives."""
    surface_dice: float
    """Of positives, 0 where nothing is found; NaN for negatives."""
    side: str | None = None
    """Of the true mask, see `side_of`."""


def case_numbers(
    probabilities: NDArray[np.float32] | None,
    mask: NDArray[np.uint8],
    predicted_mask: NDArray[np.uint8],
    threshold: float,
    spacing: tuple[float, float],
    tolerance: float,
) -> CaseNumbers:
    """Measure lesions and outlines of one case.

    probabilities: (H, W) in [0, 1], or None where only masks are known; masks: (H, W) in {0, 1}.
    threshold: of the candidates. spacing: size of a pixel along rows' and columns' axis; tolerance in its unit.
    """
    found = candidates(probabilities, mask, threshold) if probabilities is not None else Candidates((), ())
    share = float(mask.mean())
    if not mask.any():
        return CaseNumbers(found, share, float("nan"), float("nan"))
    surface = SurfaceDistances.of(mask, predicted_mask, spacing)
    return CaseNumbers(found, share, surface.hd95(), surface.dice(tolerance), side_of(mask))


def candidates(probabilities: NDArray[np.float32], mask: NDArray[np.uint8], threshold: float) -> Candidates:
    """Find the connected components of (H, W) probabilities at or above `threshold`, against those of the mask (H, W).

    A component's confidence is its highest probability.
    """
    marks, count = components(probabilities >= threshold)
    lesions, n_lesions = components(mask != 0)
    sizes = np.bincount(marks.reshape(-1), minlength=count + 1)
    numbers = np.arange(1, count + 1)
    highest = np.zeros(count + 1)
    np.maximum.at(highest, marks[marks > 0], probabilities[marks > 0])
    common = np.bincount(lesions.reshape(-1) * (count + 1) + marks.reshape(-1), minlength=(n_lesions + 1) * (count + 1))
    shared = common.reshape(n_lesions + 1, count + 1)
    lesion_sizes = shared.sum(axis=1)
    found_at = []
    for lesion in range(1, n_lesions + 1):
        covering = np.flatnonzero(shared[lesion, 1:]) + 1
        order = covering[np.argsort(-highest[covering], kind="stable")]
        enough = np.cumsum(shared[lesion, order]) >= COVERED_SHARE * lesion_sizes[lesion]
        found_at.append(float(highest[order[int(enough.argmax())]]) if enough.any() else 0.0)
    least = LEAST_AREA_PX * mask.size / REFERENCE_AREA_PX
    false = numbers[(shared[1:, 1:].sum(axis=0) == 0) & (sizes[1:] >= least)] if count else numbers
    return Candidates(tuple(found_at), tuple(highest[false].tolist()))


class PixelMeasures:
    """Lesions, outlines and pixel counts, measured batch by batch in the order of the cases; no pixel is kept."""

    def __init__(self, triplet: Triplet, size_px: int, spacings_mm: Sequence[tuple[float, float] | None]) -> None:
        """size_px: of the square images. spacings_mm: of a pixel of each; unless all are known, distances are in px."""
        self.triplet, self.size_px = triplet, size_px
        known = [spacing for spacing in spacings_mm if spacing is not None]
        to_reference = REFERENCE_SIDE_PX / size_px
        in_mm = bool(spacings_mm) and len(known) == len(spacings_mm)
        self.unit, self.tolerance = ("mm", TOLERANCE_MM) if in_mm else ("px", TOLERANCE_PX)
        self._spacings = known if in_mm else [(to_reference, to_reference)] * len(spacings_mm)
        # A rule that finds nothing still has candidates: the FROC is about every confidence.
        self._threshold = min(triplet.bottom_threshold, 0.5)
        self._orientation = OrientationCheck()
        self.cases: list[CaseNumbers] = []
        self.pixel_counts: NDArray[np.int64] = np.zeros((LOGIT_LEVELS, 2), dtype=np.int64)

    def add(self, probabilities: NDArray[np.float32], masks: NDArray[np.uint8]) -> None:
        """Measure the next n cases: probabilities (n, size_px, size_px) in [0, 1] and masks in {0, 1}."""
        predicted = np.stack([self.triplet.apply(each, self.size_px**2) for each in probabilities])
        # Not in place: what comes from another process may be read-only.
        self.pixel_counts = self.pixel_counts + pixel_counts(probabilities, masks).sum(axis=0)
        self._orientation.add(masks, predicted)
        for each in zip(probabilities, masks, predicted, strict=True):
            spacing = self._spacings[len(self.cases)]
            self.cases.append(case_numbers(*each, self._threshold, spacing, self.tolerance))

    def of_rows(self, start: int, stop: int) -> PixelMeasures:
        """Return an empty one for the cases start to stop, to be measured by another process; see `extend`."""
        part = PixelMeasures(self.triplet, self.size_px, ())
        part.unit, part.tolerance, part._spacings = self.unit, self.tolerance, self._spacings[start:stop]
        return part

    def extend(self, part: PixelMeasures) -> None:
        """Add what was measured of the next cases."""
        self.cases += part.cases
        self.pixel_counts = self.pixel_counts + part.pixel_counts
        self._orientation.extend(part._orientation)

    def turned(self) -> Finding | None:
        """Return a finding if the predicted masks fit better when flipped or turned."""
        return self._orientation.finding()


@dataclass(frozen=True)
class CaseScores:
    """What a pass over the pixels of N cases keeps for any decision rule: 4 KB a case, whatever its size."""

    histograms: Histograms
    scores: NDArray[np.float64]
    """(N,) image scores in [0, 1]."""

    @classmethod
    def join(cls, parts: Sequence[CaseScores]) -> CaseScores:
        """Return the cases of all parts, in their order."""
        return cls(
            Histograms.join([part.histograms for part in parts]), np.concatenate([part.scores for part in parts])
        )

    def by(self, triplet: Triplet) -> CaseResults:
        """Return the results of each case by a decision rule."""
        predicted_positive, dice = self.histograms.decided(triplet)
        return CaseResults(self.histograms.positive, predicted_positive, dice, self.scores)


OnBatch: TypeAlias = Callable[[NDArray[np.float32], NDArray[np.uint8]], None]
"""A function of each batch on the grid of its masks: probabilities in [0, 1] and masks in {0, 1}, both (n, H, H)."""


def score_batch(squares: NDArray[np.float32], masks: NDArray[np.uint8], on_batch: OnBatch | None = None) -> CaseScores:
    """Score some cases: every score of a net comes from here.

    squares: (n, h, h) probabilities of square images; they are enlarged to the size of the masks (n, H, H), so that
    no small finding is lost and scores of nets of any size have the same ground truth.
    """
    full = on_grid(squares, masks.shape[-1])
    if on_batch is not None:
        on_batch(full, masks)
    return CaseScores(Histograms.of(full, masks), np.array([image_score(square) for square in squares]))


def on_grid(squares: NDArray[np.float32], size_px: int) -> NDArray[np.float32]:
    """Return probabilities (n, h, h) of square images as (n, size_px, size_px)."""
    geometry = SquareGeometry(size_px, size_px, squares.shape[-1])
    return np.stack([geometry.probabilities_to_original(square) for square in squares])


def refuse_other_size(dataset: Dataset, prepared_px: int) -> None:
    """Raises: InputError for a dataset that was prepared at another size than the model's."""
    if dataset.size_px != prepared_px:
        raise InputError(
            f"{dataset.folder}: was prepared at {dataset.size_px} px, the model at {prepared_px} px; "
            f"on another grid its scores compare with no others: prepare it with --size {prepared_px}"
        )


def measure_cases(
    predictor: Predictor,
    dataset: Dataset,
    indices: NDArray[np.int64],
    batch_size: int = BATCH_SIZE,
    on_batch: OnBatch | None = None,
) -> CaseScores:
    """Score a model on some cases of a dataset, in one pass.

    Raises: CheckpointError if the probabilities are not finite, InputError for a damaged mask, or a dataset that was
    prepared at another size than the model's.
    """
    refuse_other_size(dataset, predictor.prepared_px)
    groups = [indices[start : start + batch_size] for start in range(0, len(indices), batch_size)]
    each = (measure_group(predictor.probabilities, dataset, group, on_batch) for group in track(groups, "evaluate"))
    return CaseScores.join(list(each))


def measure_group(
    probabilities: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
    dataset: Dataset,
    group: NDArray[np.int64],
    on_batch: OnBatch | None = None,
) -> CaseScores:
    """Score a model on cases that pass it together. probabilities: as `Predictor.probabilities`.

    Raises: CheckpointError if they are not finite, InputError for a damaged mask.
    """
    squares = probabilities(np.stack([dataset.images[index] for index in group]))
    return score_batch(squares, dataset.masks(group), on_batch)


def patient_numbers(dataset: Dataset, indices: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return a number for the patient of each case; one whose patient is not known counts as a patient."""
    names = [dataset.cases[index].patient or dataset.cases[index].image_id for index in indices]
    return np.asarray(np.unique(names, return_inverse=True)[1], dtype=np.int64)
