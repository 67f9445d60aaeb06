"""The cases of an epoch: all positives, and a seeded rotation of negatives without replacement."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


def rate_of_epoch(rate: float | tuple[float, float] | None, epoch: int, epochs: int) -> float | None:
    """Return the share of positives of epoch 0, 1, ... of a stage: a pair slides in equal steps from first to last.

    Source: the 1st place of SIIM-ACR 2019 went from 0.8 to 0.4 by parts, the 4th from 0.8 to 0.22 by epochs.
    """
    if not isinstance(rate, tuple):
        return rate
    first, last = rate
    return first + (last - first) * min(1.0, epoch / max(1, epochs - 1))


@dataclass(frozen=True)
class Shown:
    """How many cases the earlier epochs have shown: where the rotations continue."""

    cases: int = 0
    positives: float = 0.0
    """As many as their shares add up to; a rotation shows the nearest whole number."""

    def after(self, positive: NDArray[np.bool_], positive_rate: float | None, most: int | None = None) -> Shown:
        """What has been shown after one more epoch of `epoch_order`, with its arguments."""
        positives, negatives = _wanted(positive, positive_rate)
        cases = positives + negatives
        if most is not None and most < cases:
            return Shown(self.cases + most, self.positives + most * positives / cases)
        return Shown(self.cases + cases, self.positives + positives)

    @property
    def split(self) -> tuple[int, int]:
        """Positives and negatives."""
        positives = math.floor(self.positives + 0.5)
        return positives, self.cases - positives


def epoch_order(
    positive: NDArray[np.bool_],
    positive_rate: float | None,
    seed: int,
    epoch: int,
    shown: Shown | None = None,
    most: int | None = None,
) -> NDArray[np.int64]:
    """Return the cases of one epoch, shuffled; a pure function of its arguments, so that a killed run repeats it.

    positive: (N,) bool. positive_rate: the share r of positives. The epoch has all P positives and P (1 - r) / r
    negatives; no negative is repeated before all have been shown. None: every case once.
    shown: what the earlier epochs have shown, where this one continues. None: each was like this one.
    most: the largest number of cases, in the same shares; then positives too are not repeated before all have been
    shown.
    Returns: (n,) int64 indices.
    Source: the 1st place of SIIM-ACR 2019 drew its negatives with replacement; the rotation is ours.
    """
    if shown is None:
        shown = Shown()
        for _ in range(epoch):
            shown = shown.after(positive, positive_rate, most)
    before, after = shown.split, shown.after(positive, positive_rate, most).split
    parts = [
        _rotation(np.flatnonzero(kind), after[place] - before[place], [seed, 2 - place], before[place])
        for place, kind in enumerate((positive, ~positive))
    ]
    # Sorted, so that an epoch of every case is the same however the rotations stand.
    return np.random.default_rng([seed, epoch]).permutation(np.sort(np.concatenate(parts)))


def _wanted(positive: NDArray[np.bool_], positive_rate: float | None) -> tuple[int, int]:
    """How many positives and negatives an epoch has if there is no limit."""
    positives = int(np.count_nonzero(positive))
    negatives = positive.size - positives
    if positive_rate is None or positives == 0:
        return positives, negatives
    return positives, min(round(positives * (1 - positive_rate) / positive_rate), negatives)


def rank_bounds(size: int, rank: int, world: int) -> tuple[int, int]:
    """The rows [first, last) of a batch of `size` that belong to process `rank` of `world`.

    Parts are contiguous and differ by one row at most; some are empty where there are fewer rows than processes.
    Raises: ValueError if `rank` is not in [0, world).
    """
    if not 0 <= rank < world:
        raise ValueError(f"rank {rank} is not one of {world} processes")
    return rank * size // world, (rank + 1) * size // world


def _rotation(cases: NDArray[np.int64], wanted: int, seed: list[int], shown: int) -> NDArray[np.int64]:
    """The epoch's window of one seeded order that goes round and round: no repeat before all others came."""
    order = np.random.default_rng(seed).permutation(cases)
    return order[(shown + np.arange(wanted)) % max(cases.size, 1)]
