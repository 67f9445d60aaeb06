"""Masks that any tool wrote, read one image at a time: csv files of runs, folders of PNG, DICOM-SEG, a dataset."""

from __future__ import annotations

import csv
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pleura.data import rle
from pleura.data.dataset import CARD, Dataset
from pleura.data.finding import walk
from pleura.data.ids import Names, as_name
from pleura.data.mask_png import read_mask_png
from pleura.data.radiograph import SquareGeometry
from pleura.dicom.seg import Segmentation, read_segmentation, segmentation_pixels
from pleura.errors import InputError, RLEError, excerpt
from pleura.files import without_suffix

ID_COLUMNS = ("imageid", "fname", "filename", "imgid", "kaggleid", "image", "id")
RUN_COLUMNS = ("encodedpixels", "maskrle", "rle", "encodedmask", "rlemask", "runs", "pixels", "mask")
"""Names of columns, small and without blanks, dots, lines and underscores; the first that a csv has counts."""
BLANK = ("", "nan", "none", "null")
DICOM_SUFFIXES = (".dcm", ".dicom")
Shape = tuple[int, int]


@dataclass(frozen=True)
class ForeignMask:
    """One mask as it was found."""

    mask: NDArray[np.uint8]
    """(H, W) in {0, 1}."""
    levels: NDArray[np.generic]
    """The distinct values that the file holds, (n,)."""


@dataclass
class ForeignMasks:
    """Masks by image id, not read before they are asked for; only the texts of a csv are held."""

    path: Path
    kind: str
    """In words: what the path holds."""
    read: dict[str, Callable[[Shape | None], ForeignMask]]
    """image_id -> its mask, on the grid asked for where the source itself has none."""
    has_grid: bool
    """Whether masks come with their own numbers of rows and columns; runs do not."""
    empty: set[str] = field(default_factory=set)
    """Ids that are known to be empty without reading a mask."""
    other_names: dict[str, str] = field(default_factory=dict)
    """Of DICOM-SEG: file name -> the SOP Instance UID that `read` has it under."""
    patients: dict[str, str] = field(default_factory=dict)
    """image_id -> patient, where the source says so."""
    blank: int = 0
    """Cells of a csv without any text: each counts as the empty mask."""

    def matched(self, ids: Collection[str]) -> ForeignMasks:
        """The same masks under the names that the other side uses: the UID where it is known there, else the file.

        Raises: InputError where a name can be several of the other side's, or several are the same one.
        """
        renamed = {
            uid: name for name, uid in self.other_names.items() if name in ids and uid not in ids and uid in self.read
        }
        names = Names((image_id, "") for image_id in ids)
        others = {key: names.find(key, self.path) for key in self.read if key not in ids and key not in renamed}
        table = names.resolve({key: key for key in self.read if others.get(key)}, self.path)
        renamed |= {key: image_id for image_id, key in table.items() if image_id not in self.read}
        self.read = {renamed.get(key, key): mask for key, mask in self.read.items()}
        self.empty = {renamed.get(key, key) for key in self.empty}
        self.patients = {renamed.get(key, key): patient for key, patient in self.patients.items()}
        return self

    def is_empty(self, image_id: str) -> bool:
        """Whether the mask is known to be empty, or there is none, without reading it."""
        return image_id in self.empty or image_id not in self.read


def open_masks(path: Path, grid: Shape | None = None) -> ForeignMasks:
    """Open a csv of runs, a folder of PNG masks, DICOM-SEG (a file or a folder), or a dataset of `pleura prepare`.

    grid: (rows, columns) that the runs of a csv count; 1024 x 1024 for images of unknown size if not given.
    Raises: InputError for a missing path, a folder without masks, a csv without the columns, or a damaged header.
    """
    if (path / CARD).is_file():
        return _of_dataset(path)
    if path.is_dir():
        files = sorted(file for file in walk(path) if file.is_file())
        pngs = [file for file in files if file.suffix.lower() == ".png"]
        segmentations = [file for file in files if file.suffix.lower() in DICOM_SUFFIXES]
        if pngs and segmentations:
            raise InputError(f"{path}: holds both PNG and DICOM files; give a folder of one kind")
        if not pngs and not segmentations:
            raise InputError(f"{path}: holds no mask: neither PNG nor DICOM-SEG (.dcm)")
        return _of_pngs(path, pngs) if pngs else _of_segmentations(path, segmentations)
    if not path.is_file():
        raise InputError(f"{path}: there is no such csv or folder of masks")
    if path.suffix.lower() in DICOM_SUFFIXES:
        return _of_segmentations(path, [path])
    return _of_csv(path, grid)


def read_pair(
    truth: ForeignMasks, predicted: ForeignMasks, image_id: str, grid: Shape | None = None
) -> tuple[ForeignMask | None, ForeignMask | None, bool]:
    """The true and the predicted mask of one image on the true one's grid; None for a mask that is known to be empty.

    Runs count 1024 x 1024 px, or for an image that the other side shows not to be square, the image's own; `grid`
    overrules both. Two squares of other sizes are compared on the true one's. The last of the three: whether the
    prediction was resized for that.
    Raises: InputError if a mask is damaged, or the shapes cannot be brought together.
    """
    first, second = (None if side.is_empty(image_id) else side for side in (truth, predicted))
    found: dict[int, ForeignMask] = {}
    shape = grid
    for number, side in enumerate((first, second)):  # what has a grid of its own tells the other one's
        if side is not None and side.has_grid:
            found[number] = side.read[image_id](None)
            rows, columns = found[number].mask.shape
            shape = grid or (None if rows == columns else (rows, columns))
    for number, side in enumerate((first, second)):
        if side is not None and number not in found:
            found[number] = side.read[image_id](shape)
    mask, other = found.get(0), found.get(1)
    if mask is None or other is None or mask.mask.shape == other.mask.shape:
        return mask, other, False
    return mask, _on_grid(other, mask.mask.shape, f"{predicted.path}: {image_id}"), True


def _on_grid(found: ForeignMask, shape: tuple[int, ...], what: str) -> ForeignMask:
    rows, columns = found.mask.shape
    if rows != columns or shape[0] != shape[1]:
        sizes = f"{rows} x {columns} px, the true mask {shape[0]} x {shape[1]}"
        raise InputError(f"{what} has {sizes}; save it on the image's own grid, or say --grid for runs of a csv")
    return ForeignMask(SquareGeometry(rows, columns, shape[0]).mask_to_square(found.mask), found.levels)


def _of_dataset(path: Path) -> ForeignMasks:
    dataset = Dataset(path)
    shape = (dataset.size_px, dataset.size_px)
    read = {case.image_id: _runs_reader(path, case.image_id, [case.mask_rle], shape) for case in dataset.cases}
    patients = {case.image_id: case.patient for case in dataset.cases if case.patient}
    empty = {case.image_id for case in dataset.cases if not case.has_pneumothorax}
    return ForeignMasks(path, "dataset", read, has_grid=True, empty=empty, patients=patients)


def _of_csv(path: Path, grid: Shape | None) -> ForeignMasks:
    texts, blank = _read_csv(path)
    empty = {image_id for image_id, runs in texts.items() if runs == [rle.EMPTY]}
    read = {image_id: _runs_reader(path, image_id, runs, grid) for image_id, runs in texts.items()}
    return ForeignMasks(path, "csv", read, has_grid=False, empty=empty, blank=blank)


def _runs_reader(
    path: Path, image_id: str, runs: list[str], own: Shape | None
) -> Callable[[Shape | None], ForeignMask]:
    def read(shape: Shape | None) -> ForeignMask:
        rows, columns = own or shape or (rle.SIIM_SIDE_PX, rle.SIIM_SIDE_PX)
        try:
            return ForeignMask(rle.decode_union(runs, (rows, columns)), np.array([0, 1]))
        except RLEError as error:
            hint = f"do they count {rows} x {columns} px (--grid), from the end of the last run, as SIIM's do?"
            raise InputError(f"{path}: the runs of {excerpt(image_id)}: {error}; {hint}") from error

    return read


def _read_csv(path: Path) -> tuple[dict[str, list[str]], int]:
    """image_id -> its runs, and how many cells were blank."""
    rows: dict[str, list[str]] = {}
    blank = 0
    csv.field_size_limit(2**24)  # see rle.read_csv
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, skipinitialspace=True)
            header = next(reader, [])
            at_id, at_runs = (
                _column(path, header, ID_COLUMNS, "ImageId"),
                _column(path, header, RUN_COLUMNS, "EncodedPixels"),
            )
            for row in reader:
                if not row:
                    continue
                if len(row) <= max(at_id, at_runs) or not row[at_id].strip():
                    raise InputError(f"{path}, line {reader.line_num}: a row needs an image id and runs")
                text = " ".join(row[at_runs].split())
                if text.lower() in BLANK:
                    blank, text = blank + 1, rle.EMPTY
                runs = rows.setdefault(without_suffix(as_name(row[at_id])), [])
                if text not in runs:
                    runs.append(text)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as a csv ({getattr(error, 'strerror', None) or error})") from error
    if not rows:
        raise InputError(f"{path}: holds no row; is it the right file?")
    for image_id, runs in rows.items():
        if rle.EMPTY in runs and len(runs) > 1:
            raise InputError(f"{path}: {excerpt(image_id)} is empty in one row and has a mask in another; delete one")
    return rows, blank


def _column(path: Path, header: Iterable[str], names: Iterable[str], usual: str) -> int:
    plain = ["".join(letter for letter in name.lower() if letter.isalnum()) for name in header]
    at = next((plain.index(name) for name in names if name in plain), None)
    if at is None:
        found = ", ".join(name.strip() for name in header) or "nothing"
        raise InputError(f"{path}: the column {usual} is missing (found: {excerpt(found)}); SIIM names it so")
    return at


def _of_pngs(path: Path, files: list[Path]) -> ForeignMasks:
    read: dict[str, Callable[[Shape | None], ForeignMask]] = {}
    for file in files:
        name = without_suffix(as_name(file.relative_to(path).as_posix()))
        if name in read:
            raise InputError(f"{file}: another PNG in {path} has the same name; keep one")
        read[name] = _png_reader(file)
    return ForeignMasks(path, "folder of PNG masks", read, has_grid=True)


def _png_reader(file: Path) -> Callable[[Shape | None], ForeignMask]:
    def read(_: Shape | None) -> ForeignMask:
        return ForeignMask(*read_mask_png(file))

    return read


def _of_segmentations(path: Path, files: list[Path]) -> ForeignMasks:
    parts: dict[str, list[tuple[Path, tuple[int, ...]]]] = {}
    names: dict[str, str] = {}
    for found in map(read_segmentation, files):
        for uid, frames in found.frames.items():
            parts.setdefault(uid or found.path.stem, []).append((found.path, frames))
        if (only := _only_image(found)) is not None:
            names[found.path.stem] = only
    pixels = _LastFile()
    read = {image_id: _frames_reader(where, pixels) for image_id, where in parts.items()}
    return ForeignMasks(path, "DICOM-SEG", read, has_grid=True, other_names=names)


def _only_image(found: Segmentation) -> str | None:
    return next(iter(found.frames)) if len(found.frames) == 1 and "" not in found.frames else None


class _LastFile:
    """The pixels of the file that was read last: a file can outline many images."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._pixels: NDArray[np.uint8] = np.zeros((0, 0, 0), dtype=np.uint8)

    def of(self, path: Path) -> NDArray[np.uint8]:
        if path != self._path:
            self._path, self._pixels = path, segmentation_pixels(path)
        return self._pixels


def _frames_reader(
    parts: list[tuple[Path, tuple[int, ...]]], pixels: _LastFile
) -> Callable[[Shape | None], ForeignMask]:
    def read(_: Shape | None) -> ForeignMask:
        mask: NDArray[np.uint8] | None = None
        for path, frames in parts:
            try:
                found = pixels.of(path)[list(frames)].max(axis=0)
                mask = found if mask is None else mask | found
            except (IndexError, ValueError) as error:
                raise InputError(f"{path}: its frames are not those of its header; export it again") from error
        return ForeignMask(np.zeros((0, 0), dtype=np.uint8) if mask is None else mask, np.array([0, 1]))

    return read
