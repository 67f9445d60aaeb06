"""All that a report says beside the score, as one document of plain numbers, from what was kept of each case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pleura.decision.calibration import IMAGE_BINS, Reliability, brier, ece, pixel_cases, reliability
from pleura.evaluation.metrics.bootstrap import wilson
from pleura.evaluation.metrics.operating import Curve, at_prevalences, froc, group_means, pr, proportions, roc
from pleura.evaluation.metrics.siim import Outcomes
from pleura.evaluation.metrics.subgroups import Facts, strata
from pleura.evaluation.scoring import CaseNumbers

PREVALENCES = (0.02, 0.05, 0.2215)
SLIDER = tuple(0.005 * 100 ** (step / 40) for step in range(41))
"""Shares of positives between which the page's slider interpolates: 0.5 to 50 %, even steps of the logarithm."""


@dataclass(frozen=True)
class Measured:
    """What one pass over N cases leaves: decisions, numbers of each case, who they are."""

    outcomes: Outcomes
    cases: Sequence[CaseNumbers]
    facts: Facts
    patients: NDArray[np.int64]
    unit: str = "px"
    """Of the distances."""
    tolerance: float = 0.0
    """Of the surface Dice, in the unit."""
    has_scores: bool = True
    """False where only masks are known: then nothing that needs a score is told."""
    pixel_counts: NDArray[np.int64] | None = None
    """(128, 2) of `calibration.pixel_counts`, summed over the images."""
    calibrated: Mapping[str, Any] = field(default_factory=dict)
    """What the checkpoint's calibration makes of it: `scores` (N,) and `temperature`; empty without one."""


def account(measured: Measured, resamples: int) -> dict[str, Any]:
    """decisions, surface, strata, prevalence, curves (roc, pr, froc) and calibration, as plain numbers, some NaN."""
    outcomes, patients = measured.outcomes, measured.patients
    positive, called = outcomes.positive, outcomes.called
    elsewhere = at_prevalences(positive, called, outcomes.dice, patients, [*PREVALENCES, *SLIDER])
    found: dict[str, Any] = {
        "decisions": {
            "true_positives": int((called & positive).sum()),
            "false_positives": int((called & ~positive).sum()),
            "true_negatives": int((~called & ~positive).sum()),
            "false_negatives": int((~called & positive).sum()),
            **{name: asdict(estimate) for name, estimate in proportions(positive, called).items()},
        },
        "surface": _surface(measured, resamples),
        "strata": strata(measured.facts, outcomes, patients, resamples),
        "prevalence": {
            "dice_on_positives": float(outcomes.dice[positive].mean()) if positive.any() else float("nan"),
            "rows": [
                {"prevalence": share, "floor": 1 - share} | {name: asdict(estimate) for name, estimate in there.items()}
                for share, there in zip(PREVALENCES, elsewhere, strict=False)
            ],
            "slider": [
                [round(end, 4) for key in ("ppv", "npv", "siim_dice") for end in (there[key].low, there[key].high)]
                for there in elsewhere[len(PREVALENCES) :]
            ],
        },
    }
    if measured.has_scores:
        scores = outcomes.scores
        found["curves"] = {
            "roc": _curve(roc(positive, scores, patients, resamples)),
            "pr": _curve(pr(positive, scores, patients, resamples)),
            "froc": _curve(froc([case.candidates for case in measured.cases], patients, resamples)),
            "lesions": sum(len(case.candidates.found_at) for case in measured.cases),
        }
        found["calibration"] = _calibration(measured)
    return found


def _curve(curve: Curve) -> dict[str, Any]:
    return {"area": asdict(curve.interval), **curve.thinned()}


def _surface(measured: Measured, resamples: int) -> dict[str, Any]:
    """HD95 has no number where nothing is found: those are counted; the surface Dice is 0 there."""
    rows = {"all": measured.outcomes.positive}
    distances = np.array([case.hd95 for case in measured.cases], dtype=np.float64)
    dice = np.array([case.surface_dice for case in measured.cases], dtype=np.float64)
    known = rows["all"] & np.isfinite(distances)
    return {
        "unit": measured.unit,
        "tolerance": measured.tolerance,
        "hd95": asdict(group_means(rows, distances, measured.patients, resamples)["all"]),
        "hd95_median": float(np.median(distances[known])) if known.any() else float("nan"),
        "hd95_cases": int(known.sum()),
        "hd95_left_out": int((rows["all"] & ~known).sum()),
        "surface_dice": asdict(group_means(rows, dice, measured.patients, resamples)["all"]),
    }


def _calibration(measured: Measured) -> dict[str, Any]:
    positive, calibrated = measured.outcomes.positive, measured.calibrated
    found: dict[str, Any] = {"image": _of_images(positive, measured.outcomes.scores)}
    if "scores" in calibrated:
        found["image_calibrated"] = _of_images(positive, calibrated["scores"])
    if measured.pixel_counts is not None:
        found["pixels"] = _of_pixels(measured.pixel_counts, 1.0)
        if calibrated.get("temperature", 1.0) != 1.0:
            found["pixels_calibrated"] = _of_pixels(measured.pixel_counts, float(calibrated["temperature"]))
    return found


def _of_images(positive: NDArray[np.bool_], scores: NDArray[np.float64]) -> dict[str, Any]:
    curve = reliability(positive, scores, bins=IMAGE_BINS)
    rows = _rows(curve)
    for row, share, count in zip(rows, curve.observed, curve.counts, strict=True):
        interval = wilson(round(float(share * count)), round(float(count)))
        row |= {"low": interval.low, "high": interval.high}
    return {"ece": ece(positive, scores, bins=IMAGE_BINS), "brier": brier(positive, scores), "bins": rows}


def _of_pixels(counts: NDArray[np.int64], temperature: float) -> dict[str, Any]:
    cases = pixel_cases(counts, temperature)
    return {"ece": ece(*cases), "brier": brier(*cases), "bins": _rows(reliability(*cases))}


def _rows(curve: Reliability) -> list[dict[str, float]]:
    columns = zip(curve.predicted, curve.observed, curve.counts, strict=True)
    return [{"predicted": float(p), "observed": float(o), "count": float(n)} for p, o, n in columns]
