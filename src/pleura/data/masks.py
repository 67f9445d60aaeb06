"""Masks of any origin, read one image at a time: csv files of runs, folders of PNG, DICOM-SEG, datasets.

Every command reads masks by `open_masks`; the forms are read by `mask_csv`, `mask_png` and `dicom.seg_reading`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from pleura.data import rle
from pleura.data.dataset import CARD, Dataset
from pleura.data.finding import walk
from pleura.data.ids import as_name
from pleura.data.mask_csv import damage, read_table
from pleura.data.mask_png import read_mask_png
from pleura.dicom.parse import BARE, class_and_maker
from pleura.dicom.seg_reading import Segmentation, choose, read_segmentation, segmentation_pixels
from pleura.errors import InputError, RLEError, excerpt
from pleura.files import DICOM_SUFFIXES

OTHER_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".pgm", ".pbm", ".ppm"),
    *(".npy", ".npz", ".nii", ".gz", ".nrrd", ".mha", ".mat"),
)
"""Formats of masks that are not read. They are refused: left out, they would become negatives."""
_PNG, _DICOM = b"\x89PNG\r\n\x1a\n", b"DICM"
Shape: TypeAlias = tuple[int, int]


@dataclass(frozen=True)
class FoundMask:
    """One mask, as read."""

    mask: NDArray[np.uint8]
    """(H, W) in {0, 1}."""
    levels: NDArray[np.generic]
    """The distinct values that the file holds, (n,)."""


@dataclass(frozen=True)
class Runs:
    """A mask as run-length strings, not decoded yet."""

    path: Path
    name: str
    texts: tuple[str, ...]
    own: Shape | None = None
    """(rows, columns) of the grid that the runs count, where the source defines it."""
    original: Shape | None = None
    """(rows, columns) of the radiograph that a dataset's square was made from."""
    aspect: float = 1.0
    """How many times as high as wide its pixels are."""

    @property
    def is_empty(self) -> bool:
        """Whether it is known to be empty without being read."""
        return set(self.texts) == {rle.EMPTY}

    @property
    def files(self) -> tuple[Path, ...]:
        """Files of this mask alone."""
        return ()

    def read(self, shape: Shape | None = None) -> FoundMask:
        """The mask on its own grid, or `shape`, or 1024 x 1024. Raises: InputError if it is damaged."""
        rows, columns = self.own or shape or (rle.SIIM_SIDE_PX, rle.SIIM_SIDE_PX)
        try:
            return FoundMask(rle.decode_union(self.texts, (rows, columns)), np.array([0, 1]))
        except RLEError as error:
            hint = next((found for text in self.texts if (found := damage(text))), "")
            hint = hint or f"do they count {rows} x {columns} px (--grid), from the end of the last run, as SIIM's do?"
            raise InputError(f"{self.path}: the runs of {excerpt(self.name)}: {error}; {hint}") from error


@dataclass(frozen=True)
class PngFile:
    """A mask as a PNG."""

    path: Path
    is_empty: bool = field(default=False, init=False)

    @property
    def files(self) -> tuple[Path, ...]:
        """Files of this mask alone."""
        return (self.path,)

    def read(self, _: Shape | None = None) -> FoundMask:
        """The mask. Raises: InputError if it is damaged or ambiguous."""
        return FoundMask(*read_mask_png(self.path))


@dataclass(frozen=True)
class Part:
    """Frames of one DICOM segmentation that outline one image."""

    path: Path
    frames: tuple[int, ...]
    labels: tuple[int, ...] = ()
    """Of a label map, the numbers that are mask in these frames."""


@dataclass(frozen=True)
class Frames:
    """A mask as frames of DICOM segmentations, which are united."""

    path: Path
    parts: tuple[Part, ...]
    shape: Shape
    """(rows, columns) of a mask without frames."""

    @property
    def is_empty(self) -> bool:
        """Whether no frame shows it."""
        return not any(part.frames for part in self.parts)

    @property
    def files(self) -> tuple[Path, ...]:
        """Files that it is in."""
        return tuple(part.path for part in self.parts)

    def read(self, _: Shape | None = None) -> FoundMask:
        """The mask. Raises: InputError if a file is damaged."""
        mask: NDArray[np.uint8] | None = None
        for part in self.parts:
            try:
                frames = _pixels(part.path)[list(part.frames)]
                shown = np.isin(frames, part.labels) if part.labels else frames != 0
                found = np.asarray(shown.any(axis=0), dtype=np.uint8)
                mask = found if mask is None else mask | found
            except (IndexError, ValueError) as error:
                raise InputError(f"{part.path}: its frames are not those of its header; export it again") from error
        return FoundMask(np.zeros(self.shape, dtype=np.uint8) if mask is None else mask, np.array([0, 1]))


@lru_cache(maxsize=1)
def _pixels(path: Path) -> NDArray[np.integer]:
    """The pixels of the file that was read last: a file can outline many images."""
    return segmentation_pixels(path)


AnyMask: TypeAlias = Runs | PngFile | Frames


@dataclass
class MaskSource:
    """Masks by the name of their image, each read when it is used; only the texts of a csv are in memory."""

    path: Path
    kind: str
    """In words: what the path holds."""
    masks: dict[str, AnyMask]
    aliases: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Other names that a mask goes by: of DICOM-SEG the file's, where it outlines one image."""
    patients: dict[str, str] = field(default_factory=dict)
    """Name -> patient, where the source has patients."""
    blank: list[str] = field(default_factory=list)
    """Images whose cell of a csv is without text: each counts as the empty mask."""
    cut: list[str] = field(default_factory=list)
    """Images whose cell of a csv is as long as a spreadsheet allows: its end may be missing."""
    without_segment: list[str] = field(default_factory=list)
    """Of DICOM-SEG: images without the chosen segment: each counts as the empty mask."""
    without_frame: list[str] = field(default_factory=list)
    """Of DICOM-SEG: images that a file references and shows in no frame: each counts as the empty mask."""
    fractional: list[str] = field(default_factory=list)
    """Of DICOM-SEG: images with a mask that was cut at a half of its probability or occupancy."""
    united: list[str] = field(default_factory=list)
    """Of DICOM-SEG: images that several files outline: their masks are united."""

    @property
    def names(self) -> dict[str, tuple[str, ...]]:
        """Every name with its aliases: what `pair` takes."""
        return {name: self.aliases.get(name, ()) for name in self.masks}

    def known_empty(self, name: str) -> bool:
        """Whether the mask is known to be empty, or there is none, without reading it."""
        return name not in self.masks or self.masks[name].is_empty


def open_masks(path: Path, grid: Shape | None = None, segments: Sequence[str] = ()) -> MaskSource:
    """Open a csv of runs, mask PNGs or DICOM-SEG (a file or a folder), or a dataset of `pleura prepare`.

    grid: (rows, columns) of the grid that the runs of a csv count; None: 1024 x 1024, or the grid of their image.
    segments: of DICOM-SEG, number or label of those that outline a pneumothorax; see `choose`.
    Raises: InputError for a missing path, a folder without masks or of several kinds, a csv that is none, a damaged
    header, or segments among which the choice is open.
    """
    if (path / CARD).is_file():
        return _of_dataset(path)
    if not path.exists():
        raise InputError(f"{path}: there is no such csv or folder of masks")
    kinds = mask_files(path)
    there = [kind for kind, files in kinds.items() if files]
    if kinds["other"]:
        example = kinds["other"][0].name
        raise InputError(
            f"{path}: holds {len(kinds['other'])} files that are no masks here ({example}); save masks as PNG, without "
            "loss, in a folder of their own"
        )
    if len(there) > 1:
        raise InputError(f"{path}: holds both PNG and DICOM files; give a folder of one kind")
    if kinds["PNG"]:
        return _of_pngs(path, kinds["PNG"])
    if kinds["DICOM"]:
        return _of_segmentations(path, kinds["DICOM"], segments)
    if path.is_dir():
        raise InputError(f"{path}: holds no mask: neither PNG nor DICOM-SEG")
    return _of_csv(path, grid)


def refuse_unused_options(paths: Iterable[Path], of_runs: str | None = None, of_segments: str | None = None) -> None:
    """Refuse an option of csv runs, or of DICOM-SEG, where no path holds such masks.

    of_runs, of_segments: names of the options in use. Raises: InputError.
    """
    forms = {_form(path) for path in paths}
    for option, form, what in ((of_runs, "csv", "the runs of a csv"), (of_segments, "DICOM", "DICOM-SEG")):
        if option and form not in forms:
            raise InputError(f"{option}: does nothing: it is of {what}, and no masks here are such; leave it out")


def _form(path: Path) -> str:
    if (path / CARD).is_file():
        return "dataset"
    return next((kind for kind, files in mask_files(path).items() if files), "csv")


def mask_files(path: Path) -> dict[str, list[Path]]:
    """The files that a path is or holds to any depth, by kind: PNG, DICOM, and other forms of images, sorted."""
    kinds: dict[str, list[Path]] = {"PNG": [], "DICOM": [], "other": []}
    for file in sorted(walk(path)) if path.is_dir() else [path]:
        if (kind := _kind(file)) is not None:
            kinds[kind].append(file)
    return kinds


def _kind(file: Path) -> str | None:
    """PNG, DICOM or other, by suffix, or by content where the suffix is of neither; None for what is no mask."""
    suffix = file.suffix.lower()
    if suffix == ".png":
        return "PNG"
    if suffix in DICOM_SUFFIXES:
        return "DICOM"
    if suffix in OTHER_SUFFIXES:
        return "other"
    try:
        with file.open("rb") as opened:
            head = opened.read(132)
    except OSError:
        return None
    if head.startswith(_PNG):
        return "PNG"
    is_bare = head.startswith(BARE) and class_and_maker(file)[0] is not None
    return "DICOM" if head[128:] == _DICOM or is_bare else None


def _of_dataset(path: Path) -> MaskSource:
    dataset = Dataset(path)
    own = (dataset.size_px, dataset.size_px)
    masks: dict[str, AnyMask] = {
        case.image_id: Runs(path, case.image_id, (case.mask_rle,), own, (case.rows, case.columns), case.pixel_aspect)
        for case in dataset.cases
        if case.role is None
    }
    patients = {case.image_id: case.patient for case in dataset.cases if case.patient}
    aliases: dict[str, tuple[str, ...]] = {case.image_id: (case.source,) for case in dataset.cases if case.source}
    return MaskSource(path, "dataset", masks, aliases, patients)


def _of_csv(path: Path, grid: Shape | None) -> MaskSource:
    table = read_table(path)
    masks: dict[str, AnyMask] = {name: Runs(path, name, tuple(texts), grid) for name, texts in table.runs.items()}
    return MaskSource(path, "csv", masks, blank=table.blank, cut=table.cut)


def _name(path: Path, file: Path) -> str:
    """A file's path below `path`, without suffix, its folders divided by /."""
    inside = as_name(file.relative_to(path).as_posix() if file != path else file.name)
    return inside[: -len(file.suffix)] if file.suffix.lower() in (".png", *DICOM_SUFFIXES) else inside


def _of_pngs(path: Path, files: Sequence[Path]) -> MaskSource:
    masks: dict[str, AnyMask] = {}
    for file in files:
        if (name := _name(path, file)) in masks:
            raise InputError(f"{file}: {masks[name].path} is a mask of the same image too; keep one")
        masks[name] = PngFile(file)
    return MaskSource(path, "folder of PNG masks", masks)


def _of_segmentations(path: Path, files: Sequence[Path], wanted: Sequence[str]) -> MaskSource:
    every = [read_segmentation(file) for file in files]
    chosen = choose(every, wanted)
    parts: dict[str, list[Part]] = {}
    aliases: dict[str, tuple[str, ...]] = {}
    shapes: dict[str, Shape] = {}
    shown, framed, fractional = set[str](), set[str](), list[str]()
    for found in every:
        name = _name(path, found.path)
        for uid, by_segment in found.frames.items():
            key, numbers = uid or name, chosen[found.path]
            frames = sorted({frame for number in numbers for frame in by_segment.get(number, ())})
            labels = tuple(sorted(numbers)) if found.kind == "LABELMAP" else ()
            parts.setdefault(key, []).append(Part(found.path, tuple(frames), labels))
            shapes.setdefault(key, (found.rows, found.columns))
            shown |= {key} if numbers else set()
            framed |= {key} if by_segment else set()
            fractional += [f"{key}, of {found.fraction_of}"] if found.kind == "FRACTIONAL" and frames else []
        if (only := _only_image(found)) is not None:
            aliases[only] = (*aliases.get(only, ()), name)
    masks: dict[str, AnyMask] = {
        key: Frames(where[0].path, tuple(part for part in where if part.frames), shapes[key])
        for key, where in parts.items()
    }
    return MaskSource(
        path,
        "DICOM-SEG",
        masks,
        aliases,
        without_segment=[key for key in masks if key not in shown],
        without_frame=[key for key in masks if key in shown and key not in framed],
        fractional=fractional,
        united=[key for key, where in parts.items() if sum(bool(part.frames) for part in where) > 1],
    )


def _only_image(found: Segmentation) -> str | None:
    return next(iter(found.frames)) if len(found.frames) == 1 and "" not in found.frames else None
