"""The rows of cases.csv, checked field by field; each fault with its line."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pleura.data import rle
from pleura.errors import RLEError
from pleura.files import read_csv

ALWAYS_TRAIN = "always-train"
"""The role of cases that are in training and never in validation, such as those whose masks a teacher predicted."""
NO_FOLD = -1
"""The fold of such cases, for readers of cases.csv that know folds alone."""
LATER_COLUMNS = {"pixel_aspect": "1", "role": ""}
"""Columns that datasets of earlier versions lack, and their values there."""
_WHOLE, _NUMBER = re.compile(r"[0-9]{1,9}"), re.compile(r"[0-9]{1,300}(\.[0-9]{0,300})?([eE][-+]?[0-9]{1,3})?")
_SHOWN_CHARACTERS = 64


def read_rows(path: Path, columns: Sequence[str], size_px: int) -> tuple[list[dict[str, Any]], list[str]]:
    """Read the rows of cases.csv as fields of `Case`, and its faults: `line 7: ...`, one text for each.

    columns: the names of the fields; further columns of the csv are left alone. size_px: side of the masks' grid.
    Raises: InputError if it is no csv.
    """
    rows: list[dict[str, Any]] = []
    faults: list[str] = []
    first: dict[str, int] = {}
    lines = read_csv(path, own=True)
    _, header = next(lines, (1, []))
    for name in columns:
        if header.count(name) != 1 and (name in header or name not in LATER_COLUMNS):
            there = ", ".join(map(_shown, header[:20])) or "nothing"
            what = "is missing" if name not in header else "is there twice"
            return [], [f"line 1: the column {name} {what} (found: {there})"]
    for line, cells in lines:
        if len(cells) != len(header):
            faults.append(f"line {line}: has {len(cells)} cells where the header has {len(header)}")
            continue
        row = {**LATER_COLUMNS, **dict(zip(header, cells, strict=True))}
        image_id = row["image_id"]
        if first.setdefault(image_id, line) != line:
            faults.append(f"line {line}: the image_id {_shown(image_id)} is in line {first[image_id]} too")
        try:
            rows.append(_fields(row, columns, size_px))
        except ValueError as error:
            faults.append(f"line {line}: {error}")
    return rows, faults


def _fields(row: Mapping[str, str], columns: Sequence[str], size_px: int) -> dict[str, Any]:
    """Raises: ValueError for a value that the column cannot have."""
    fields = {name: _READERS[name](name, row[name]) if name in _READERS else row[name] for name in columns}
    if not row["mask_rle"].strip():
        raise _refused("mask_rle", "", "-1 where the mask is empty")
    try:
        is_empty = rle.check(row["mask_rle"], (size_px, size_px)) == 0
    except RLEError as error:
        raise ValueError(f"the mask of {_shown(row['image_id'])}: {error}") from error
    if fields["fold"] == NO_FOLD and fields["role"] != ALWAYS_TRAIN:
        raise ValueError(f"fold is {NO_FOLD}, not a whole number from 0 on: that is for the role {ALWAYS_TRAIN}")
    if is_empty == fields["has_pneumothorax"]:
        mask = "its mask_rle is empty" if is_empty else "it has a mask_rle"
        raise ValueError(f"has_pneumothorax is {row['has_pneumothorax']}, and {mask}")
    return fields


def _shown(text: str) -> str:
    plain = "".join(character if character.isprintable() else "?" for character in text[: _SHOWN_CHARACTERS + 1])
    return repr(plain if len(plain) <= _SHOWN_CHARACTERS else f"{plain[: _SHOWN_CHARACTERS - 3]}...")


def _refused(name: str, text: str, wanted: str) -> ValueError:
    return ValueError(f"{name} is {_shown(text)}, and has to be {wanted}")


def _named(name: str, text: str) -> str:
    if not text:
        raise _refused(name, text, "the id of the image")
    return text


def _or_none(name: str, text: str) -> str | None:
    if text in ("nan", "NaN"):  # how a table is written whose empty cells were taken for numbers
        raise _refused(name, text, "empty where it is not known")
    return text or None


def _one_of(words: Sequence[str], in_words: str) -> Callable[[str, str], str | None]:
    def read(name: str, text: str) -> str | None:
        if text not in ("", *words):
            raise _refused(name, text, in_words)
        return text or None

    return read


def _truth(name: str, text: str) -> bool:
    if text not in ("0", "1"):
        raise _refused(name, text, "0 or 1")
    return text == "1"


def _fold(name: str, text: str) -> int:
    if text != str(NO_FOLD) and not _WHOLE.fullmatch(text):
        raise _refused(name, text, "a whole number from 0 on")
    return int(text)


def _side(name: str, text: str) -> int:
    if not _WHOLE.fullmatch(text) or int(text) < 1:
        raise _refused(name, text, "a number of pixels from 1 on")
    return int(text)


def _age(name: str, text: str) -> float | None:
    if not text:
        return None
    if not _NUMBER.fullmatch(text) or not math.isfinite(float(text)):
        raise _refused(name, text, "a number of years from 0 on, or empty")
    return float(text)


def _spacing(name: str, text: str) -> tuple[float, float] | None:
    words = text.split()
    if not words:
        return None
    if len(words) != 2 or not all(_NUMBER.fullmatch(word) and 0 < float(word) < math.inf for word in words):
        raise _refused(name, text, "two numbers of mm above 0 (between rows, between columns), or empty")
    return float(words[0]), float(words[1])


def _aspect(name: str, text: str) -> float:
    if not _NUMBER.fullmatch(text) or not 0 < float(text) < math.inf:
        raise _refused(name, text, "a number above 0")
    return float(text)


_READERS: dict[str, Callable[[str, str], Any]] = {
    "image_id": _named,
    "fold": _fold,
    "patient": _or_none,
    "has_pneumothorax": _truth,
    "view": _or_none,
    "sex": _one_of(("M", "F", "O"), "M, F, O or empty"),
    "age": _age,
    "pixel_spacing_mm": _spacing,
    "rows": _side,
    "columns": _side,
    "pixel_aspect": _aspect,
    "role": _one_of((ALWAYS_TRAIN,), f"{ALWAYS_TRAIN}, or empty"),
}
