"""Run-length masks of SIIM-ACR 2019: pairs of (gap since the end of the last run, length), column-major.

`-1` is the empty mask, and an image with several rows in a csv has the union of them. Note that the gap counts from
the *end* of the last run: this is not Kaggle's other format, whose starts are absolute.

>>> import numpy as np
>>> from pleura import rle
>>> mask = np.zeros((4, 4), dtype=np.uint8)
>>> mask[1:3, 1] = 1
>>> rle.encode(mask)
'5 2'
>>> bool((rle.decode("5 2", (4, 4)) == mask).all())
True
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pleura import files
from pleura.errors import RLEError

EMPTY = "-1"
SIIM_SIDE_PX = 1024


def encode(mask: NDArray[np.generic]) -> str:
    """Return a mask as a SIIM run-length string; `-1` where it is empty.

    mask: (H, W), any dtype; everything that is not 0 counts as mask.
    Raises: RLEError if it is not two-dimensional.
    """
    if mask.ndim != 2:
        raise RLEError(f"a mask has two axes (H, W), this array has the shape {mask.shape}")
    height = mask.shape[0]
    inside = (mask if mask.dtype in (np.bool_, np.uint8) else mask != 0).view(np.uint8)
    columns = np.flatnonzero(inside.max(axis=0, initial=0))
    if columns.size == 0:
        return EMPTY
    # Everything after this looks at the box around the mask alone: a pneumothorax is a small part of a radiograph.
    left, right = int(columns[0]), int(columns[-1]) + 1
    rows = np.flatnonzero(inside[:, left:right].max(axis=1))
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    box = np.zeros((bottom - top + 2, right - left), dtype=np.bool_)
    np.not_equal(inside[top:bottom, left:right], 0, out=box[1:-1])
    row, column = np.divmod(np.flatnonzero(box[1:] != box[:-1]), right - left)
    edges = np.sort((column + left) * height + row + top)
    if bottom - top == height:  # a run may go on from the foot of a column to the head of the next: no edge there
        same = np.flatnonzero(edges[1:] == edges[:-1])
        edges = np.delete(edges, np.concatenate([same, same + 1]))
    return " ".join(map(str, np.diff(edges, prepend=0).tolist()))


def _numbers(text: str) -> NDArray[np.int64]:
    words = text.split()
    # int() would take 1_0 and the digits of every script too.
    plain = text.isascii() and "_" not in text
    try:
        numbers = np.array(list(map(int, words)) if plain else [], dtype=np.int64)
    except (ValueError, OverflowError):
        plain = False
    if not plain:
        wrong = next((word for word in words if not re.fullmatch(r"-?[0-9]{1,18}", word)), words[0])
        raise RLEError(f"the run-length string holds {wrong[:20]!r}, which is no whole number")
    if len(words) % 2:
        raise RLEError(f"the run-length string has {len(words)} numbers; they come in pairs of (gap, length)")
    return numbers


def check(text: object, shape: tuple[int, int] = (SIIM_SIDE_PX, SIIM_SIDE_PX)) -> int:
    """Check a run-length string without making its mask; return the number of its pixels.

    Raises: RLEError as `decode` does.
    """
    return int(_runs(text, shape)[1::2].sum())


def _text(cell: object) -> str:
    """A cell of a table as text: pandas has NaN for a blank one, and numbers where every cell is -1 or blank.

    Raises: RLEError for anything else that is no text.
    """
    if isinstance(cell, str):
        return cell.strip() or EMPTY
    if cell is None or type(cell).__name__ == "NAType":  # pandas' own, which has no equal
        return EMPTY
    if isinstance(cell, int | float | np.integer | np.floating) and (cell == int(EMPTY) or np.isnan(cell)):
        return EMPTY
    raise RLEError(f"a run-length code is text, not {type(cell).__name__}; read the csv with dtype=str")


def _runs(text: object, shape: tuple[int, int]) -> NDArray[np.int64]:
    """The gaps and lengths of a run-length string, in turn; none of an empty mask. Raises: RLEError."""
    height, width = shape
    text = _text(text)
    if text == EMPTY:
        return np.zeros(0, dtype=np.int64)
    numbers = _numbers(text)
    gaps, lengths = numbers[0::2], numbers[1::2]
    if (gaps < 0).any():
        raise RLEError(f"run {int(np.argmax(gaps < 0)) + 1} has a negative gap: it overlaps the run before it")
    if (lengths < 1).any():
        raise RLEError(f"run {int(np.argmax(lengths < 1)) + 1} has a length below 1")
    total, ends = height * width, np.cumsum(numbers)
    if (numbers > total).any() or ends[-1] > total:
        raise RLEError(f"the last run ends {int(ends[-1]) - total} px past the {height} x {width} mask")
    return numbers


def decode(text: object, shape: tuple[int, int] = (SIIM_SIDE_PX, SIIM_SIDE_PX)) -> NDArray[np.uint8]:
    """Return the mask of one SIIM run-length string.

    text: `-1` is the empty mask, and so is a blank cell: "", None, or the NaN that pandas has for one.
    shape: (H, W) of the mask in px. Returns (H, W) uint8 in {0, 1}.
    Raises: RLEError for other things than text, words that are no whole numbers, an odd count, a negative gap (which
    would overlap the run before), a length below 1, or a run past the last pixel.
    """
    height, _ = shape
    mask = np.zeros(shape, dtype=np.uint8)
    numbers = _runs(text, shape)
    if not numbers.size:
        return mask
    ends = np.cumsum(numbers)
    # As in encode, only the box around the runs is built column-major and transposed.
    ends[1::2] -= 1  # the first and the last pixel of each run, in turn
    column, row = np.divmod(ends, height)
    left, right = int(column[0]), int(column[-1]) + 1
    wraps = bool((column[0::2] != column[1::2]).any())
    top, bottom = (0, height) if wraps else (int(row.min()), int(row.max()) + 1)
    edges = (column - left) * (bottom - top) + (row - top)
    edges[1::2] += 1
    runs = np.diff(edges, prepend=0, append=(right - left) * (bottom - top))
    values = np.zeros(runs.size, dtype=np.uint8)
    values[1::2] = 1
    mask[top:bottom, left:right] = np.repeat(values, runs).reshape(right - left, bottom - top).T
    return mask


def decode_union(texts: Iterable[object], shape: tuple[int, int] = (SIIM_SIDE_PX, SIIM_SIDE_PX)) -> NDArray[np.uint8]:
    """Return the union of the masks of all rows of one image, (H, W) uint8 in {0, 1}.

    Raises: RLEError as `decode` does.
    """
    union = np.zeros(shape, dtype=np.uint8)
    for text in texts:
        union |= decode(text, shape)
    return union


def write_csv(path: Path, rows: Iterable[tuple[str, str]]) -> None:
    """Write (image_id, run-length string) rows as a SIIM csv. Raises: OutputError."""
    files.write_csv(path, chain([("ImageId", "EncodedPixels")], rows))
