"""DICOM segmentations of any tool: which images they outline, what each segment is, and the masks.

Binary ones have a frame of bits for each segment, fractional ones a frame of shares, and label maps one frame with the
numbers of all segments. Frames that show nothing may be left out.
Source: DICOM PS3.3 A.51 (Segmentation IOD), A.85.1 (Label Map Segmentation IOD), C.8.20.2 (Segmentation Image),
C.8.20.4 (Segment Description), C.7.6.16.2.6 (Derivation Image), C.8.20.3.1 (Segment Identification).
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
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.pixels.decoders.base import get_decoder

from pleura.dicom.header import integer, text
from pleura.dicom.parse import BARE, DAMAGE, add_transfer_syntax, collect_warnings
from pleura.errors import InputError, excerpt

SEGMENTATION_STORAGE = "1.2.840.10008.5.1.4.1.1.66.4"
LABEL_MAP_STORAGE = "1.2.840.10008.5.1.4.1.1.66.7"
PNEUMOTHORAX_CODES = {("SCT", "36118008"), ("SRT", "D2-80300"), ("RADLEX", "RID5352")}
# Anatomical Structure, its code of SNOMED RT, and Physical Object. Source: DICOM PS3.16 CID 7150.
_OF_NO_FINDING = {
    ("SCT", "123037004"),
    ("SCT", "91723000"),
    ("SRT", "T-D000A"),
    ("SCT", "260787004"),
    ("SRT", "A-00004"),
}
_KINDS = {SEGMENTATION_STORAGE: ("BINARY", "FRACTIONAL"), LABEL_MAP_STORAGE: ("LABELMAP",)}
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
    other: str = ""
    """What it is by its codes, where that can be no finding at all: an organ, or a device."""

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
    kind: str = "BINARY"
    """Or FRACTIONAL, or LABELMAP."""
    fraction_of: str = ""
    """What a fractional one holds: PROBABILITY or OCCUPANCY."""


def read_segmentation(path: Path) -> Segmentation:
    """Which images a DICOM segmentation outlines, segment by segment; its pixels stay on disk.

    A frame belongs to the source image of its own derivation, or else to the file's one referenced image. An image that
    is referenced and has no frame is outlined by nothing: it has an entry without segments.
    Raises: InputError if the file is damaged, or no segmentation.
    """
    with _reading(path):
        dataset = _dataset(path, stop_before_pixels=True)
        kind = _kind(dataset)
        segments = _segments(dataset, kind)
        frames = _frames(dataset, segments, kind)
        known = {segment.number for segment in segments}
        unnamed = sorted({number for each in frames.values() for number in each} - known)
        segments += tuple(Segment(number, "", is_pneumothorax=False) for number in unnamed)
        rows, columns = integer(dataset, "Rows", 0), integer(dataset, "Columns", 0)
        fraction_of = text(dataset, "SegmentationFractionalType") or "" if kind == "FRACTIONAL" else ""
        return Segmentation(path, rows, columns, segments, frames, kind, excerpt(fraction_of))


def choose(files: Sequence[Segmentation], wanted: Sequence[str] = ()) -> dict[Path, set[int]]:
    """Which segments of each file outline a pneumothorax: path -> segment numbers.

    wanted: segments by number or label, in any case; several in one file are united, and a file
    with none of them has no mask. It counts only where files have several segments, differ in theirs, or have one that
    is by its codes an organ or a device.
    Without: the only segment, or the only one of each file that is labelled or coded pneumothorax.
    Raises: InputError, with the segments that there are, if none is as wanted, or the choice is open.
    """
    there = [segment for each in files for segment in each.segments]
    is_one = all(len(each.segments) <= 1 for each in files) and len({_plain(segment.label) for segment in there}) <= 1
    if is_one and not any(segment.other for segment in there):
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
            others = "" if is_one or len(each.segments) > 1 else ", and other files have other ones"
            raise InputError(
                f"{each.path}: has the segments {_named(each)}{others}, and {says} said to be pneumothorax; name it "
                "with --segment NUMBER or LABEL"
            )
    return chosen


def _named(found: Segmentation) -> str:
    return (
        ", ".join(f"{each} (coded as {each.other})" if each.other else f"{each}" for each in found.segments) or "none"
    )


def _plain(label: str) -> str:
    return " ".join(unicodedata.normalize("NFC", label).casefold().split())


def _says_pneumothorax(*words: str) -> bool:
    for each in words:
        plain = "".join(c for c in unicodedata.normalize("NFKD", each.casefold()) if not unicodedata.combining(c))
        plain = re.sub(r"[\W_]+", " ", plain)
        if _SAYS.search(plain):
            return not _DENIES.search(plain)
    return False


def _segments(dataset: Dataset, kind: str) -> tuple[Segment, ...]:
    """The segments of a header, without the background of a label map."""
    found: list[Segment] = []
    background = integer(dataset, "PixelPaddingValue", 0) if kind == "LABELMAP" else None
    for item in dataset.get("SegmentSequence") or ():
        label = text(item, "SegmentLabel") or ""
        codes, meanings = _codes(item, "SegmentedPropertyTypeCodeSequence")
        is_pneumothorax = bool(codes & PNEUMOTHORAX_CODES) or _says_pneumothorax(label, *meanings)
        categories, named = _codes(item, "SegmentedPropertyCategoryCodeSequence")
        is_other = not is_pneumothorax and bool(categories & _OF_NO_FINDING)
        other = excerpt(next(iter([*meanings, *named]), "an organ or a device")) if is_other else ""
        number = integer(item, "SegmentNumber", len(found) + 1)
        if number != background:
            found.append(Segment(number, label, is_pneumothorax, other))
    if len({segment.number for segment in found}) < len(found):
        raise InputError("two of its segments have the same number; export it again")
    if kind == "LABELMAP" and not dataset.get("SegmentSequence"):
        raise InputError("it is a label map without a Segment Sequence to say what its labels are; export it again")
    return tuple(found)


def _codes(item: Dataset, keyword: str) -> tuple[set[tuple[str | None, str | None]], list[str]]:
    """Return (scheme, value) of the codes of a sequence, and their meanings."""
    codes = list(item.get(keyword) or ())
    meanings = [meaning for code in codes if (meaning := text(code, "CodeMeaning"))]
    return {(text(code, "CodingSchemeDesignator"), text(code, "CodeValue")) for code in codes}, meanings


def segmentation_pixels(path: Path) -> NDArray[np.integer]:
    """The frames of a DICOM segmentation, (n, rows, columns): {0, 1}, or of a label map the numbers of segments.

    Of a fractional one, 1 is where the probability, or the share of the pixel that is covered, is at least a half.
    Raises: InputError if the file is damaged, or compressed in a way that is not read.
    """
    with _reading(path):
        dataset = _dataset(path)
        rows, columns = integer(dataset, "Rows", 0), integer(dataset, "Columns", 0)
        count = integer(dataset, "NumberOfFrames", 1)
        if min(rows, columns, count) < 1 or rows * columns * count > _MAX_PIXELS:
            raise InputError(f"{count} frames of {rows} x {columns} pixels are no segmentation; export it again")
        kind = _kind(dataset)
        frames: NDArray[np.integer] = _stored(dataset).reshape(-1, rows, columns)
        if kind == "LABELMAP":
            _refuse_unnamed_labels(frames, dataset)
            return frames
        full = integer(dataset, "MaximumFractionalValue", 0) if kind == "FRACTIONAL" else 1
        if full < 1:
            raise InputError(f"a fractional segmentation with {full} for its Maximum Fractional Value; export it again")
        return (frames >= -(-full // 2)).astype(np.uint8)  # half of it, rounded up


def _refuse_unnamed_labels(frames: NDArray[np.integer], dataset: Dataset) -> None:
    """Raises: InputError for a label that is neither a segment's number nor the background's."""
    named = [segment.number for segment in _segments(dataset, "LABELMAP")]
    unnamed = np.setdiff1d(frames, [0, integer(dataset, "PixelPaddingValue", 0), *named])
    if len(unnamed):
        names = excerpt(", ".join(map(str, named)) or "none")
        raise InputError(
            f"its pixels have the label {unnamed[0]}, and its Segment Sequence names {names}; export it again"
        )


def _dataset(path: Path, stop_before_pixels: bool = False) -> Dataset:
    """Return the dataset of a file, also of one without file meta information. Raises: OSError; any of `DAMAGE`."""
    with path.open("rb") as file:
        is_bare = file.read(2) == BARE
    dataset = pydicom.dcmread(path, force=is_bare, stop_before_pixels=stop_before_pixels)
    add_transfer_syntax(dataset)
    return dataset


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


def _stored(dataset: Dataset) -> NDArray[np.integer]:
    """The values of all frames. Raises: InputError for a compression that no decoder here reads; any of `DAMAGE`."""
    syntax = uid.UID(dataset.file_meta.TransferSyntaxUID)
    if syntax.is_encapsulated and not _has_decoder(syntax):
        raise InputError(f"its pixels are compressed as {syntax.name}; export it without compression")
    if syntax in (uid.JPEG2000Lossless, uid.JPEG2000):
        dataset.pixel_array_options(decoding_plugin="pillow")  # GDCM ends the process on some damaged files
    return np.asarray(dataset.pixel_array)


def _has_decoder(syntax: uid.UID) -> bool:
    try:
        return bool(get_decoder(syntax).is_available)
    except NotImplementedError:
        return False


def _kind(dataset: Dataset) -> str:
    """BINARY, FRACTIONAL or LABELMAP. Raises: InputError for what is no segmentation, or of no such type."""
    storage = text(dataset, "SOPClassUID")
    if storage not in _KINDS:
        raise InputError("is a DICOM file, but no segmentation; give DICOM-SEG files, mask PNGs or a SIIM csv")
    kind = text(dataset, "SegmentationType")
    if kind not in _KINDS[storage]:
        wanted = " or ".join(_KINDS[storage])
        raise InputError(f"its segmentation is {excerpt(kind or 'of no type')}, not {wanted}; export it again")
    return kind


def _frames(dataset: Dataset, segments: Sequence[Segment], kind: str) -> dict[str, dict[int, tuple[int, ...]]]:
    of_file = list(
        dict.fromkeys(
            str(instance.ReferencedSOPInstanceUID)
            for series in dataset.get("ReferencedSeriesSequence") or ()
            for instance in series.get("ReferencedInstanceSequence") or ()
        )
    )
    groups = list(dataset.get("PerFrameFunctionalGroupsSequence") or ())
    shared_groups = list(dataset.get("SharedFunctionalGroupsSequence") or ())
    shared = [source for group in shared_groups for source in _sources(group)]
    of_all = next((number for group in shared_groups if (number := _segment_of(group)) is not None), None)
    if of_all is None and len(segments) <= 1:
        of_all = segments[0].number if segments else 1
    found: dict[str, dict[int, list[int]]] = {}
    for frame in range(integer(dataset, "NumberOfFrames", 1)):
        group = groups[frame] if frame < len(groups) else Dataset()
        number, sources = _segment_of(group), _sources(group) or shared or of_file or [""]
        segment = number or of_all
        if segment is None and kind != "LABELMAP":
            raise InputError(f"its frame {frame + 1} does not say which of {len(segments)} segments it shows")
        shown = [segment] if segment is not None and kind != "LABELMAP" else [each.number for each in segments]
        if len(sources) > 1 and sources is of_file:
            raise InputError(f"its frame {frame + 1} does not say which of {len(of_file)} images it outlines")
        for source in sources:
            found.setdefault(source, {})
            for each in shown:
                found[source].setdefault(each, []).append(frame)
    every = dict.fromkeys((*found, *of_file)) or {"": None}
    return {source: {number: tuple(each) for number, each in found.get(source, {}).items()} for source in every}


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
