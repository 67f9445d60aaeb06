"""Confidence intervals by resampling cases."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Rows: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval; NaN where it cannot be had (no positives, say)."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4f} (95 % {self.low:.4f} to {self.high:.4f})"


def bootstrap(
    statistics: Callable[[Rows], dict[str, float]],
    patients: NDArray[np.int64],
    n_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """95 % percentile intervals of several statistics, resampling patients with all their cases.

    statistics: maps positions of cases (repeats allowed) to named numbers; may give NaN, which a resample then skips.
    patients: (N,) the patient of each case as a number. Cases of one patient are not independent: resampling them
    one by one would make intervals too narrow.
    Source: Efron & Tibshirani 1993, ch. 13; cluster bootstrap, Davison & Hinkley 1997, 3.8.
    """
    order = np.argsort(patients, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(patients[order])) + 1)
    generator = np.random.default_rng(seed)
    point = statistics(np.arange(len(patients)))
    drawn: dict[str, list[float]] = {name: [] for name in point}
    for _ in range(n_resamples):
        chosen = generator.integers(len(groups), size=len(groups))
        for name, value in statistics(np.concatenate([groups[group] for group in chosen])).items():
            if np.isfinite(value):
                drawn[name].append(value)
    return {name: _estimate(value, drawn[name]) for name, value in point.items()}


def wilson(successes: int, trials: int) -> Estimate:
    """A proportion with its 95 % Wilson interval; NaN without trials.

    Where all or none succeeded, a bootstrap draws the same share every time and knows no doubt; this interval does.
    Source: Wilson 1927; Brown, Cai & DasGupta 2001.
    """
    if trials == 0:
        return Estimate(float("nan"), float("nan"), float("nan"))
    z, share = 1.959964, successes / trials
    middle = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials**2)) / (1 + z * z / trials)
    return Estimate(share, max(0.0, middle - half), min(1.0, middle + half))


def _estimate(value: float, drawn: list[float]) -> Estimate:
    if not drawn:
        return Estimate(value, float("nan"), float("nan"))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Estimate(value, float(low), float(high))
