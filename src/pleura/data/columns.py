"""Columns of csv files under the names that people give them: one set of names for every reader."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pleura.data.ids import as_name
from pleura.errors import InputError, excerpt
from pleura.files import read_csv, without_suffix

ID = ("imageid", "fname", "filename", "imgid", "kaggleid", "image", "id")
RUNS = ("encodedpixels", "maskrle", "rle", "encodedmask", "rlemask", "runs", "pixels", "mask")
PATIENT = ("patient", "patientid", "nihid", "subject", "subjectid")
FOLD = ("fold", "split")
POSITIVE = ("existlabels", "haspneumothorax")
"""Small, without blanks, dots, lines and underscores; the first that a csv has counts."""
_USUAL = {ID: "ImageId", RUNS: "EncodedPixels", PATIENT: "patient", FOLD: "fold or split", POSITIVE: "has_pneumothorax"}


def find_column(header: Sequence[str], names: Sequence[str]) -> int | None:
    """Return the position of the first of `names` in a header, in any case, with blanks and underscores; or None."""
    plain = [_plain(name) for name in header]
    return next((plain.index(name) for name in map(_plain, names) if name in plain), None)


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def column(path: Path, header: Sequence[str], names: Sequence[str]) -> int:
    """Return the position of the column that has one of `names`. Raises: InputError if there is none."""
    at = find_column(header, names)
    if at is None:
        found = excerpt(", ".join(name.strip() for name in header)) or "nothing"
        usual = _USUAL.get(tuple(names), " or ".join(names))
        raise InputError(f"{path}: the column {usual} is missing (found: {found})")
    return at


def read_column(path: Path, names: Sequence[str]) -> dict[str, str]:
    """Read image_id -> value from a csv with a column of ids and one of the columns `names`.

    Raises: InputError for a missing file or column, or an id with two different values.
    """
    values: dict[str, str] = {}
    lines = read_csv(path)
    _, header = next(lines, (1, []))
    at_id, at = column(path, header, ID), column(path, header, names)
    for _, row in lines:
        cells = [*row, *[""] * (len(header) - len(row))]
        image_id, value = as_name(without_suffix(cells[at_id].strip())), cells[at].strip()
        if row and values.setdefault(image_id, value) != value:
            both = f"{excerpt(values[image_id])} and {excerpt(value)}"
            raise InputError(f"{path}: {excerpt(image_id)} has two values of {excerpt(header[at].strip())}: {both}")
    return values
