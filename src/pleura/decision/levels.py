"""Probabilities as 8 bits, in which the decision rule finds the very pixels that it finds in the floats.

Level k holds k/256 <= p < (k+1)/256, as in the histograms of a search; thresholds are k/256, so that p >= k/256 is
exactly level >= k. 255, the highest, holds p = 1 too: a threshold of 1, which only that reaches, is the one that 8 bits
do not keep.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pleura.decision.triplet import LEVELS, Triplet
from pleura.errors import InputError

HIGHEST = LEVELS - 1
_PIECE_PX = 2**18


def levels_of(probabilities: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return the levels of probabilities in [0, 1], of any shape: floor(256 p), but 255 for p = 1."""
    levels = np.empty(probabilities.shape, dtype=np.uint8)
    floats, whole = probabilities.reshape(-1), levels.reshape(-1)
    for start in range(0, whole.size, _PIECE_PX):  # one large map after the other would be three times its size
        piece = slice(start, start + _PIECE_PX)
        # A product with a power of two is not rounded.
        whole[piece] = np.minimum(floats[piece] * np.float32(LEVELS), np.float32(HIGHEST))
    return levels


def probabilities_of(levels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return level / 256, float32: the least probability of each level, by which the rule finds the same."""
    return np.asarray(levels / np.float32(LEVELS), dtype=np.float32)


def refuse_unless_kept(triplet: Triplet) -> None:
    """Make sure that a rule finds the same in levels as in probabilities.

    Raises: InputError for a threshold of 1, unless the rule finds nothing anyway.
    """
    if max(triplet.top_threshold, triplet.bottom_threshold) == 1 and not triplet.finds_nothing:
        raise InputError(
            f"the decision rule {triplet} asks for a probability of 1, and 8 bits do not tell 1 from 255/256; leave "
            "probabilities out, or take a rule with lower thresholds, such as one from pleura tune"
        )
