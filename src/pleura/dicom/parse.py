"""DICOM files opened as datasets, once they are known to be safe to read."""

from __future__ import annotations

import io
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pydicom
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag, Tag

from pleura.dicom.header import integer, text
from pleura.dicom.limits import check_size, max_bytes
from pleura.errors import InputError, excerpt

# What pydicom and its decoders raise on damaged files; any other exception is a bug and stays visible.
DAMAGE: tuple[type[Exception], ...] = (
    *(ArithmeticError, AttributeError, EOFError, ImportError, LookupError, MemoryError, OSError, RuntimeError),
    *(SyntaxError, TypeError, ValueError, BytesLengthException, InvalidDicomError, struct.error, zlib.error),
)
BARE = b"\x08\x00"
"""How a dataset without file meta information begins: with group 0008, little-endian. Source: DICOM PS3.10 7.1."""
_UNREADABLE: tuple[type[Exception], ...] = (InputError, *DAMAGE)
# Elements beyond this are left on disk while only the header is wanted.
_DEFERRED_BYTES = 2**20
_INFLATED_AT_ONCE = 2**24
_HEAD_BYTES = 2**14
_LONG_VRS = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")

_warnings_lock = threading.Lock()


@contextmanager
def collect_warnings() -> Iterator[list[warnings.WarningMessage]]:
    """Collect what pydicom and Pillow warn about, so that none of it reaches the user.

    The list of filters is global, and two threads that each save and restore it can leave it changed: hence the lock.
    """
    with _warnings_lock, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield caught


def open_dataset(path: Path, caught: list[warnings.WarningMessage]) -> Dataset:
    """Return the dataset of `path`; one without preamble only where it plainly is a DICOM image.

    Raises: InputError; any of `DAMAGE`. Source: DICOM PS3.10 7.1.
    """
    has_preamble = _has_preamble(path)
    if path.stat().st_size > max_bytes():
        _refuse_too_many_bytes(path)
    _refuse_if_it_inflates_too_far(path)
    dataset = pydicom.dcmread(path, force=not has_preamble)
    if any("nd of file" in str(warning.message) for warning in caught):
        raise InputError("the file is truncated; copy or export it again")
    if not has_preamble and not ("SOPClassUID" in dataset and "PixelData" in dataset):
        raise InputError("not a DICOM file, or cut short; give a DICOM, PNG or JPEG radiograph")
    if "PixelData" not in dataset:
        raise InputError("it holds no pixel data (a report, a directory, or cut short); give a radiograph")
    add_transfer_syntax(dataset)
    return dataset


def add_transfer_syntax(dataset: Dataset) -> None:
    """Say in the file meta information of a dataset as read how it is encoded, where its file does not."""
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        explicit = uid.ExplicitVRLittleEndian if little else uid.ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian if implicit else explicit


def is_dataset(value: object) -> bool:
    """Return whether a value is a pydicom Dataset."""
    return isinstance(value, Dataset)


def bytes_of_dataset(dataset: object) -> bytes:
    """Return the bytes of the file that a Dataset is, so that it is read by the rules of files; it is not changed.

    Raises: InputError if it cannot be written, such as one without a transfer syntax.
    """
    if not isinstance(dataset, Dataset):
        raise InputError(f"a Dataset of pydicom is wanted here, not {type(dataset).__name__}")
    buffer = io.BytesIO()
    try:
        with collect_warnings(), pydicom.config.disable_value_validation():
            pydicom.dcmwrite(buffer, dataset, enforce_file_format=False)
    except DAMAGE as error:
        raise InputError(
            f"the Dataset cannot be read as a DICOM file ({excerpt(error)}); give it the file_meta of its file, with "
            "TransferSyntaxUID, or the file itself"
        ) from error
    return buffer.getvalue()


def header_pixels(path: Path) -> int:
    """Return Rows x Columns in the header of a DICOM file, or 0 where they cannot be read.

    Raises: nothing; reading the file refuses it with the reason.
    """
    try:
        with collect_warnings():
            _has_preamble(path)
            _refuse_if_it_inflates_too_far(path)
            header = _header(path, ["Rows", "Columns"])
            return max(0, integer(header, "Rows", 0)) * max(0, integer(header, "Columns", 0))
    except _UNREADABLE:
        return 0


def read_header(path: Path) -> Dataset | None:
    """Return the header of a DICOM file, without its pixels; None where it cannot be read.

    Raises: nothing; reading the file refuses it with the reason.
    """
    try:
        with collect_warnings():
            _has_preamble(path)
            _refuse_if_it_inflates_too_far(path)
            return _header(path)
    except _UNREADABLE:
        return None


def header_uid(path: Path) -> str | None:
    """Return the SOP Instance UID of a DICOM file by its first elements, or None where it has none that is a UID.

    Raises: nothing; reading the file refuses it with the reason. Source: DICOM PS3.5 9.1 (UIDs).
    """
    return valid_uid(_first_texts(path, "SOPInstanceUID")[0])


def class_and_maker(path: Path) -> tuple[str | None, str | None]:
    """Return SOP Class UID and Manufacturer of a DICOM file by its first elements; None for what it does not say.

    An archive writes file meta information of its own, or none; what the dataset says, it keeps. Raises: nothing.
    """
    sop_class_uid, maker = _first_texts(path, "SOPClassUID", "Manufacturer")
    return sop_class_uid, maker


class HeaderFacts(NamedTuple):
    """What tells a radiograph from other DICOM files, and one radiograph from another."""

    sop_class_uid: str | None
    maker: str | None
    uid: str | None
    """SOP Instance UID."""
    pixels: int
    """Rows x Columns; 0 where they cannot be read."""


def header_facts(path: Path) -> HeaderFacts:
    """Return what `class_and_maker`, `header_uid` and `header_pixels` do, as a rule by reading the file once.

    Raises: nothing.
    """
    with suppress(*_UNREADABLE), collect_warnings():
        header = _up_to_the_last(path, "SOPClassUID", "SOPInstanceUID", "Manufacturer", "Rows", "Columns")
        sop_class_uid, maker = text(header, "SOPClassUID"), text(header, "Manufacturer")
        if pixels := max(0, integer(header, "Rows", 0)) * max(0, integer(header, "Columns", 0)):
            return HeaderFacts(sop_class_uid, maker, valid_uid(text(header, "SOPInstanceUID")), pixels)
    # Cut short, say, or with elements out of order: each as far as it can be read.
    return HeaderFacts(*class_and_maker(path), header_uid(path), header_pixels(path))


def _first_texts(path: Path, *keywords: str) -> list[str | None]:
    """Return text attributes of a DICOM file, read up to the last of `keywords`, which are in the order of their tags.

    All are None where it cannot be read so far.
    """
    try:
        with collect_warnings():
            header = _up_to_the_last(path, *keywords)
            return [text(header, keyword) for keyword in keywords]
    except _UNREADABLE:
        return [None] * len(keywords)


def _up_to_the_last(path: Path, *keywords: str) -> Dataset:
    """Return attributes of a DICOM file, read up to the last of `keywords`. Raises: errors in `_UNREADABLE`."""
    tags: list[BaseTag | int] = [Tag(keyword) for keyword in keywords]
    _has_preamble(path)
    _refuse_if_it_inflates_too_far(path)
    with path.open("rb") as file:
        return read_partial(file, lambda tag, _, __: bool(tag > tags[-1]), force=True, specific_tags=tags)


def valid_uid(value: str | None) -> str | None:
    """Return `value` where it is a UID: numbers and dots, at most 64 of both. Source: DICOM PS3.5 9.1."""
    return value if value and len(value) <= 64 and re.fullmatch(r"[0-9]+(\.[0-9]+)+", value) else None


def refuse_unless_one_grey_image(dataset: Dataset) -> None:
    """Check the attributes that determine how the pixels are read.

    Raises: InputError. Source: DICOM PS3.3 C.7.6.3.
    """
    frames = integer(dataset, "NumberOfFrames", 1)
    if frames > 1:
        raise InputError(f"it holds {frames} frames; export one radiograph per file")
    samples, photometric = integer(dataset, "SamplesPerPixel", 1), text(dataset, "PhotometricInterpretation")
    if samples != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        kind = f"{excerpt(photometric or 'no photometric interpretation')}, {samples} sample(s) per pixel"
        raise InputError(f"not a greyscale image ({kind}); export the original radiograph")
    check_size(integer(dataset, "Rows", 0), integer(dataset, "Columns", 0))
    allocated, stored = integer(dataset, "BitsAllocated", 0), integer(dataset, "BitsStored", 0)
    high_bit = integer(dataset, "HighBit", stored - 1)
    if allocated not in (8, 16) or not 1 <= stored <= allocated or high_bit != stored - 1:
        bits = f"Bits Allocated {allocated}, Bits Stored {stored}, High Bit {high_bit}"
        raise InputError(f"its bits do not fit together ({bits}); export it again")
    if integer(dataset, "PixelRepresentation", 0) not in (0, 1):
        raise InputError("Pixel Representation is neither 0 nor 1; export it again")


def _has_preamble(path: Path) -> bool:
    """Return whether a file has DICOM's preamble. Raises: InputError where it cannot be a DICOM file."""
    try:
        with path.open("rb") as file:
            head = file.read(132)
    except OSError as error:
        raise InputError(f"{(error.strerror or str(error)).lower()}; check the path") from error
    if not head:
        raise InputError("the file is empty; copy or export it again")
    has_preamble = head[128:132] == b"DICM"
    if not has_preamble and head[:2] not in (b"\x02\x00", BARE):
        raise InputError("not a DICOM file; give a DICOM, PNG or JPEG radiograph")
    return has_preamble


def _header(path: Path, keywords: list[str] | None = None) -> Dataset:
    """Return the dataset of `path` without its pixels, and with no long element in memory."""
    return pydicom.dcmread(
        path, defer_size=_DEFERRED_BYTES, stop_before_pixels=True, force=True, specific_tags=keywords
    )


def _refuse_too_many_bytes(path: Path) -> None:
    """Refuse a file that is far larger than a radiograph, by its header. Raises: InputError."""
    refuse_unless_one_grey_image(_header(path))
    megabytes, most = path.stat().st_size // 10**6, max_bytes() // 10**6
    raise InputError(f"its {megabytes} MB are more than the {most} MB that a radiograph may have; export it again")


def _refuse_if_it_inflates_too_far(path: Path) -> None:
    """Refuse a deflated dataset that would fill the memory, by inflating it piece by piece and keeping nothing.

    Raises: InputError; any of `DAMAGE`. Source: DICOM PS3.5 A.5, PS3.10 7.1.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        if not _says_deflated(head):
            return
        file.seek(_end_of_meta(head))
        inflater, room = zlib.decompressobj(-zlib.MAX_WBITS), max_bytes()
        while not inflater.eof and (piece := inflater.unconsumed_tail or file.read(_INFLATED_AT_ONCE)):
            room -= len(inflater.decompress(piece, _INFLATED_AT_ONCE))
            if room < 0:
                most = max_bytes() // 10**6
                raise InputError(f"it inflates to more than the {most} MB that a radiograph may have; export it again")


def is_deflated(path: Path) -> bool:
    """Return whether the first bytes of a file say that its dataset is deflated. Raises: OSError."""
    with path.open("rb") as file:
        return _says_deflated(file.read(_HEAD_BYTES))


def _says_deflated(head: bytes) -> bool:
    return uid.DeflatedExplicitVRLittleEndian.encode() in head


def _end_of_meta(head: bytes) -> int:
    """Return where the dataset begins, behind the elements of group 0002, which are Explicit VR Little Endian."""
    position = 132 if head[128:132] == b"DICM" else 0
    while head[position : position + 2] == b"\x02\x00":
        if head[position + 4 : position + 6] in _LONG_VRS:
            position += 12 + struct.unpack_from("<L", head, position + 8)[0]
        else:
            position += 8 + struct.unpack_from("<H", head, position + 6)[0]
    return position
