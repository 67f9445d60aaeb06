"""The dataset folder: cases.csv, images.npy and card.json, readable with nothing but pandas and numpy."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import struct
import time
import tokenize
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pleura.data import rle
from pleura.data.cases import read_rows
from pleura.errors import InputError, PleuraError, RLEError
from pleura.files import hash_files, user_cache, write_csv, write_json

FORMAT, AGAIN = 1, "copy or prepare it again"
CASES, IMAGES, CARD = "cases.csv", "images.npy", "card.json"
UNREADABLE: tuple[type[Exception], ...] = (
    *(ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, OSError, RecursionError, SyntaxError),
    *(TypeError, ValueError, Warning, struct.error, tokenize.TokenError),
)
"""What numpy raises on damaged files, whose header is Python; what it would only warn of is damage too."""
Split = Literal["train", "val", "all"]
SETTLED_S = 2.0
"""A file that changed less long ago is hashed again next time: it may change once more within a tick of its clock."""


@dataclass(frozen=True)
class Case:
    """One radiograph of a dataset; None for what its source does not contain."""

    image_id: str
    fold: int
    patient: str | None
    has_pneumothorax: bool
    mask_rle: str
    """On the dataset's square grid."""
    view: str | None
    sex: str | None
    age: float | None
    """In years."""
    pixel_spacing_mm: tuple[float, float] | None
    """(row, column), of the original image."""
    source: str
    """The file, relative to the folder of images that was prepared."""
    rows: int
    columns: int
    """Of the original image, in px; with `pixel_aspect` and the dataset's size the geometry (`SquareGeometry`)."""
    label_source: str
    """The csv or folder that the mask came from."""
    pixel_aspect: float = 1.0
    """How many times as high as wide a pixel of the original image is; 1 in datasets that do not have the column."""
    role: str | None = None
    """`ALWAYS_TRAIN`, or None: its fold decides, as in datasets without this column."""


class Dataset:
    """An opened dataset folder; images stay on disk until they are read.

    images: (N, size_px, size_px) uint8, memory-mapped. cases: N `Case`s in the same order. card: card.json.
    """

    def __init__(self, folder: Path, check_hash: bool = True) -> None:
        """check_hash: compare the bytes of images and cases with the card's sha256; pleura doctor always does.

        Raises: InputError if the folder holds no finished dataset, a value that its column cannot have, or files that
        are not the ones that were prepared.
        """
        self.folder = folder = Path(folder)
        self.card = _read_card(folder)
        self.images: NDArray[np.uint8] = _open_images(folder / IMAGES)
        self.size_px = int(self.images.shape[1])
        self.cases = _faultless(folder, self.size_px)
        if len(self.cases) != len(self.images):
            raise InputError(
                f"{folder}: {CASES} lists {len(self.cases)} cases, {IMAGES} holds {len(self.images)}; {AGAIN}"
            )
        if check_hash:
            self.check_hash()
        self.positive = np.array([case.has_pneumothorax for case in self.cases], dtype=bool)
        self.scored = np.array([case.role is None for case in self.cases], dtype=bool)
        """Whose masks are truth to score by: all but those of the role `ALWAYS_TRAIN`."""

    def check_hash(self, always: bool = False) -> None:
        """Compare the bytes of images and cases with the card's sha256; once for each change of them, or always.

        Raises: InputError if they differ.
        """
        _refuse_changed(self.folder, [self.folder / IMAGES, self.folder / CASES], self.data_hash, always)

    def __len__(self) -> int:
        return len(self.cases)

    def by_source(self, indices: NDArray[np.int64]) -> list[dict[str, Any]]:
        """Count cases by where their masks came from: label_source, positives, negatives, without_patient."""
        counts: dict[str, dict[str, Any]] = {}
        for case in (self.cases[index] for index in indices):
            row = counts.setdefault(case.label_source, {"positives": 0, "negatives": 0, "without_patient": 0})
            row["positives" if case.has_pneumothorax else "negatives"] += 1
            row["without_patient"] += not case.patient
        return [{"label_source": source, **counts[source]} for source in sorted(counts)]

    @property
    def names(self) -> tuple[list[str], list[str]]:
        """The ids and the source files of all cases. `SeenRows.of` recognises a case by either."""
        return [case.image_id for case in self.cases], [case.source for case in self.cases]

    @property
    def data_hash(self) -> str:
        """The sha256 over images and cases that the card holds."""
        return str(self.card["sha256"])

    def indices(self, split: Split, fold: int) -> NDArray[np.int64]:
        """Indices of the cases of a split: val is the fold, train all others, all every case.

        Cases of the role `ALWAYS_TRAIN` are never in val. They are in train, unless the fold validates an image of the
        same patient, which would be a leak.
        Raises: InputError if the split holds no case.
        """
        held_out = self.scored & np.array([case.fold == fold for case in self.cases], dtype=bool)
        chosen = {"val": held_out, "train": ~held_out, "all": np.ones_like(held_out)}[split]
        if split == "train":
            validated = {self.cases[row].patient for row in np.flatnonzero(held_out)} - {None}
            chosen &= self.scored | np.array([case.patient not in validated for case in self.cases], dtype=bool)
        if not chosen.any():
            there = ", ".join(map(str, self.folds))
            raise InputError(f"{self.folder}: no case is in the {split} split of fold {fold}; its folds are {there}")
        return np.flatnonzero(chosen)

    @property
    def folds(self) -> list[int]:
        """The folds that can be held out, in order."""
        return sorted({case.fold for case in self.cases if case.role is None})

    def masks(self, indices: Sequence[int] | NDArray[np.int64]) -> NDArray[np.uint8]:
        """The masks of some cases, (n, size_px, size_px) uint8 in {0, 1}. Raises: InputError for a damaged mask."""
        shape = (self.size_px, self.size_px)
        masks = np.zeros((len(indices), *shape), dtype=np.uint8)
        for row, index in enumerate(indices):
            case = self.cases[int(index)]
            try:
                masks[row] = rle.decode(case.mask_rle, shape)
            except RLEError as error:
                raise InputError(f"{self.folder / CASES}: the mask of {case.image_id}: {error}") from error
        return masks


def read_tables(folder: Path) -> tuple[dict[str, Any], list[Case]]:
    """Return the card and the cases of a dataset, whose images need not be there. Raises: InputError as `Dataset`."""
    card = _read_card(folder)
    if type(size_px := card.get("size_px")) is not int or size_px < 1:
        raise InputError(f"{folder / CARD}: size_px is {size_px!r:.40}, not a number of pixels; {AGAIN}")
    return card, _faultless(folder, size_px)


def _faultless(folder: Path, size_px: int) -> list[Case]:
    rows, faults = _read_cases(folder / CASES, size_px)
    if faults:
        more = f", and {len(faults) - 1} more lines have a fault: pleura doctor {folder}" if len(faults) > 1 else ""
        raise InputError(f"{folder / CASES}, {faults[0]}{more}; {AGAIN}")
    return [Case(**row) for row in rows]


def write_cases(path: Path, cases: Sequence[Case]) -> None:
    """Write cases.csv. Raises: OutputError."""
    names = [field.name for field in fields(Case)]
    write_csv(path, [names, *([_to_text(getattr(case, name)) for name in names] for case in cases)])


def _to_text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, tuple):
        return " ".join(map(repr, value))
    return str(value)


def case_faults(folder: Path) -> list[str]:
    """All that is wrong with cases.csv, `line 7: ...` for each fault. Raises: InputError if it cannot be read."""
    return _read_cases(folder / CASES, int(_open_images(folder / IMAGES).shape[1]))[1]


def _read_cases(path: Path, size_px: int) -> tuple[list[dict[str, Any]], list[str]]:
    try:
        return read_rows(path, [field.name for field in fields(Case)], size_px)
    except InputError as error:
        raise InputError(f"{error}; {AGAIN}") from error


def _read_card(folder: Path) -> dict[str, Any]:
    path = folder / CARD
    if not path.is_file():
        raise InputError(f"{folder}: holds no dataset (no {CARD}); make one with pleura prepare --out {folder}")
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be read as JSON ({reason}); {AGAIN}") from error
    if not isinstance(card, dict):
        raise InputError(f"{path}: is {type(card).__name__}, not a mapping; {AGAIN}")
    if type(card.get("format")) is not int or card["format"] != FORMAT:
        raise InputError(
            f"{folder}: was made by another version of pleura (format {card.get('format')!r:.20}); {AGAIN}"
        )
    if not isinstance(card.get("sha256"), str) or not re.fullmatch(r"[0-9a-f]{64}", card["sha256"]):
        raise InputError(f"{path}: sha256 is {card.get('sha256')!r:.40}, not 64 hexadecimal digits; {AGAIN}")
    return card


def _open_images(path: Path) -> NDArray[np.uint8]:
    """images.npy, memory-mapped. Raises: InputError unless it is a whole, plain array of uint8 (N, S, S)."""
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("error")
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, by_columns, dtype = read(file)
            offset = file.tell()
        size = path.stat().st_size
    except UNREADABLE as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())[:120] or "cut off"
        raise InputError(f"{path}: cannot be read as an array of numpy ({reason}); {AGAIN}") from error
    if dtype != np.uint8 or len(shape) != 3 or shape[1] != shape[2] or min(shape) < 1:
        raise InputError(f"{path}: is {dtype} {shape!s:.60}, not uint8 (N, S, S); {AGAIN}")
    if by_columns:
        raise InputError(f"{path}: is in Fortran's order; write it with np.save(path, np.ascontiguousarray(images))")
    expected = offset + math.prod(map(int, shape))
    if size != expected:
        raise InputError(f"{path}: has {size} bytes where {shape!s:.60} takes {expected}: it is damaged; {AGAIN}")
    return np.memmap(path, dtype=np.uint8, mode="r", offset=offset, shape=shape)


def _refuse_changed(folder: Path, files: Sequence[Path], expected: str, always: bool = False) -> None:
    """Compare the sha256 over the bytes of `files`, in order, with `expected`, once for each change of the files.

    12.6 GB (12,047 images of 1024 px) take some ten seconds to hash. What was found is kept in the user's cache, by the
    files' sizes, times and inodes, never in the dataset's folder, which may be read-only.
    always: also where the cache holds the same files. Raises: InputError if they differ, or a file cannot be read.
    """
    try:
        before = [_stamp(file) for file in files]
        note = [expected, before]
        if not always and _noted(folder) == note:
            return
        found = hash_files(*files)
        settled = time.time() - max(times for _, *changes, _ in before for times in changes) / 1e9 > SETTLED_S
        unchanged = before == [_stamp(file) for file in files]
    except OSError as error:
        raise InputError(f"{error.filename or folder}: cannot be read ({error.strerror})") from error
    if found != expected:
        names = " or ".join(file.name for file in files)
        raise InputError(
            f"{folder}: {names} is not as it was prepared (the sha256 of card.json is of other bytes); prepare it "
            f'again, or, if the change is yours, write "sha256": "{found}" into card.json'
        )
    if settled and unchanged:
        with contextlib.suppress(PleuraError, OSError, RuntimeError):  # no cache is no fault
            write_json(_note_of(folder), note)


def _stamp(file: Path) -> list[int]:
    status = file.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _noted(folder: Path) -> object:
    try:
        return json.loads(_note_of(folder).read_text(encoding="utf-8"))
    except (OSError, ValueError, RuntimeError, RecursionError):
        return None


def _note_of(folder: Path) -> Path:
    """Raises: RuntimeError where the user has no home."""
    name = hashlib.sha256(os.fsencode(os.path.realpath(folder))).hexdigest()
    return user_cache("datasets") / f"{name[:32]}.json"
