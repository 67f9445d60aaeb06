"""What a file is by its first bytes: a radiograph, or something else, and what else these bytes say of it."""

from __future__ import annotations

import stat
from pathlib import Path, PurePath
from typing import NamedTuple

from pleura.data.picture import is_picture, picture_pixels
from pleura.dicom.instance import MANUFACTURER
from pleura.dicom.parse import BARE, class_and_maker, header_facts, header_pixels, header_uid, is_deflated
from pleura.dicom.uids import IMPLEMENTATION_CLASS_UID
from pleura.files import RADIOGRAPH_SUFFIXES

OWN_SOFTWARE = MANUFACTURER
"""The chunk `Software` of the PNG files that pleura writes: a PNG with it is no radiograph."""
_OWN_CHUNK = b"tEXtSoftware\0" + OWN_SOFTWARE.encode()
OWN = "written by pleura"
_DIRECTORY_CLASS = b"1.2.840.10008.1.3.10"
_STORAGE = "1.2.840.10008.5.1.4.1.1."
_SECONDARY_CAPTURE = f"{_STORAGE}7"
NO_RADIOGRAPHS = {f"{_STORAGE}66.": "SEG", f"{_STORAGE}11.": "PR", f"{_STORAGE}88.": "SR", f"{_STORAGE}104.": "DOC"}
"""Beginnings of SOP Class UIDs: segmentations and registrations, presentation states, reports, documents. Source: DICOM
PS3.4 B.5."""
_HEAD_BYTES = 512


def uid_of(path: Path) -> str | None:
    """Return the SOP Instance UID of a DICOM file; None where it has none, and of a picture."""
    return None if is_picture(path) else header_uid(path)


def pixels_of_file(path: Path) -> int:
    """Return Rows x Columns by a file's header, without decoding anything; 0 where it cannot be read."""
    return picture_pixels(path) if is_picture(path) else header_pixels(path)


class Beginning(NamedTuple):
    """What the beginning of a file says."""

    is_radiograph: bool
    kind: str
    """As what it is counted where it is none."""
    uid: str | None = None
    """Of a radiograph, as `uid_of`."""
    pixels: int = 0
    """Of a radiograph, as `pixels_of_file`."""
    is_deflated: bool = False
    """How far it inflates, the beginning does not say."""


def beginning_of(path: Path, name: str) -> Beginning:
    """Return whether a file from a folder or pattern is a radiograph, and what else its beginning says.

    path: of its content, or of the beginning of that. name: its own.
    """
    suffix = PurePath(name).suffix.lower()
    kind = suffix if suffix and not suffix[1:].isdigit() else "without suffix"
    head = _head(path)
    if head is None:
        return Beginning(suffix in RADIOGRAPH_SUFFIXES, kind)  # reading it refuses it with the reason
    if _DIRECTORY_CLASS in head or name.upper() == "DICOMDIR":
        return Beginning(False, "DICOMDIR")
    if (is_file := head[128:132] == b"DICM") or head[:2] in (b"\x02\x00", BARE):
        if is_file and IMPLEMENTATION_CLASS_UID.encode() in head:
            return Beginning(False, OWN)
        facts = header_facts(path)
        other = _other_kind(facts.sop_class_uid, facts.maker)
        if other is None and (is_file or suffix in RADIOGRAPH_SUFFIXES or facts.uid is not None):
            return Beginning(True, kind, facts.uid, facts.pixels, is_deflated(path))
        return Beginning(False, other or kind)
    if _OWN_CHUNK in head:
        return Beginning(False, OWN)
    is_radiograph = suffix in RADIOGRAPH_SUFFIXES
    return Beginning(is_radiograph, kind, pixels=picture_pixels(path) if is_radiograph and is_picture(path) else 0)


def no_radiograph(path: Path) -> str | None:
    """Return what a DICOM file is by its class, where that is no radiograph; None for any other."""
    return _other_kind(*class_and_maker(path))


def _other_kind(sop_class_uid: str | None, maker: str | None) -> str | None:
    if sop_class_uid is None:
        return None
    kind = next((word for start, word in NO_RADIOGRAPHS.items() if sop_class_uid.startswith(start)), None)
    # Phantoms are of this maker too, and radiographs.
    is_own = maker == MANUFACTURER and (kind is not None or sop_class_uid == _SECONDARY_CAPTURE)
    return OWN if is_own else kind


def _head(path: Path) -> bytes | None:
    """The first bytes of a file, or None where it is no regular file or cannot be read."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return None
        with path.open("rb") as file:
            return file.read(_HEAD_BYTES)
    except OSError:
        return None
