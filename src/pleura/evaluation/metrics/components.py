"""The connected components of a mask.

scipy has it too, and is a third of what an installation that only predicts and scores would weigh.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def components(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int32], int]:
    """Number the connected components of a mask, (H, W); diagonal neighbours are connected.

    Returns (H, W) from 1 on, in the order of their first pixels by rows, 0 for the background; and how many there are.
    """
    height, width = mask.shape
    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(edges == 1)
    ends = np.nonzero(edges == -1)[1]
    # Runs of one row have increasing keys, and all of them smaller ones than those of the next row.
    next_row = (rows + 1) * (width + 2)
    first = np.searchsorted(rows * (width + 2) + ends, next_row + starts, "left")
    last = np.searchsorted(rows * (width + 2) + starts, next_row + ends, "right")
    counts = np.maximum(last - first, 0)
    above = np.repeat(np.arange(len(rows)), counts)
    below = np.arange(len(above)) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(first, counts)
    roots, numbers = np.unique(_joined(len(rows), above, below), return_inverse=True)
    found = np.zeros((height, width), dtype=np.int32)
    found[mask] = np.repeat(numbers.reshape(-1) + 1, ends - starts)
    return found, len(roots)


def _joined(count: int, one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.int64]:
    """(count,) the lowest number that each is connected with. one, other: (n,) the pairs that are.

    Source: Shiloach & Vishkin 1982: in each round every tree is hooked to a lower neighbour, and flattened.
    """
    root = np.arange(count)
    while True:
        pairs = root[one], root[other]
        low, high = np.minimum(*pairs), np.maximum(*pairs)
        if not (low < high).any():
            return root
        np.minimum.at(root, high, low)
        while not np.array_equal(further := root[root], root):
            root = further
