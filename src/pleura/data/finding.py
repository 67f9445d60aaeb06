"""Finds radiographs among files, folders and patterns, and counts the files that are none."""

from __future__ import annotations

import glob
import os
import stat
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pleura.dicom.instance import MANUFACTURER
from pleura.dicom.parse import BARE, class_and_maker, header_uid
from pleura.dicom.uids import IMPLEMENTATION_CLASS_UID
from pleura.errors import InputError
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
_KINDS_SHOWN = 4


@dataclass(frozen=True)
class Located:
    """A file, and the folder of the input that it was found under."""

    path: Path
    base: Path

    @property
    def relative(self) -> str:
        """The path below the input: slashes, Unicode form NFC, and the file's suffix."""
        path = self.path.relative_to(self.base) if self.path.is_relative_to(self.base) else Path(self.path.name)
        return unicodedata.normalize("NFC", path.as_posix())


@dataclass
class Found:
    """The radiographs that inputs name."""

    radiographs: list[Located] = field(default_factory=list)
    """By path, each real file once."""
    passed_over: Counter[str] = field(default_factory=Counter)
    """How many files are no radiographs, by suffix or in words."""
    unreadable: list[tuple[Path, str]] = field(default_factory=list)
    """(folder, reason) of those that could not be entered."""

    def in_words(self) -> str:
        """What was passed over, in one line; empty where nothing was."""
        if not (count := self.passed_over.total()):
            return ""
        kinds = [f"{number} {kind}" for kind, number in self.passed_over.most_common(_KINDS_SHOWN)]
        more = ", ..." if len(self.passed_over) > _KINDS_SHOWN else ""
        those = "file is no radiograph" if count == 1 else "files are no radiographs"
        return f"{count} {those} ({', '.join(kinds)}{more})"


def find_radiographs(inputs: Iterable[Path | str], apart_from: Collection[Path] = ()) -> Found:
    """Find the radiographs that files, folders and patterns name.

    A file that an input names is always taken. Folders, linked ones too, are searched to any depth for DICOM (by
    content, whatever the suffix), for .png, .jpg and .jpeg, and for whatever is named .dcm or .dicom. A DICOM file
    without preamble counts if a SOP Instance UID can be read at its beginning. Hidden files, DICOMDIR, masks, overlays
    and DICOM objects that pleura wrote, also where they come back from an archive, and anyone's segmentations,
    presentation states, reports and documents are left out. An input that exists is no pattern; the matches of a
    pattern are filtered like the files of a folder.

    apart_from: files to leave out without counting them. Raises: InputError where an input names no radiograph.
    """
    found, seen = Found(), {os.path.realpath(path) for path in apart_from}
    by_path: dict[str, Located] = {}
    for name in inputs:
        before, own = found.passed_over.total(), 0
        for located, outright in _matches(name, found.unreadable):
            real = os.path.realpath(located.path)
            if real in by_path:
                own += 1
            elif real not in seen and (outright or _is_radiograph(located.path, found.passed_over)):
                own += 1
                by_path[real] = located
            seen.add(real)
        if not own:
            there = f" ({found.in_words()})" if found.passed_over.total() > before else ""
            raise InputError(
                f"no radiograph found in {name}{there}; give DICOM, PNG or JPEG files, folders or patterns"
            )
    found.radiographs = sorted(by_path.values(), key=lambda located: located.path)
    return found


def walk(folder: Path, unreadable: list[tuple[Path, str]] | None = None) -> Iterator[Path]:
    """Yield every file below a folder that is not hidden, in order; linked folders are entered, each real one once.

    A folder's own name comes before the names of links to it, so that it is found where it lies. `unreadable` gets the
    folders that cannot be entered, with the reason.
    """
    waiting, linked, entered = [folder], list[Path](), set[str]()
    while waiting or linked:
        parent = waiting.pop(0) if waiting else linked.pop(0)
        real = os.path.realpath(parent)
        if real in entered:
            continue
        entered.add(real)
        try:
            with os.scandir(parent) as listed:
                entries = sorted(
                    (entry for entry in listed if not entry.name.startswith(".")), key=lambda one: one.name
                )
        except OSError as error:
            if unreadable is not None:
                unreadable.append((parent, f"cannot be entered ({error.strerror or error})"))
            continue
        folders = [entry for entry in entries if _is_folder(entry)]
        waiting[:0] = [Path(parent, entry.name) for entry in folders if not entry.is_symlink()]
        linked += [Path(parent, entry.name) for entry in folders if entry.is_symlink()]
        yield from (Path(parent, entry.name) for entry in entries if not _is_folder(entry))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _matches(name: Path | str, unreadable: list[tuple[Path, str]]) -> Iterator[tuple[Located, bool]]:
    """Yield what one input names, and whether it names it outright."""
    path = Path(name)
    if os.path.exists(path) and not os.path.isdir(path):
        yield Located(path, path.parent), True
        return
    parts = path.parts
    base = Path(parts[0]) if path.anchor else Path()
    first = 1 if path.anchor else 0
    while first < len(parts) and os.path.lexists(base / parts[first]):
        base, first = base / parts[first], first + 1
    for match in _expand(base, parts[first:]):
        if os.path.isdir(match):
            yield from ((Located(file, base), False) for file in walk(match, unreadable))
        elif os.path.lexists(match):
            yield Located(match, base), False


def _expand(base: Path, parts: tuple[str, ...]) -> Iterator[Path]:
    """Yield the paths that a pattern names below a folder; a part that exists is a name, whatever signs it has."""
    if not parts:
        yield base
        return
    first, rest = parts[0], parts[1:]
    if os.path.lexists(base / first):
        yield from _expand(base / first, rest)
    elif first == "**" and rest:
        folders = {base: None, **{parent: None for file in walk(base) for parent in _between(file, base)}}
        for folder in folders:
            yield from _expand(folder, rest)
    elif glob.has_magic(first):
        for name in sorted(glob.glob("*" if first == "**" else first, root_dir=base)):
            yield from _expand(base / name, rest)


def _between(file: Path, base: Path) -> Iterator[Path]:
    for parent in file.parents:
        if parent == base:
            return
        yield parent


def _is_radiograph(path: Path, passed_over: Counter[str]) -> bool:
    """Return whether a file from a folder or pattern is a radiograph; count it where it is none and not hidden."""
    if path.name.startswith("."):
        return False
    suffix = path.suffix.lower()
    kind = suffix if suffix and not suffix[1:].isdigit() else "without suffix"
    head = _head(path)
    if head is None:
        wanted = suffix in RADIOGRAPH_SUFFIXES  # reading it refuses it with the reason
    elif _DIRECTORY_CLASS in head or path.name.upper() == "DICOMDIR":
        wanted, kind = False, "DICOMDIR"
    elif (is_file := head[128:132] == b"DICM") or head[:2] in (b"\x02\x00", BARE):
        other = OWN if is_file and IMPLEMENTATION_CLASS_UID.encode() in head else no_radiograph(path)
        wanted = other is None and (is_file or suffix in RADIOGRAPH_SUFFIXES or header_uid(path) is not None)
        kind = other or kind
    elif _OWN_CHUNK in head:
        wanted, kind = False, OWN
    else:
        wanted = suffix in RADIOGRAPH_SUFFIXES
    if not wanted:
        passed_over[kind] += 1
    return wanted


def no_radiograph(path: Path) -> str | None:
    """Return what a DICOM file is by its class, where that is no radiograph; None for any other."""
    sop_class_uid, maker = class_and_maker(path)
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
