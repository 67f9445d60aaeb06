"""Run-length masks of SIIM-ACR 2019: pairs of (gap since the end of the last run, length), column-major.

`-1` is the empty mask, and an image with several rows in a csv has the union of them. Note that the gap counts from
the *end* of the last run: this is not Kaggle's other format, whose starts are absolute.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pleura.errors import InputError, RLEError, writing

EMPTY = "-1"
SIIM_SIDE_PX = 1024


def encode(mask: NDArray[np.generic]) -> str:
    """Write a mask as a SIIM run-length string; `-1` where it is empty.

    mask: (H, W), any dtype; everything that is not 0 counts as mask.
    Raises: RLEError if it is not two-dimensional.
    """
    if mask.ndim != 2:
        raise RLEError(f"a mask has two axes (H, W), this array has the shape {mask.shape}")
    height = mask.shape[0]
    inside = np.ascontiguousarray(mask != 0).view(np.uint8)
    columns = np.flatnonzero(inside.max(axis=0))  # max of bytes is vectorised where any of booleans is not
    if columns.size == 0:
        return EMPTY
    # Only the columns between the first and the last mask pixel are transposed to column-major order:
    # that copy is most of the cost, and a pneumothorax rarely crosses the midline.
    first, last = int(columns[0]), int(columns[-1]) + 1
    flat = np.zeros((last - first) * height + 2, dtype=np.uint8)
    flat[1:-1].reshape(last - first, height)[...] = inside[:, first:last].T
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + first * height
    starts, ends = edges[0::2], edges[1::2]
    pairs = np.empty(edges.size, dtype=np.int64)
    pairs[0::2] = starts
    pairs[2::2] = starts[1:] - ends[:-1]
    pairs[1::2] = ends - starts
    return " ".join(map(str, pairs.tolist()))


def _numbers(text: str) -> NDArray[np.int64]:
    words = text.split()
    try:
        numbers = np.array([int(word) for word in words], dtype=np.int64)
    except (ValueError, OverflowError):
        wrong = next((word for word in words if not word.lstrip("-").isdigit()), max(words, key=len))
        raise RLEError(f"the run-length string holds {wrong[:20]!r}, which is no whole number") from None
    if numbers.size == 0:
        raise RLEError("the run-length string is empty; an empty mask is written -1")
    if numbers.size % 2:
        raise RLEError(f"the run-length string has {numbers.size} numbers; they come in pairs of (gap, length)")
    return numbers


def decode(text: str, shape: tuple[int, int] = (SIIM_SIDE_PX, SIIM_SIDE_PX)) -> NDArray[np.uint8]:
    """Read one SIIM run-length string as a mask.

    shape: (H, W) of the mask in px. Returns (H, W) uint8 in {0, 1}.
    Raises: RLEError for words that are no whole numbers, an odd count, a negative gap (which would overlap the run
    before), a length below 1, or a run past the last pixel.
    """
    height, width = shape
    if text.strip() == EMPTY:
        return np.zeros(shape, dtype=np.uint8)
    numbers = _numbers(text)
    gaps, lengths = numbers[0::2], numbers[1::2]
    if (gaps < 0).any():
        raise RLEError(f"run {int(np.argmax(gaps < 0)) + 1} has a negative gap: it overlaps the run before it")
    if (lengths < 1).any():
        raise RLEError(f"run {int(np.argmax(lengths < 1)) + 1} has a length below 1")
    ends = np.cumsum(numbers)
    total = height * width
    if (numbers > total).any() or ends[-1] > total:
        raise RLEError(f"the last run ends {int(ends[-1]) - total} px past the {height} x {width} mask")
    # As in encode, only the columns that hold a run are built column-major and transposed.
    first, last = int(numbers[0]) // height, (int(ends[-1]) - 1) // height + 1
    runs = np.append(numbers, last * height - ends[-1])
    runs[0] -= first * height
    run_values = np.zeros(runs.size, dtype=np.uint8)
    run_values[1::2] = 1
    mask = np.zeros(shape, dtype=np.uint8)
    mask[:, first:last] = np.repeat(run_values, runs).reshape(last - first, height).T
    return mask


def decode_union(texts: Iterable[str], shape: tuple[int, int] = (SIIM_SIDE_PX, SIIM_SIDE_PX)) -> NDArray[np.uint8]:
    """Read all rows of one image as the union of their masks; (H, W) uint8 in {0, 1}.

    Raises: RLEError as `decode` does.
    """
    union = np.zeros(shape, dtype=np.uint8)
    for text in texts:
        if text.strip() != EMPTY:
            union |= decode(text, shape)
    return union


def read_csv(path: Path) -> dict[str, list[str]]:
    """Read a SIIM csv as image_id -> its run-length strings, in file order; exact duplicate rows count once.

    Accepts the competition's own header, ` EncodedPixels` with a leading space, and ids that end in a file suffix.
    Raises: InputError for a missing file, a missing column, a row without an id, or an id that is both empty and not.
    """
    rows: dict[str, list[str]] = {}
    csv.field_size_limit(2**24)  # a mask of many runs is longer than the csv module's cautious 128 KiB a field
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            header = [name.strip() for name in reader.fieldnames or []]
            reader.fieldnames = header
            missing = [name for name in ("ImageId", "EncodedPixels") if name not in header]
            if missing:
                found = ", ".join(header) or "nothing"
                raise InputError(f"{path}: the column {missing[0]} is missing (found: {found}); SIIM names both so")
            for row in reader:
                image_id, text = strip_suffix((row["ImageId"] or "").strip()), (row["EncodedPixels"] or "").strip()
                if not image_id or not text:
                    raise InputError(f"{path}, line {reader.line_num}: a row needs an ImageId and EncodedPixels")
                texts = rows.setdefault(image_id, [])
                if text not in texts:
                    texts.append(text)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as a csv ({getattr(error, 'strerror', None) or error})") from error
    for image_id, texts in rows.items():
        if EMPTY in texts and len(texts) > 1:
            raise InputError(f"{path}: {image_id} is empty (-1) in one row and has a mask in another; delete one")
    return rows


def write_csv(path: Path, rows: Iterable[tuple[str, str]]) -> None:
    """Write (image_id, run-length string) rows as a SIIM csv. Raises: OutputError."""
    with writing(path), path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("ImageId", "EncodedPixels"))
        writer.writerows(rows)


def strip_suffix(image_id: str) -> str:
    """Drop a file suffix from an id: the UIDs of SIIM have dots themselves, so only known suffixes count."""
    for suffix in (".dcm", ".dicom", ".png", ".jpg", ".jpeg"):
        if image_id.lower().endswith(suffix):
            return image_id[: -len(suffix)]
    return image_id
