"""The dataset folder: cases.csv, images.npy and card.json, readable with nothing but pandas and numpy."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pleura.data import rle
from pleura.errors import InputError, RLEError, writing

FORMAT = 1
CASES, IMAGES, CARD = "cases.csv", "images.npy", "card.json"
Split = Literal["train", "val", "all"]
ALWAYS_TRAIN = "always-train"
"""The role of cases that are learned from and never scored by, such as those whose masks a teacher predicted."""
NO_FOLD = -1
"""Stands as the fold of such cases, for who reads cases.csv by folds alone."""


@dataclass(frozen=True)
class Case:
    """One radiograph of a dataset; None where its source did not say."""

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
    """`ALWAYS_TRAIN`, or None for what its fold says, as in datasets that have no such column."""


class Dataset:
    """An opened dataset folder; images stay on disk until they are asked for.

    images: (N, size_px, size_px) uint8, memory-mapped. cases: N `Case`s in the same order. card: card.json.
    """

    def __init__(self, folder: Path) -> None:
        """Raises: InputError if the folder holds no finished dataset, or its files do not belong together."""
        self.folder = folder
        if not (folder / CARD).is_file():
            raise InputError(f"{folder}: holds no dataset (no {CARD}); make one with pleura prepare --out {folder}")
        try:
            self.card: dict[str, Any] = dict(json.loads((folder / CARD).read_text(encoding="utf-8")))
            self.images: NDArray[np.uint8] = np.lib.format.open_memmap(folder / IMAGES, mode="r")
            self.cases = _read_cases(folder / CASES)
        except (OSError, ValueError, TypeError, AttributeError, LookupError, EOFError, csv.Error) as error:
            raise InputError(f"{folder}: the dataset is damaged ({error}); prepare it again") from error
        shape = self.images.shape
        if self.images.dtype != np.uint8 or len(shape) != 3 or shape[1] != shape[2]:
            raise InputError(
                f"{folder}: {IMAGES} is {self.images.dtype} {shape}, not uint8 (N, S, S); prepare it again"
            )
        if self.card.get("format") != FORMAT or "sha256" not in self.card:
            raise InputError(f"{folder}: was made by another version of pleura; prepare it again")
        if len(self.cases) != len(self.images):
            raise InputError(
                f"{folder}: {CASES} lists {len(self.cases)} cases, {IMAGES} holds {len(self.images)}; prepare it again"
            )
        self.size_px = int(self.images.shape[1])
        self.positive = np.array([case.has_pneumothorax for case in self.cases], dtype=bool)
        self.scored = np.array([case.role is None for case in self.cases], dtype=bool)
        """Whose masks are truth to score by: all but those of the role `ALWAYS_TRAIN`."""

    def __len__(self) -> int:
        return len(self.cases)

    @property
    def data_hash(self) -> str:
        """sha256 over images and cases, as the card gives it."""
        return str(self.card["sha256"])

    def positions(self, split: Split, fold: int) -> NDArray[np.int64]:
        """Positions of the cases of a split: val is the fold, train all others.

        Cases of the role `ALWAYS_TRAIN` are in no val, and in train for every fold but one that validates an image of
        the same patient: that would be a leak.
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

    def masks(self, positions: Sequence[int] | NDArray[np.int64]) -> NDArray[np.uint8]:
        """The masks of some cases, (n, size_px, size_px) uint8 in {0, 1}. Raises: InputError for a damaged mask."""
        shape = (self.size_px, self.size_px)
        masks = np.zeros((len(positions), *shape), dtype=np.uint8)
        for row, position in enumerate(positions):
            case = self.cases[int(position)]
            try:
                masks[row] = rle.decode(case.mask_rle, shape)
            except RLEError as error:
                raise InputError(f"{self.folder / CASES}: the mask of {case.image_id}: {error}") from error
        return masks


def write_cases(path: Path, cases: Sequence[Case]) -> None:
    """Write cases.csv. Raises: OutputError."""
    # surrogateescape: a file name need not be UTF-8, and goes through the csv as the bytes it is.
    with writing(path), path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file, lineterminator="\n")
        names = [field.name for field in fields(Case)]
        writer.writerow(names)
        writer.writerows([_to_text(getattr(case, name)) for name in names] for case in cases)


def _to_text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, tuple):
        return " ".join(map(repr, value))
    return str(value)


def _read_cases(path: Path) -> list[Case]:
    csv.field_size_limit(2**24)  # see mask_csv
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return [_case(row) for row in csv.DictReader(file)]


def _case(row: dict[str, str]) -> Case:
    spacing = [float(number) for number in row["pixel_spacing_mm"].split()]
    if len(spacing) not in (0, 2):
        raise ValueError(f"{row['image_id']} has {len(spacing)} pixel spacings")
    return Case(
        image_id=row["image_id"],
        fold=int(row["fold"]),
        patient=row["patient"] or None,
        has_pneumothorax=row["has_pneumothorax"] == "1",
        mask_rle=row["mask_rle"],
        view=row["view"] or None,
        sex=row["sex"] or None,
        age=float(row["age"]) if row["age"] else None,
        pixel_spacing_mm=(spacing[0], spacing[1]) if spacing else None,
        source=row["source"],
        rows=int(row["rows"]),
        columns=int(row["columns"]),
        label_source=row["label_source"],
        pixel_aspect=float(row.get("pixel_aspect") or 1),
        role=_role(row),
    )


def _role(row: dict[str, str]) -> str | None:
    role = row.get("role") or None
    if role not in (None, ALWAYS_TRAIN):
        raise ValueError(f"{row['image_id']} has the role {role!r}; there is {ALWAYS_TRAIN}, or nothing")
    return role


def hash_files(*paths: Path) -> str:
    """sha256 over the bytes of some files, in order. Raises: InputError."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    return digest.hexdigest()
