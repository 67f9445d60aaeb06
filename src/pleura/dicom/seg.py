"""DICOM segmentations of other tools: which images they outline, what each segment is, and the masks.

Source: DICOM PS3.3 A.51 (Segmentation IOD), C.8.20.2 (Segmentation Image), C.8.20.4 (Segment Description),
C.7.6.16.2.6 (Derivation Image), C.8.20.3.1 (Segment Identification).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pleura.dicom.header import integer, text
from pleura.dicom.parse import DAMAGE, collect_warnings
from pleura.errors import InputError, excerpt

SEGMENTATION_STORAGE = "1.2.840.10008.5.1.4.1.1.66.4"
LABEL_MAP_STORAGE = "1.2.840.10008.5.1.4.1.1.66.7"
PNEUMOTHORAX_CODES = {("SCT", "36118008"), ("SRT", "D2-80300"), ("RADLEX", "RID5352")}
_SAYS = re.compile(r"pneumothora|pneumotora|\bptx\b")
_DENIES = re.compile(r"\b(no|non|not|without|negative)\b")
_MAX_PIXELS = 2**31
"""Of all frames of a file: a header that states more is damaged."""


@dataclass(frozen=True)
class Segment:
    """One segment of a segmentation, as its header describes it."""

    number: int
    label: str
    is_pneumothorax: bool
    """By its label, or by the code of its type."""

    def __str__(self) -> str:
        return f"{self.number} {excerpt(self.label)!r}" if self.label else str(self.number)


@dataclass(frozen=True)
class Segmentation:
    """The header of one segmentation."""

    path: Path
    rows: int
    columns: int
    segments: tuple[Segment, ...]
    """Also those that no frame shows: they are empty."""
    frames: dict[str, dict[int, tuple[int, ...]]]
    """SOP Instance UID of an outlined image -> segment number -> its frames, from 0. Without any UID: under ``."""


def read_segmentation(path: Path) -> Segmentation:
    """Which images a binary DICOM segmentation outlines, segment by segment; its pixels stay on disk.

    A frame belongs to the source image of its own derivation, or else to the file's one referenced image.
    Raises: InputError if the file is damaged, no segmentation, or not binary.
    """
    with _reading(path):
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        _refuse_unless_binary(dataset)
        segments = _segments(dataset)
        frames = _frames(dataset, segments)
        known = {segment.number for segment in segments}
        unnamed = sorted({number for each in frames.values() for number in each} - known)
        segments += tuple(Segment(number, "", is_pneumothorax=False) for number in unnamed)
        rows, columns = integer(dataset, "Rows", 0), integer(dataset, "Columns", 0)
        return Segmentation(path, rows, columns, segments, frames)


def choose(files: Sequence[Segmentation], wanted: Sequence[str] = ()) -> dict[Path, set[int]]:
    """Which segments of each file outline a pneumothorax: path -> segment numbers.

    wanted: segments by number or label, in any case; several in one file are united, and a file
    with none of them has no mask. It counts only where files have several segments, or differ in theirs.
    Without: the only segment, or the only one of each file that is labelled pneumothorax.
    Raises: InputError, with the segments that there are, if none is as wanted, or the choice is open.
    """
    there = [segment for each in files for segment in each.segments]
    if all(len(each.segments) <= 1 for each in files) and len({_plain(segment.label) for segment in there}) <= 1:
        return {each.path: {segment.number for segment in each.segments} for each in files}
    if wanted:
        names = {_plain(word) for word in wanted}
        chosen = {each.path: {s.number for s in each.segments if names & {str(s.number), _plain(s.label)}}
                  for each in files}  # fmt: skip
        if not any(chosen.values()):
            raise InputError(f"{files[0].path}: has no segment {' or '.join(wanted)}; it has {_named(files[0])}")
        return chosen
    chosen = {each.path: {s.number for s in each.segments if s.is_pneumothorax} for each in files}
    for each in files:
        if len(chosen[each.path]) != 1:
            says = "more than one of them is" if chosen[each.path] else "none of them is"
            others = "" if len(each.segments) > 1 else ", and other files have other ones"
            raise InputError(
                f"{each.path}: has the segments {_named(each)}{others}, and {says} said to be pneumothorax; name it "
                "with --segment NUMBER or LABEL"
            )
    return chosen


def _named(found: Segmentation) -> str:
    return ", ".join(map(str, found.segments)) or "none"


def _plain(label: str) -> str:
    return " ".join(unicodedata.normalize("NFC", label).casefold().split())


def _says_pneumothorax(*words: str) -> bool:
    for each in words:
        plain = "".join(c for c in unicodedata.normalize("NFKD", each.casefold()) if not unicodedata.combining(c))
        plain = re.sub(r"[\W_]+", " ", plain)
        if _SAYS.search(plain):
            return not _DENIES.search(plain)
    return False


def _segments(dataset: Dataset) -> tuple[Segment, ...]:
    found: list[Segment] = []
    for item in dataset.get("SegmentSequence") or ():
        label = text(item, "SegmentLabel") or ""
        codes = list(item.get("SegmentedPropertyTypeCodeSequence") or ())
        coded = {(text(code, "CodingSchemeDesignator"), text(code, "CodeValue")) for code in codes}
        meanings = [text(code, "CodeMeaning") or "" for code in codes]
        is_pneumothorax = bool(coded & PNEUMOTHORAX_CODES) or _says_pneumothorax(label, *meanings)
        found.append(Segment(integer(item, "SegmentNumber", len(found) + 1), label, is_pneumothorax))
    if len({segment.number for segment in found}) < len(found):
        raise InputError("two of its segments have the same number; export it again")
    return tuple(found)


def segmentation_pixels(path: Path) -> NDArray[np.uint8]:
    """The frames of a binary DICOM segmentation, (n, rows, columns) uint8 in {0, 1}.

    Raises: InputError if the file is damaged.
    """
    with _reading(path):
        dataset = pydicom.dcmread(path)
        rows, columns = integer(dataset, "Rows", 0), integer(dataset, "Columns", 0)
        count = integer(dataset, "NumberOfFrames", 1)
        if min(rows, columns, count) < 1 or rows * columns * count > _MAX_PIXELS:
            raise InputError(f"{count} frames of {rows} x {columns} pixels are no segmentation; export it again")
        pixels = np.asarray(dataset.pixel_array)
        frames: NDArray[np.uint8] = (pixels.reshape(-1, rows, columns) != 0).astype(np.uint8)
        return frames


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Name the file in what is refused within, and refuse what pydicom finds damaged. Raises: InputError."""
    with collect_warnings():
        try:
            yield
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        except DAMAGE as error:
            reason = excerpt(error) or type(error).__name__
            raise InputError(f"{path}: damaged or no DICOM-SEG ({reason}); export it again") from error


def _refuse_unless_binary(dataset: Dataset) -> None:
    storage = text(dataset, "SOPClassUID")
    if storage == LABEL_MAP_STORAGE:
        raise InputError(
            "is a label map segmentation (SOP class 66.7, one number for each segment), which is not supported; export "
            "it as a binary one (66.4)"
        )
    if storage != SEGMENTATION_STORAGE:
        raise InputError("is a DICOM file, but no segmentation; give DICOM-SEG files, mask PNGs or a SIIM csv")
    kind = text(dataset, "SegmentationType")
    if kind != "BINARY":
        raise InputError(
            f"its segmentation is {excerpt(kind or 'of no type')}, not BINARY; threshold and export it again"
        )


def _frames(dataset: Dataset, segments: Sequence[Segment]) -> dict[str, dict[int, tuple[int, ...]]]:
    of_file = [
        str(instance.ReferencedSOPInstanceUID)
        for series in dataset.get("ReferencedSeriesSequence") or ()
        for instance in series.get("ReferencedInstanceSequence") or ()
    ]
    only = of_file[0] if len(set(of_file)) == 1 else ""
    groups = list(dataset.get("PerFrameFunctionalGroupsSequence") or ())
    shared_groups = list(dataset.get("SharedFunctionalGroupsSequence") or ())
    shared = [uid for group in shared_groups for uid in _sources(group)]
    of_all = next((number for group in shared_groups if (number := _segment_of(group)) is not None), None)
    if of_all is None and len(segments) <= 1:
        of_all = segments[0].number if segments else 1
    found: dict[str, dict[int, list[int]]] = {}
    for frame in range(integer(dataset, "NumberOfFrames", 1)):
        group = groups[frame] if frame < len(groups) else Dataset()
        number, sources = _segment_of(group), _sources(group)
        segment = of_all if number is None else number
        if segment is None:
            raise InputError(f"its frame {frame + 1} does not say which of {len(segments)} segments it shows")
        for uid in sources or shared or [only]:
            found.setdefault(uid, {}).setdefault(segment, []).append(frame)
    return {uid: {number: tuple(each) for number, each in by.items()} for uid, by in found.items()}


def _segment_of(group: Dataset) -> int | None:
    items = group.get("SegmentIdentificationSequence") or ()
    return next((integer(item, "ReferencedSegmentNumber", 0) or None for item in items), None)


def _sources(group: Dataset) -> list[str]:
    images = [
        image
        for derivation in group.get("DerivationImageSequence") or ()
        for image in derivation.get("SourceImageSequence") or ()
    ]
    if any(integer(image, "ReferencedFrameNumber", 1) != 1 for image in images):
        raise InputError("it outlines frames of an image of several; a radiograph has one")
    return [str(image.ReferencedSOPInstanceUID) for image in images]
