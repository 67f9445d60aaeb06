"""The outline of a mask along the edges of its pixels: lines that enclose the mask and nothing else."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Steps to the right, down, left and up, as (columns, rows); the mask lies to the right of each.
_STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))


def outlines(mask: NDArray[np.uint8]) -> list[NDArray[np.int64]]:
    """Return closed lines around the parts of a mask (H, W) in {0, 1}, and around their holes.

    Each is (n, 2) of (column, row), the first point again at the end, corners alone. (0, 0) is the upper left corner of
    the first pixel, (W, H) the lower right corner of the last. Pixels that touch at a corner only are apart.
    """
    leaving = _edges(mask)
    found = []
    while leaving:
        start = next(iter(leaving))
        first = direction = leaving[start][0]
        at, corners = start, list[tuple[int, int]]()
        while True:
            at = (at[0] + _STEPS[direction][0], at[1] + _STEPS[direction][1])
            ways = leaving[at]
            # The sharpest turn towards the mask stays with the pixel that was followed.
            turn = next(way % 4 for way in (direction + 1, direction, direction - 1) if way % 4 in ways)
            if turn != direction:
                corners.append(at)
            ways.remove(turn)
            if not ways:
                del leaving[at]
            direction = turn
            if (at, direction) == (start, first):
                break
        found.append(np.array([*corners, corners[0]], dtype=np.int64))
    return found


def _edges(mask: NDArray[np.uint8]) -> dict[tuple[int, int], list[int]]:
    """Return for each corner of a pixel in which directions edges of the mask leave it, indices of `_STEPS`."""
    # Only the rows and columns that the mask touches, framed: most of a radiograph is far from it.
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    leaving: dict[tuple[int, int], list[int]] = {}
    if not len(rows):
        return leaving
    top, left = int(rows[0]), int(columns[0])
    framed = np.pad(mask[top : rows[-1] + 1, left : columns[-1] + 1].astype(bool), 1)
    inside = framed[1:-1, 1:-1]
    beyond = (framed[:-2, 1:-1], framed[1:-1, 2:], framed[2:, 1:-1], framed[1:-1, :-2])
    starts = ((0, 0), (1, 0), (1, 1), (0, 1))
    for direction, (other, (column, row)) in enumerate(zip(beyond, starts, strict=True)):
        down, across = np.divmod(np.flatnonzero(inside & ~other), inside.shape[1])
        for key in zip((across + left + column).tolist(), (down + top + row).tolist(), strict=True):
            leaving.setdefault(key, []).append(direction)
    return leaving
