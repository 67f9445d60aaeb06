"""Scores of groups of cases: by the size and side of the lesion, by view, sex and age where known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pleura.evaluation.metrics.bootstrap import Estimate, wilson
from pleura.evaluation.metrics.operating import group_means
from pleura.evaluation.metrics.siim import CaseResults

SIZES = (("below 0.5 % of the image", 0.0, 0.005), ("0.5 to 2 %", 0.005, 0.02), ("2 % and more", 0.02, 1.1))
AGES = (("below 18", -1.0, 18.0), ("18 to 39", 18.0, 40.0), ("40 to 64", 40.0, 65.0), ("65 and above", 65.0, 1e9))
SIDES = {"R": "right", "L": "left", "B": "both"}
UNKNOWN = "not known"


@dataclass(frozen=True)
class Facts:
    """What is known of each of N cases besides its image; None where its source has nothing of it."""

    area_share: Sequence[float]
    """Of the true mask in the square image."""
    side: Sequence[str | None]
    """Of the true mask, R, L or B."""
    view: Sequence[str | None]
    sex: Sequence[str | None]
    age: Sequence[float | None]
    """In years."""


@dataclass(frozen=True)
class Subgroup:
    """The cases that have something in common."""

    by: str
    """What divides the cases, such as `view`."""
    group: str
    positives: int
    negatives: int
    dice: Estimate
    """On the positives."""
    sensitivity: Estimate
    specificity: Estimate


def subgroups(
    facts: Facts, results: CaseResults, patients: NDArray[np.int64], resamples: int = 1000
) -> tuple[Subgroup, ...]:
    """Compute Dice, sensitivity and specificity of each group that has a case.

    The interval of Dice is by resampling patients; the others have Wilson's. Size and side are of lesions, so that
    their groups hold positives only; cases of which view, sex or age is not known are a group. Where it is known of no
    case there is no row.
    """
    groups = {f"{by}/{name}": (by, name, members) for by, name, members in _groups(facts, results.positive)}
    positives = {key: members & results.positive for key, (_, _, members) in groups.items()}
    dice = group_means(positives, results.dice, patients, resamples)
    rows = []
    for key, (by, name, members) in groups.items():
        ill, well = positives[key], members & ~results.positive
        found, silent = results.predicted_positive[ill], ~results.predicted_positive[well]
        shares = (wilson(int(right.sum()), len(right)) for right in (found, silent))
        rows.append(Subgroup(by, name, int(ill.sum()), int(well.sum()), dice[key], *shares))
    return tuple(rows)


def _groups(facts: Facts, positive: NDArray[np.bool_]) -> Iterator[tuple[str, str, NDArray[np.bool_]]]:
    shares = np.asarray(facts.area_share, dtype=np.float64)
    for name, low, high in SIZES:
        yield from _one("lesion size", name, positive & (shares >= low) & (shares < high))
    for side, name in SIDES.items():
        yield from _one("side", name, positive & np.array([each == side for each in facts.side], dtype=bool))
    for by, values in (("view", facts.view), ("sex", facts.sex)):
        known = sorted({value for value in values if value})
        for value in known:
            yield by, value, np.array([each == value for each in values], dtype=bool)
        if known:
            yield from _one(by, UNKNOWN, np.array([not each for each in values], dtype=bool))
    ages = np.array([np.nan if age is None else age for age in facts.age], dtype=np.float64)
    if np.isfinite(ages).any():
        for name, low, high in AGES:
            yield from _one("age", name, (ages >= low) & (ages < high))
        yield from _one("age", UNKNOWN, ~np.isfinite(ages))


def _one(by: str, name: str, members: NDArray[np.bool_]) -> Iterator[tuple[str, str, NDArray[np.bool_]]]:
    if members.any():
        yield by, name, members
