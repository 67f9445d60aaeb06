"""The objectives that a triplet is tuned for: scores that add up over images, so that the search is exact."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from pleura.decision.search import Gains, Histograms, Optimum, dice_gains, search_gains
from pleura.decision.triplet import SIIM_PREVALENCE
from pleura.errors import InputError

Numbers: TypeAlias = NDArray[np.float64]
Flags: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True)
class Objective:
    """A score of the rule's decisions; higher is better."""

    name: str = "siim_dice"
    prevalence: float | None = SIIM_PREVALENCE
    """Share of positives that siim_dice and expected_cost are weighted to; None: that of the cases."""
    specificity: float = 0.95
    """The lowest specificity that dice_on_positives allows, on the cases it is tuned on."""
    miss_cost: float = 10.0
    """Cost of a missed pneumothorax in expected_cost, in false alarms."""

    def __post_init__(self) -> None:
        """Raises: InputError for an unknown name or a number out of range."""
        if self.name not in OBJECTIVES:
            raise InputError(f"--objective: {self.name!r} is none of {', '.join(OBJECTIVES)}")
        if self.prevalence is not None and not 0 < self.prevalence < 1:
            raise InputError(f"--prevalence: {self.prevalence} is not between 0 and 1")
        if not 0 <= self.specificity <= 1:
            raise InputError(f"--specificity: {self.specificity} is not within 0 and 1")
        if not 0 < self.miss_cost < np.inf:
            raise InputError(f"--miss-cost: {self.miss_cost} is not above 0")

    def __str__(self) -> str:
        at = "the cases' own share of" if self.prevalence is None else f"{100 * self.prevalence:.4g} %"
        return {
            "siim_dice": f"SIIM mean Dice at {at} positives",
            "dice_on_positives": f"Dice on positives at a specificity of at least {self.specificity:.4g}",
            "youden": "sensitivity + specificity - 1",
            "expected_cost": f"minus the cost of an image at {at} positives, a miss being {self.miss_cost:.4g} alarms",
        }[self.name]

    def gains(self, histograms: Histograms, repeats: Numbers | None = None) -> Gains:
        """Return the gains to search. repeats: (N,) how often each image counts, as in a bootstrap; once by default."""
        return OBJECTIVES[self.name](self, histograms, self._weights(histograms.positive, repeats))

    def search(self, histograms: Histograms) -> Optimum:
        """Return the best triplet for these cases; exact."""
        return search_gains(histograms, self.gains(histograms))

    def score(self, positive: Flags, predicted_positive: Flags, dice: Numbers, repeats: Numbers | None = None) -> float:
        """Return the score of decisions, all (N,); NaN where a class that it needs is missing.

        dice: SIIM Dice of each image. dice_on_positives is computed whatever the specificity is.
        """
        weights = self._weights(positive, repeats)
        if self.name == "siim_dice":
            return float(weights.mixed @ dice)
        if not positive.any() or (positive.all() and self.name != "dice_on_positives"):
            return float("nan")
        if self.name == "dice_on_positives":
            return float(weights.own[positive] @ dice[positive])
        if self.name == "youden":
            sensitivity = weights.own[positive] @ predicted_positive[positive]
            return float(sensitivity - weights.own[~positive] @ predicted_positive[~positive])
        missed, alarms = positive & ~predicted_positive, predicted_positive & ~positive
        return float(-self.miss_cost * weights.mixed[missed].sum() - weights.mixed[alarms].sum())

    def _weights(self, positive: Flags, repeats: Numbers | None) -> _Weights:
        counts = np.ones(len(positive)) if repeats is None else np.asarray(repeats, dtype=np.float64)
        positives, negatives = counts[positive].sum(), counts[~positive].sum()
        own = counts / np.where(positive, max(positives, 1.0), max(negatives, 1.0))
        if self.prevalence is None or positives == 0 or negatives == 0:
            return _Weights(counts, own, counts / max(positives + negatives, 1.0))
        return _Weights(counts, own, own * np.where(positive, self.prevalence, 1 - self.prevalence))


@dataclass(frozen=True)
class _Weights:
    counts: Numbers
    own: Numbers
    """Weight of each image within its class; the sum of each class is 1."""
    mixed: Numbers
    """Weight at the objective's prevalence; the sum is 1."""


def _siim_dice(_: Objective, histograms: Histograms, weights: _Weights) -> Gains:
    base = float(weights.mixed[~histograms.positive].sum())
    return Gains(base, dice_gains(histograms, weights.mixed))


def _dice_on_positives(objective: Objective, histograms: Histograms, weights: _Weights) -> Gains:
    positive = histograms.positive
    gains = np.where(positive[:, None], histograms.dice() * weights.own[:, None], 0.0)
    most = float(np.floor((1 - objective.specificity) * weights.counts[~positive].sum() + 1e-9))
    return Gains(0.0, gains, np.where(positive, 0.0, weights.counts), most)


def _youden(_: Objective, histograms: Histograms, weights: _Weights) -> Gains:
    gains = np.where(histograms.positive, weights.own, -weights.own)[:, None]
    return Gains(0.0, gains, second=dice_gains(histograms, weights.mixed))


def _expected_cost(objective: Objective, histograms: Histograms, weights: _Weights) -> Gains:
    saved = np.where(histograms.positive, objective.miss_cost * weights.mixed, -weights.mixed)[:, None]
    base = float(-objective.miss_cost * weights.mixed[histograms.positive].sum())
    return Gains(base, saved, second=dice_gains(histograms, weights.mixed))


OBJECTIVES: dict[str, Callable[[Objective, Histograms, _Weights], Gains]] = {
    "siim_dice": _siim_dice,
    "dice_on_positives": _dice_on_positives,
    "youden": _youden,
    "expected_cost": _expected_cost,
}
"""Youden and expected cost depend on the presence alone; among rules that are equal in it, the SIIM Dice decides."""
