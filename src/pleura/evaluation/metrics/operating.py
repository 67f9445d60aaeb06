"""Operating points: every threshold of an image score at once, and what one decision rule is worth elsewhere.

Curves keep one point for each distinct score, so that ties cannot be cut in two. What a class is missing for is NaN,
never 0 or 1. Bands resample patients with all their cases, as all intervals here do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pleura.evaluation.metrics.bootstrap import Estimate, patient_weights, percentile_interval, wilson

Numbers = NDArray[np.float64]
Flags = NDArray[np.bool_]
MAX_POINTS = 400
"""Of a curve that is stored or drawn: more cannot be seen."""
FROC_RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""False alarms for each image at which the FROC is averaged. Source: LUNA16, Setio et al. 2017."""
POSTERIOR_DRAWS = 20_000


@dataclass(frozen=True)
class Curve:
    """Points of a curve, by falling threshold; no points where a class is missing."""

    x: Numbers
    y: Numbers
    area: float
    """AUROC, average precision, or the mean sensitivity of an FROC; NaN where a class is missing."""
    band_x: Numbers
    low: Numbers
    """2.5 % quantile of y at each band_x over resamples; empty where none were drawn."""
    high: Numbers
    interval: Estimate
    """Of the area."""

    def thinned(self) -> dict[str, list[float]]:
        """The points as lists of at most MAX_POINTS, first and last among them, and the band."""
        kept = np.unique(np.linspace(0, max(len(self.x) - 1, 0), min(MAX_POINTS, len(self.x))).round().astype(int))
        points = {"x": self.x[kept], "y": self.y[kept], "band_x": self.band_x, "low": self.low, "high": self.high}
        return {name: np.round(values, 6).tolist() for name, values in points.items()}


@dataclass(frozen=True)
class _Ranking:
    """Cases by falling score; `ends` are the last positions of each run of equal scores."""

    order: NDArray[np.int64]
    ends: NDArray[np.int64]

    @classmethod
    def of(cls, scores: Numbers) -> _Ranking:
        order = np.argsort(-scores, kind="stable")
        return cls(order, np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1).astype(np.int64))

    def above(self, weights: Numbers) -> Numbers:
        """The sum of the weights of all cases at or above each distinct score."""
        return np.asarray(np.cumsum(weights[self.order])[self.ends])


def roc(positive: Flags, scores: Numbers, patients: NDArray[np.int64] | None = None, resamples: int = 0) -> Curve:
    """False positive rate (x) against sensitivity (y), from (0, 0) on; ties go together.

    positive, scores: (N,). patients: (N,), each case its own by default. The area is AUROC, with ties counted half.
    """
    ranking = _Ranking.of(scores)

    def points(weights: Numbers) -> tuple[Numbers, Numbers, float] | None:
        hits, alarms = ranking.above(weights * positive), ranking.above(weights * ~positive)
        if hits[-1] == 0 or alarms[-1] == 0:
            return None
        x, y = np.append(0.0, alarms / alarms[-1]), np.append(0.0, hits / hits[-1])
        return x, y, float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2))

    return _banded(
        points, lambda grid, x, y: np.interp(grid, x, y), np.linspace(0, 1, 101), patients, resamples, scores
    )


def pr(positive: Flags, scores: Numbers, patients: NDArray[np.int64] | None = None, resamples: int = 0) -> Curve:
    """Recall (x) against precision (y), one point for each distinct score; the area is average precision.

    positive, scores: (N,). Average precision adds up steps, not trapezes: between two points precision does not go
    along a straight line. Source: Davis & Goadrich 2006; the definition of scikit-learn's average_precision_score.
    """
    ranking = _Ranking.of(scores)

    def points(weights: Numbers) -> tuple[Numbers, Numbers, float] | None:
        hits, predicted_positive = ranking.above(weights * positive), ranking.above(weights)
        if hits[-1] == 0 or predicted_positive[-1] == hits[-1]:
            return None
        kept = predicted_positive > 0  # a resample may hold none of the cases of the highest scores
        x, y = hits[kept] / hits[-1], hits[kept] / predicted_positive[kept]
        return x, y, float(np.sum(np.diff(np.append(0.0, x)) * y))

    def at(grid: Numbers, x: Numbers, y: Numbers) -> Numbers:
        return np.asarray(y[np.searchsorted(x, grid - 1e-12)])

    return _banded(points, at, np.linspace(0.01, 1, 100), patients, resamples, scores)


@dataclass(frozen=True)
class Candidates:
    """What a model marks on one image, lesion by lesion, at every confidence."""

    found_at: tuple[float, ...]
    """For each true lesion, the confidence at which it is found; 0 for never."""
    false_at: tuple[float, ...]
    """The confidence of each mark that touches no lesion."""


def froc(cases: Sequence[Candidates], patients: NDArray[np.int64] | None = None, resamples: int = 0) -> Curve:
    """False alarms for each image (x) against the share of lesions found (y); the area is the mean y at FROC_RATES.

    A rate that the curve does not reach counts with its last point. NaN without a lesion.
    """
    marks = [(at, row, hit) for row, case in enumerate(cases) for at, hit in _marks(case)]
    confidence, rows = np.array([mark[0] for mark in marks]), np.array([mark[1] for mark in marks], dtype=np.int64)
    hit = np.array([mark[2] for mark in marks], dtype=bool)
    lesions = np.array([len(case.found_at) for case in cases], dtype=np.float64)
    ranking = _Ranking.of(confidence) if marks else None

    def points(weights: Numbers) -> tuple[Numbers, Numbers, float] | None:
        total = float(weights @ lesions)
        if total == 0:
            return None
        x = y = np.zeros(1)
        if ranking is not None:
            x = np.append(0.0, ranking.above(weights[rows] * ~hit) / weights.sum())
            y = np.append(0.0, ranking.above(weights[rows] * hit) / total)
        return x, y, float(_reached(np.array(FROC_RATES), x, y).mean())

    reach = max(1.0, sum(len(case.false_at) for case in cases) / max(len(cases), 1))
    return _banded(points, _reached, np.linspace(0, reach, 101), patients, resamples, lesions)


def _marks(case: Candidates) -> Iterator[tuple[float, bool]]:
    yield from ((at, True) for at in case.found_at if at > 0)
    yield from ((at, False) for at in case.false_at)


def _reached(rates: Numbers, x: Numbers, y: Numbers) -> Numbers:
    """The y of the last point that is not right of each rate."""
    return np.asarray(y[np.searchsorted(x, rates + 1e-12, side="right") - 1])


def _banded(
    points: Callable[[Numbers], tuple[Numbers, Numbers, float] | None],
    at: Callable[[Numbers, Numbers, Numbers], Numbers],
    grid: Numbers,
    patients: NDArray[np.int64] | None,
    resamples: int,
    of_cases: Numbers,
) -> Curve:
    """The curve of all cases with the spread of its heights, and of its area, over resamples of patients."""
    none, nan = np.zeros(0), float("nan")
    whole = points(np.ones(len(of_cases))) if len(of_cases) else None
    if whole is None:
        return Curve(none, none, nan, none, none, none, Estimate(nan, nan, nan))
    x, y, area = whole
    numbers = np.arange(len(of_cases)) if patients is None else patients
    drawn = [found for weights in patient_weights(numbers, resamples) if (found := points(weights)) is not None]
    if not drawn:
        return Curve(x, y, area, none, none, none, Estimate(area, nan, nan))
    low, high = np.quantile([at(grid, across, up) for across, up, _ in drawn], [0.025, 0.975], axis=0)
    return Curve(x, y, area, grid, low, high, percentile_interval(area, [each for _, _, each in drawn]))


def proportions(positive: Flags, predicted_positive: Flags) -> dict[str, Estimate]:
    """Sensitivity, specificity, PPV and NPV of decisions, with Wilson's intervals; NaN where none are counted.

    positive, predicted_positive: (N,). The interval takes cases as independent, which several images of one patient
    are not quite.
    """
    hits = {
        "sensitivity": predicted_positive[positive],
        "specificity": ~predicted_positive[~positive],
        "ppv": positive[predicted_positive],
        "npv": ~positive[~predicted_positive],
    }
    return {name: wilson(int(right.sum()), len(right)) for name, right in hits.items()}


def predictive_values(sensitivity: float, specificity: float, prevalence: float) -> tuple[float, float]:
    """PPV and NPV where `prevalence` of all images are positive (Bayes); NaN where none or all are predicted so."""
    hits, alarms = prevalence * sensitivity, (1 - prevalence) * (1 - specificity)
    misses, silent = prevalence * (1 - sensitivity), (1 - prevalence) * specificity
    nan = float("nan")
    return (hits / (hits + alarms) if hits + alarms else nan, silent / (silent + misses) if silent + misses else nan)


def at_prevalences(
    positive: Flags,
    predicted_positive: Flags,
    dice: Numbers,
    patients: NDArray[np.int64],
    prevalences: Sequence[float],
    seed: int = 0,
) -> list[dict[str, Estimate]]:
    """PPV, NPV and SIIM mean Dice of the same decisions where other shares of images are positive, one after the other.

    positive, predicted_positive, dice, patients: (N,). Sensitivity, specificity and Dice on positives are taken to be
    the same there. NaN where a class is missing here. Intervals: draws, the same for all shares, of sensitivity and
    specificity from their Jeffreys posteriors, so that 100 of 100 is not taken for certainty, stretched to the value
    itself where that is 0 or 1; Dice on positives by resampling patients.
    Source: Mossman & Berger 2001, Medical Decision Making 21:498.
    """
    nan = Estimate(float("nan"), float("nan"), float("nan"))
    if positive.all() or not positive.any():
        return [{"ppv": nan, "npv": nan, "siim_dice": nan} for _ in prevalences]
    sensitivity, specificity = (
        float(predicted_positive[positive].mean()),
        float((~predicted_positive[~positive]).mean()),
    )
    generator = np.random.default_rng(seed)
    drawn = [
        generator.beta(right.sum() + 0.5, (~right).sum() + 0.5, POSTERIOR_DRAWS)
        for right in (predicted_positive[positive], ~predicted_positive[~positive])
    ]
    means = _resampled_means(dice[positive], patients[positive], seed)
    on_positives = generator.choice(means, POSTERIOR_DRAWS)
    found = []
    for share in prevalences:
        hits, alarms = share * drawn[0], (1 - share) * (1 - drawn[1])
        silent, misses = (1 - share) * drawn[1], share * (1 - drawn[0])
        ppv, npv = predictive_values(sensitivity, specificity, share)
        mean = share * float(dice[positive].mean()) + (1 - share) * specificity
        found.append(
            {
                "ppv": _between(ppv, hits / (hits + alarms)),
                "npv": _between(npv, silent / (silent + misses)),
                "siim_dice": _between(mean, share * on_positives + silent),
            }
        )
    return found


def _between(value: float, drawn: Numbers) -> Estimate:
    if not np.isfinite(value):
        return Estimate(value, value, value)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Estimate(value, min(value, float(low)), max(value, float(high)))  # at 0 and 1 the posterior stops short


def _resampled_means(values: Numbers, patients: NDArray[np.int64], seed: int, resamples: int = 1000) -> Numbers:
    return np.array([weights @ values / weights.sum() for weights in patient_weights(patients, resamples, seed)])


def group_means(
    groups: Mapping[str, Flags], values: Numbers, patients: NDArray[np.int64], resamples: int = 1000
) -> dict[str, Estimate]:
    """The mean of `values` in each group of cases, with 95 % intervals by resampling patients; NaN if it is empty.

    groups: name -> (N,) members, which may overlap. values: (N,); cases with NaN count in no group.
    """
    names, known = list(groups), np.isfinite(values)
    if not names or not len(values):
        return {name: Estimate(*[float("nan")] * 3) for name in names}
    members = np.stack([groups[name] & known for name in names]).astype(np.float64)
    sums = members * np.where(known, values, 0.0)
    drawn = np.full((resamples, len(names)), np.nan)
    for row, weights in enumerate(patient_weights(patients, resamples)):
        counts = members @ weights
        drawn[row, counts > 0] = (sums @ weights)[counts > 0] / counts[counts > 0]
    counts, totals = members.sum(axis=1), sums.sum(axis=1)
    return {
        name: percentile_interval(float(total / count) if count else float("nan"), drawn[:, column])
        for column, (name, total, count) in enumerate(zip(names, totals, counts, strict=True))
    }
