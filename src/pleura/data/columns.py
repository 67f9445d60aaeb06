"""The columns of csv files under the names that people give them, one set for every reader."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pleura.errors import InputError, excerpt

ID = ("imageid", "fname", "filename", "imgid", "kaggleid", "image", "id")
RUNS = ("encodedpixels", "maskrle", "rle", "encodedmask", "rlemask", "runs", "pixels", "mask")
PATIENT = ("patient", "patientid", "nihid", "subject", "subjectid")
FOLD = ("fold", "split")
POSITIVE = ("existlabels", "haspneumothorax")
"""Small, without blanks, dots, lines and underscores; the first that a csv has counts."""
_USUAL = {ID: "ImageId", RUNS: "EncodedPixels", PATIENT: "patient", FOLD: "fold or split", POSITIVE: "has_pneumothorax"}


def find_column(header: Sequence[str], names: Sequence[str]) -> int | None:
    """The position of the first of `names` that a header has, in any case, with blanks and underscores; or None."""
    plain = [_plain(name) for name in header]
    return next((plain.index(name) for name in map(_plain, names) if name in plain), None)


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def column(path: Path, header: Sequence[str], names: Sequence[str]) -> int:
    """The position of the column that is named by one of `names`. Raises: InputError if there is none."""
    at = find_column(header, names)
    if at is None:
        found = excerpt(", ".join(name.strip() for name in header)) or "nothing"
        usual = _USUAL.get(tuple(names), " or ".join(names))
        raise InputError(f"{path}: the column {usual} is missing (found: {found})")
    return at
