"""Which cases an epoch shows: all positives, and a seeded rotation of negatives without replacement."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def rate_of_epoch(rate: float | tuple[float, float] | None, epoch: int, epochs: int) -> float | None:
    """The share of positives of epoch 0, 1, ... of a stage: a pair slides in equal steps from first to last.

    Source: the 1st place of SIIM-ACR 2019 went from 0.8 to 0.4 by parts, the 4th from 0.8 to 0.22 by epochs.
    """
    if not isinstance(rate, tuple):
        return rate
    first, last = rate
    return first + (last - first) * min(1.0, epoch / max(1, epochs - 1))


def epoch_order(
    positive: NDArray[np.bool_], positive_rate: float | None, seed: int, epoch: int, shown: int | None = None
) -> NDArray[np.int64]:
    """The cases of one epoch, shuffled; a pure function of its arguments, so that a killed run repeats it.

    positive: (N,) bool. positive_rate: share r of positives in the epoch: all P of them and P (1 - r) / r negatives,
    which go round through all negatives before one comes again. None: every case once.
    shown: where the rate changes from epoch to epoch, the sum of `negatives_wanted` over the epochs before, after which
    the rotation goes on. None: each epoch before had this one's rate.
    Returns: (n,) int64 positions.
    Source: the 1st place of SIIM-ACR 2019 drew its negatives with replacement; the rotation is ours.
    """
    positives, negatives = np.flatnonzero(positive), np.flatnonzero(~positive)
    if positive_rate is None or positives.size == 0:
        chosen = np.arange(positive.size)
    else:
        wanted = negatives_wanted(positive, positive_rate)
        shown = epoch * wanted if shown is None else shown
        chosen = np.concatenate([positives, _rotation(negatives, wanted, seed, shown)])
    return np.random.default_rng([seed, epoch]).permutation(chosen)


def negatives_wanted(positive: NDArray[np.bool_], positive_rate: float | None) -> int:
    """How many negatives an epoch of `epoch_order` has. positive: (N,) bool."""
    positives = int(np.count_nonzero(positive))
    negatives = positive.size - positives
    if positive_rate is None or positives == 0:
        return negatives
    return min(round(positives * (1 - positive_rate) / positive_rate), negatives)


def rank_bounds(size: int, rank: int, world: int) -> tuple[int, int]:
    """The rows [first, last) of a batch of `size` that belong to process `rank` of `world`.

    Parts are contiguous and differ by one row at most; some are empty where there are fewer rows than processes.
    Raises: ValueError if `rank` is not in [0, world).
    """
    if not 0 <= rank < world:
        raise ValueError(f"rank {rank} is not one of {world} processes")
    return rank * size // world, (rank + 1) * size // world


def _rotation(negatives: NDArray[np.int64], wanted: int, seed: int, shown: int) -> NDArray[np.int64]:
    """The epoch's window of one seeded order that goes round and round: no repeat before all others came."""
    order = np.random.default_rng([seed, 1]).permutation(negatives)
    return order[(shown + np.arange(wanted)) % max(negatives.size, 1)]
