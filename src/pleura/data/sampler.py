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


def epoch_order(positive: NDArray[np.bool_], positive_rate: float | None, seed: int, epoch: int) -> NDArray[np.int64]:
    """The cases of one epoch, shuffled; a pure function of its arguments, so that a killed run repeats it.

    positive: (N,) bool. positive_rate: share r of positives in the epoch: all P of them and P (1 - r) / r negatives,
    which go round through all negatives before one comes again. None: every case once.
    Returns: (n,) int64 positions.
    Source: the 1st place of SIIM-ACR 2019 drew its negatives with replacement; the rotation is ours.
    """
    positives, negatives = np.flatnonzero(positive), np.flatnonzero(~positive)
    if positive_rate is None or positives.size == 0:
        chosen = np.arange(positive.size)
    else:
        wanted = min(round(positives.size * (1 - positive_rate) / positive_rate), negatives.size)
        chosen = np.concatenate([positives, _rotation(negatives, wanted, seed, epoch)])
    return np.random.default_rng([seed, epoch]).permutation(chosen)


def _rotation(negatives: NDArray[np.int64], wanted: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The epoch's window of one seeded order that goes round and round: no repeat before all others came."""
    order = np.random.default_rng([seed, 1]).permutation(negatives)
    return order[(epoch * wanted + np.arange(wanted)) % max(negatives.size, 1)]
