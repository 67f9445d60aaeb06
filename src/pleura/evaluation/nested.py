"""How far to trust a tuned triplet: what is left of its score on other patients, and how much the choice wavers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pleura.data.folds import assign_folds
from pleura.decision.objectives import Objective
from pleura.decision.search import Histograms, search_gains
from pleura.decision.triplet import LEVELS, REFERENCE_AREA_PX, Triplet
from pleura.evaluation.metrics.bootstrap import Estimate, bootstrap, patient_weights

FOLDS = 5
"""Of the nested estimate; it takes twice as many patients."""


@dataclass(frozen=True)
class Nested:
    """The scores of cases, each by a triplet that was chosen on the other folds."""

    triplets: list[Triplet]
    """One for each fold, chosen on the other folds."""
    predicted_positive: NDArray[np.bool_]
    """(N,) whether something is found on each case, by the triplet of its fold."""
    dice: NDArray[np.float64]
    """(N,) SIIM Dice by the triplet of its fold."""
    score: Estimate
    """Of all cases together, with the interval of resampled patients."""


def nested(
    histograms: Histograms,
    patients: NDArray[np.int64],
    folds: NDArray[np.int64],
    objective: Objective,
    choose: Callable[[NDArray[np.int64]], Triplet] | None = None,
    resamples: int = 1000,
) -> Nested:
    """Score each fold by the triplet chosen on the other folds; a fold holds all cases of its patients.

    patients, folds: (N,). choose: maps indices of cases to a triplet; by default the objective's best for them.
    Source: Varma & Simon 2006.
    """
    best = choose or (lambda rows: objective.search(histograms.take(rows)).triplet)
    predicted_positive, dice = np.zeros(len(histograms), dtype=bool), np.zeros(len(histograms))
    triplets = []
    for fold in np.unique(folds):
        inside = np.flatnonzero(folds == fold)
        triplets.append(best(np.flatnonzero(folds != fold)))
        predicted_positive[inside], dice[inside] = histograms.take(inside).decided(triplets[-1])
    positive = histograms.positive

    def statistics(rows: NDArray[np.int64]) -> dict[str, float]:
        return {"score": objective.score(positive[rows], predicted_positive[rows], dice[rows])}

    return Nested(triplets, predicted_positive, dice, bootstrap(statistics, patients, resamples)["score"])


def nested_folds(histograms: Histograms, patients: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return folds for `nested`, (N,), that keep patients together. Raises: InputError for too few patients."""
    areas = histograms.counts[:, :, 1].sum(axis=1).tolist()
    return assign_folds([str(patient) for patient in patients], areas, FOLDS, seed=0)


@dataclass(frozen=True)
class Spread:
    """The triplets that resampled patients would have chosen."""

    triplets: list[Triplet]

    @property
    def finding(self) -> list[Triplet]:
        """Without those resamples whose best rule was to find nothing."""
        return [triplet for triplet in self.triplets if not triplet.finds_nothing]

    def interval(self, part: str) -> tuple[float, float] | None:
        """Where the middle 90 % of one number of the triplet lie; None where every resample found nothing."""
        values = [getattr(triplet, part) for triplet in self.finding]
        if not values:
            return None
        low, high = np.quantile(values, [0.05, 0.95])
        return float(low), float(high)


def spread(
    histograms: Histograms,
    patients: NDArray[np.int64],
    objective: Objective,
    resamples: Iterable[int] = range(50),
) -> Spread:
    """Search again on resampled patients; resamples: the seed of each."""
    chosen = []
    for seed in resamples:
        weights = next(patient_weights(patients, 1, seed))
        rows = np.flatnonzero(weights)
        some = histograms.take(rows)
        chosen.append(search_gains(some, objective.gains(some, weights[rows])).triplet)
    return Spread(chosen)


@dataclass(frozen=True)
class Landscape:
    """The score around a triplet, with one of its numbers held."""

    thresholds: NDArray[np.float64]
    """(256, 256) by top and bottom threshold, at the triplet's area; NaN where bottom > top."""
    min_pixels: NDArray[np.int64]
    """(A,) areas, of a 1024 x 1024 image."""
    areas: NDArray[np.float64]
    """(256, A) by top threshold and area, at the triplet's bottom threshold; NaN where bottom > top."""


def landscape(histograms: Histograms, objective: Objective, triplet: Triplet, steps: int = 64) -> Landscape:
    """The score of every pair of thresholds, and of every top with `steps` areas from 0 to 10 % of an image; exact.

    For dice_on_positives, rules that do not keep the specificity are NaN.
    """
    wanted, reached = objective.gains(histograms), histograms.areas()[:, :LEVELS]
    gains = np.broadcast_to(wanted.gains[:, :LEVELS], (len(histograms), LEVELS))

    def found(needed: int) -> NDArray[np.float64]:
        # A bottom threshold is not above the top one here: where the top is reached, so is the bottom.
        rule = Triplet(min_pixels=needed)
        above = np.asarray(rule.decides(reached, reached, histograms.area_px), dtype=np.float64)
        if wanted.alarms is not None:
            above[:, wanted.alarms @ above > wanted.most] = np.nan
        return above

    levels = np.arange(LEVELS)
    thresholds = np.where(levels[:, None] >= levels, wanted.base + found(triplet.min_pixels).T @ gains, np.nan)
    min_pixels = np.unique(np.geomspace(1, REFERENCE_AREA_PX / 10, steps).astype(np.int64)) - 1
    bottom = min(LEVELS - 1, round(triplet.bottom_threshold * LEVELS))
    columns = [wanted.base + found(int(needed)).T @ gains[:, bottom] for needed in min_pixels]
    areas = np.where((levels >= bottom)[:, None], np.stack(columns, axis=1), np.nan)
    return Landscape(thresholds, min_pixels, areas)
