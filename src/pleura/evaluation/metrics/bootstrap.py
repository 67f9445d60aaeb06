"""Confidence intervals by resampling patients with all their cases; the one place that draws them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Rows: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval; NaN where it cannot be had (no positives, say).

    f"{estimate:.3f}" is `0.812 (95 % 0.701 to 0.890)`; the form of the numbers is .4f by default.
    """

    value: float
    low: float
    high: float

    def number(self, form: str = ".4f") -> str:
        """Return the value as text, or `no such cases`."""
        return "no such cases" if math.isnan(self.value) else format(self.value, form)

    def interval(self, form: str = ".4f") -> str:
        """Return `0.7010 to 0.8900`, or nothing where there is no interval."""
        known = math.isfinite(self.value) and math.isfinite(self.low) and math.isfinite(self.high)
        return f"{self.low:{form}} to {self.high:{form}}" if known else ""

    def short(self, form: str = ".3f") -> str:
        """Return `0.812 (0.701 to 0.890)`, for a place where a heading says that intervals are 95 %."""
        interval = self.interval(form)
        return f"{self.number(form)} ({interval})" if interval else self.number(form)

    def __format__(self, form: str) -> str:
        return self.short(form or ".4f").replace("(", "(95 % ")

    def __str__(self) -> str:
        return format(self)


def drawn_patients(count: int, resamples: int, seed: int = 0) -> Iterator[NDArray[np.int64]]:
    """Draw as many of `count` patients with replacement: (count,) numbers below it, once for each resample."""
    generator = np.random.default_rng(seed)
    for _ in range(resamples):
        yield generator.integers(count, size=count)


def patient_weights(patients: NDArray[np.int64], resamples: int, seed: int = 0) -> Iterator[NDArray[np.float64]]:
    """Yield how often each case is in a resample of patients: (N,) whole numbers as float64.

    patients: (N,) the patient of each case, any numbers.
    """
    _, groups = np.unique(patients, return_inverse=True)
    count = int(groups.max()) + 1
    for chosen in drawn_patients(count, resamples, seed):
        yield np.bincount(chosen, minlength=count)[groups].astype(np.float64)


def percentile_interval(value: float, drawn: Sequence[float] | NDArray[np.float64]) -> Estimate:
    """Return a value with the middle 95 % of its resamples; those that are NaN are left out."""
    finite = np.asarray(drawn, dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    if not finite.size:
        return Estimate(value, float("nan"), float("nan"))
    low, high = np.quantile(finite, [0.025, 0.975])
    return Estimate(value, float(low), float(high))


def bootstrap(
    statistics: Callable[[Rows], dict[str, float]],
    patients: NDArray[np.int64],
    n_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Compute several statistics with 95 % percentile intervals, resampling patients with all their cases.

    statistics: maps indices of cases (repeats allowed) to named numbers; a NaN is left out of the interval.
    patients: (N,) the patient of each case as a number. Cases of one patient are not independent: resampling them
    one by one would make intervals too narrow.
    Source: Efron & Tibshirani 1993, ch. 13; cluster bootstrap, Davison & Hinkley 1997, 3.8.
    """
    order = np.argsort(patients, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(patients[order])) + 1)
    point = statistics(np.arange(len(patients)))
    drawn: dict[str, list[float]] = {name: [] for name in point}
    for chosen in drawn_patients(len(groups), n_resamples, seed):
        for name, value in statistics(np.concatenate([groups[group] for group in chosen])).items():
            drawn[name].append(value)
    return {name: percentile_interval(value, drawn[name]) for name, value in point.items()}


def wilson(successes: int, trials: int) -> Estimate:
    """A proportion with its 95 % Wilson interval; NaN without trials.

    Where all or none succeeded, a bootstrap draws the same share every time and has no width; this interval has one.
    Source: Wilson 1927; Brown, Cai & DasGupta 2001.
    """
    if trials == 0:
        return Estimate(float("nan"), float("nan"), float("nan"))
    z, share = 1.959964, successes / trials
    middle = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials**2)) / (1 + z * z / trials)
    return Estimate(share, max(0.0, middle - half), min(1.0, middle + half))
