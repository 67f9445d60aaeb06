"""The parts of a report beside its metrics, computed from what was kept of each case."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pleura.decision.calibration import IMAGE_BINS, Calibration, Reliability, brier, ece, pixel_cases, reliability
from pleura.evaluation.metrics.bootstrap import wilson
from pleura.evaluation.metrics.operating import Curve, at_prevalences, froc, group_means, pr, proportions, roc
from pleura.evaluation.metrics.siim import CaseResults
from pleura.evaluation.metrics.subgroups import Facts
from pleura.evaluation.report.document import (
    AtPrevalence,
    Bin,
    CalibrationParts,
    CurvePoints,
    Curves,
    Decisions,
    Prevalence,
    Quality,
    Surface,
)
from pleura.evaluation.scoring import CaseNumbers

PREVALENCES = (0.02, 0.05, 0.2215)
SLIDER = tuple(0.005 * 100 ** (step / 40) for step in range(41))
"""Shares of positives between which the page's slider interpolates: 0.5 to 50 %, even steps of the logarithm."""


@dataclass(frozen=True)
class Measured:
    """What one pass over N cases leaves: decisions, numbers of each case, who they are."""

    results: CaseResults
    cases: Sequence[CaseNumbers]
    facts: Facts
    patients: NDArray[np.int64]
    unit: str = "px"
    """Of the distances."""
    tolerance: float = 0.0
    """Of the surface Dice, in the unit."""


def decisions_of(results: CaseResults) -> Decisions:
    """Count decisions, and compute their shares with Wilson's intervals."""
    positive, predicted_positive = results.positive, results.predicted_positive
    return Decisions(
        true_positives=int((predicted_positive & positive).sum()),
        false_positives=int((predicted_positive & ~positive).sum()),
        true_negatives=int((~predicted_positive & ~positive).sum()),
        false_negatives=int((~predicted_positive & positive).sum()),
        **proportions(positive, predicted_positive),
    )


def surface_of(measured: Measured, resamples: int) -> Surface:
    """Compute the means of HD95 and surface Dice on the positives, with intervals by resampling patients.

    HD95 has no number where nothing is found: those cases are counted; the surface Dice is 0 there.
    """
    rows = {"all": measured.results.positive}
    distances = np.array([case.hd95 for case in measured.cases], dtype=np.float64)
    dice = np.array([case.surface_dice for case in measured.cases], dtype=np.float64)
    known = rows["all"] & np.isfinite(distances)
    return Surface(
        unit=measured.unit,
        tolerance=measured.tolerance,
        hd95=group_means(rows, distances, measured.patients, resamples)["all"],
        hd95_median=float(np.median(distances[known])) if known.any() else float("nan"),
        hd95_cases=int(known.sum()),
        hd95_left_out=int((rows["all"] & ~known).sum()),
        surface_dice=group_means(rows, dice, measured.patients, resamples)["all"],
    )


def prevalence_of(results: CaseResults, patients: NDArray[np.int64]) -> Prevalence:
    """Compute what the same decisions are worth at PREVALENCES, and for the slider; patients: (N,)."""
    positive, dice = results.positive, results.dice
    elsewhere = at_prevalences(positive, results.predicted_positive, dice, patients, [*PREVALENCES, *SLIDER])
    return Prevalence(
        dice_on_positives=float(dice[positive].mean()) if positive.any() else float("nan"),
        rows=tuple(
            AtPrevalence(prevalence=share, floor=1 - share, **there)
            for share, there in zip(PREVALENCES, elsewhere, strict=False)
        ),
        slider=tuple(
            tuple(round(end, 4) for key in ("ppv", "npv", "siim_dice") for end in (there[key].low, there[key].high))
            for there in elsewhere[len(PREVALENCES) :]
        ),
    )


def curves_of(measured: Measured, resamples: int) -> Curves:
    """Compute ROC, precision and recall, and FROC, with bands by resampling patients."""
    positive, scores, patients = measured.results.positive, measured.results.scores, measured.patients
    return Curves(
        roc=_points(roc(positive, scores, patients, resamples)),
        pr=_points(pr(positive, scores, patients, resamples)),
        froc=_points(froc([case.candidates for case in measured.cases], patients, resamples)),
        lesions=sum(len(case.candidates.found_at) for case in measured.cases),
    )


def _points(curve: Curve) -> CurvePoints:
    return CurvePoints(area=curve.interval, **{name: tuple(values) for name, values in curve.thinned().items()})


def calibration_of(
    results: CaseResults, pixel_counts: NDArray[np.int64] | None = None, calibration: Calibration | None = None
) -> CalibrationParts:
    """Compute ECE, Brier score and bins of images and pixels, before the checkpoint's calibration and after it.

    pixel_counts: (128, 2) of `decision.calibration.pixel_counts`, summed over the images.
    """
    positive, scores, after = results.positive, results.scores, calibration
    degree = after.temperature if after else 1.0
    return CalibrationParts(
        image=_of_images(positive, scores),
        image_calibrated=_of_images(positive, after.images(scores)) if after else None,
        pixels=None if pixel_counts is None else _of_pixels(pixel_counts, 1.0),
        pixels_calibrated=None if pixel_counts is None or degree == 1.0 else _of_pixels(pixel_counts, degree),
    )


def _of_images(positive: NDArray[np.bool_], scores: NDArray[np.float64]) -> Quality:
    bins = []
    for each in _bins(reliability(positive, scores, bins=IMAGE_BINS)):
        interval = wilson(round(each.observed * each.count), round(each.count))
        bins.append(replace(each, low=interval.low, high=interval.high))
    return Quality(ece=ece(positive, scores, bins=IMAGE_BINS), brier=brier(positive, scores), bins=tuple(bins))


def _of_pixels(counts: NDArray[np.int64], temperature: float) -> Quality:
    cases = pixel_cases(counts, temperature)
    return Quality(ece=ece(*cases), brier=brier(*cases), bins=_bins(reliability(*cases)))


def _bins(curve: Reliability) -> tuple[Bin, ...]:
    columns = zip(curve.predicted, curve.observed, curve.counts, strict=True)
    return tuple(Bin(predicted=float(p), observed=float(o), count=float(n)) for p, o, n in columns)
