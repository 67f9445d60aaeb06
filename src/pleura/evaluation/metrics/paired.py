"""Two predictors on the same cases: the difference, its interval, and whether chance alone would give as much.

Both stand before the same images, so that what is resampled is the pair: patients with all their cases, for both at
once. A metric is a ratio of sums over cases, such as Dice over the positives by their number; only AUROC is not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pleura.decision.triplet import SIIM_PREVALENCE
from pleura.evaluation.metrics.bootstrap import Estimate, patient_weights, percentile_interval
from pleura.evaluation.metrics.siim import CaseResults, auroc

Numbers = NDArray[np.float64]
LEVEL = 0.05
_CLOSE = 1e-12


@dataclass(frozen=True)
class Ratio:
    """A metric as a sum of ratios of sums over cases: sum_k weight_k * sum_i top_ki / sum_i bottom_ki."""

    tops: tuple[Numbers, ...]
    """Each (N,)."""
    bottoms: tuple[Numbers, ...]
    """Each (N,), not below 0."""
    weights: tuple[float, ...] = (1.0,)

    @classmethod
    def mean(cls, values: Numbers, members: NDArray[np.bool_] | None = None) -> Ratio:
        """The mean of (N,) values over some cases, all by default; cases whose value is NaN are left out."""
        counted = np.isfinite(values) if members is None else members & np.isfinite(values)
        return cls((np.where(counted, values, 0.0),), (counted.astype(np.float64),))


@dataclass(frozen=True)
class Difference:
    """One metric of two predictors."""

    name: str
    first: float
    second: float
    difference: Estimate
    """first - second, with the 95 % interval of the paired bootstrap."""
    p: float
    """Of the permutation test: how often exchanging the two at random, patient by patient, differs as much."""
    p_adjusted: float
    """The same after Holm's correction for the number of metrics."""

    @property
    def better(self) -> str | None:
        """`first` or `second`, where the difference is significant; None elsewhere."""
        if not self.p_adjusted < LEVEL or self.difference.low <= 0 <= self.difference.high:
            return None
        return "first" if self.difference.value > 0 else "second"


def mask_metrics(results: CaseResults) -> dict[str, Ratio]:
    """The metrics of predicted masks; where no case counts they are NaN."""
    positive, predicted_positive, dice = results.positive, results.predicted_positive, results.dice
    on_positives, on_negatives = Ratio.mean(dice, positive), Ratio.mean(dice, ~positive)
    return {
        "siim_dice": Ratio.mean(dice),
        "siim_dice_at_siim_prevalence": Ratio(
            on_positives.tops + on_negatives.tops,
            on_positives.bottoms + on_negatives.bottoms,
            (SIIM_PREVALENCE, 1 - SIIM_PREVALENCE),
        ),
        "dice_on_positives": on_positives,
        "sensitivity": Ratio.mean(predicted_positive.astype(np.float64), positive),
        "specificity": Ratio.mean((~predicted_positive).astype(np.float64), ~positive),
        "ppv": Ratio.mean(positive.astype(np.float64), predicted_positive),
        "npv": Ratio.mean((~positive).astype(np.float64), ~predicted_positive),
    }


def intervals(
    metrics: Mapping[str, Ratio], patients: NDArray[np.int64], resamples: int = 1000, seed: int = 0
) -> dict[str, Estimate]:
    """Each metric with its 95 % percentile interval, resampling patients; fast enough for 12,000 cases.

    patients: (N,) the patient of each case as a number.
    """
    drawn: dict[str, list[float]] = {name: [] for name in metrics}
    ones = np.ones(len(patients))
    for weights in patient_weights(patients, resamples, seed):
        for name, value in _values(metrics, weights).items():
            drawn[name].append(value)
    return {name: percentile_interval(value, drawn[name]) for name, value in _values(metrics, ones).items()}


def compare(
    first: Mapping[str, Ratio],
    second: Mapping[str, Ratio],
    patients: NDArray[np.int64],
    resamples: int = 1000,
    seed: int = 0,
) -> list[Difference]:
    """The difference of each metric that both have, by paired bootstrap and permutation test.

    patients: (N,) the patient of each case as a number; all cases of one are drawn, and exchanged, together.
    Source: Efron & Tibshirani 1993, ch. 13 and 15; Phipson & Smyth 2010 for the p-value that is never 0.
    """
    names = [name for name in first if name in second]
    if not names:
        return []
    one, other = ({name: side[name] for name in names} for side in (first, second))
    ones = np.ones(len(patients))
    at = [_array(side, ones) for side in (one, other)]
    resampled = [
        _array(one, weights) - _array(other, weights) for weights in patient_weights(patients, resamples, seed)
    ]
    exchanged = [_array(one, kept, other) - _array(other, kept, one) for kept in _halves(patients, resamples, seed)]
    differences = [
        _difference(name, (at[0][k], at[1][k]), np.array(resampled)[:, k], np.array(exchanged)[:, k])
        for k, name in enumerate(names)
    ]
    return adjusted(differences)


def compare_scores(
    positive: NDArray[np.bool_],
    first: Numbers,
    second: Numbers,
    patients: NDArray[np.int64],
    resamples: int = 1000,
    seed: int = 0,
) -> Difference:
    """The difference of AUROC; positive, image scores and patients (N,). Not adjusted: see `adjusted`.

    Scores are exchanged as ranks, because those of two models need not be on one scale.
    Source: Venkatraman & Begg 1996.
    """
    ranks = [_ranks(scores) for scores in (first, second)]
    at = (auroc(positive, ranks[0]), auroc(positive, ranks[1]))
    resampled, exchanged = [], []
    for weights in patient_weights(patients, resamples, seed):
        rows = np.repeat(np.arange(len(weights)), weights.astype(np.int64))
        resampled.append(auroc(positive[rows], ranks[0][rows]) - auroc(positive[rows], ranks[1][rows]))
    for kept in _halves(patients, resamples, seed):
        chosen = kept > 0
        swapped = (np.where(chosen, ranks[0], ranks[1]), np.where(chosen, ranks[1], ranks[0]))
        exchanged.append(auroc(positive, swapped[0]) - auroc(positive, swapped[1]))
    return _difference("auroc", at, np.array(resampled), np.array(exchanged))


def adjusted(differences: Sequence[Difference]) -> list[Difference]:
    """The same differences with p-values after Holm's correction over all of them, in the order given.

    Source: Holm 1979.
    """
    known = sorted((k for k, each in enumerate(differences) if np.isfinite(each.p)), key=lambda k: differences[k].p)
    found, highest = list(differences), 0.0
    for rank, k in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - rank) * differences[k].p))
        found[k] = replace(differences[k], p_adjusted=highest)
    return found


def _ranks(scores: Numbers) -> Numbers:
    """(N,) ranks, equal scores sharing the middle one (times two)."""
    ordered = np.sort(scores)
    both = np.searchsorted(ordered, scores, "left") + np.searchsorted(ordered, scores, "right")
    return both.astype(np.float64)


def _halves(patients: NDArray[np.int64], resamples: int, seed: int) -> list[Numbers]:
    """(N,) 1 where a case stays with its predictor and 0 where it goes to the other, by patient; one per exchange."""
    _, groups = np.unique(patients, return_inverse=True)
    generator = np.random.default_rng([seed, 1])
    count = int(groups.max(initial=-1)) + 1
    return [generator.integers(2, size=count)[groups].astype(np.float64) for _ in range(resamples)]


def _values(metrics: Mapping[str, Ratio], weights: Numbers) -> dict[str, float]:
    return dict(zip(metrics, _array(metrics, weights).tolist(), strict=True))


def _array(metrics: Mapping[str, Ratio], weights: Numbers, rest: Mapping[str, Ratio] | None = None) -> Numbers:
    """The metrics of weighted cases; with `rest`, what weights of 0 to 1 leave out is filled up from there."""
    values = []
    for name, ratio in metrics.items():
        tops, bottoms = np.array([each @ weights for each in ratio.tops]), [each @ weights for each in ratio.bottoms]
        if rest is not None:
            tops = tops + [each @ (1 - weights) for each in rest[name].tops]
            bottoms = [low + each @ (1 - weights) for low, each in zip(bottoms, rest[name].bottoms, strict=True)]
        lows = np.array(bottoms)
        shares = np.divide(tops, lows, out=np.full(len(tops), np.nan), where=lows > 0)
        values.append(float(shares @ np.array(ratio.weights)))
    return np.array(values)


def _difference(name: str, at: tuple[float, float], resampled: Numbers, exchanged: Numbers) -> Difference:
    estimate = percentile_interval(at[0] - at[1], resampled)
    finite = exchanged[np.isfinite(exchanged)]
    p = float("nan")
    if np.isfinite(estimate.value):
        as_much = np.count_nonzero(np.abs(finite) >= abs(estimate.value) - _CLOSE)
        p = float((1 + as_much) / (1 + len(finite)))
    return Difference(name, at[0], at[1], estimate, p, p)
