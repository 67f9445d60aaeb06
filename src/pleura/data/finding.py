"""Finds radiographs among files, folders and patterns, and counts the files that are none."""

from __future__ import annotations

import glob
import os
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from pleura.data.classify import Beginning, beginning_of
from pleura.data.objects import Heads, objects_of
from pleura.errors import InputError
from pleura.urls.url import Place, Url, order, place_of

_KINDS_SHOWN = 4


@dataclass(frozen=True)
class Located:
    """A file or object, and the folder of the input that it was found under."""

    path: Place
    base: Place
    beginning: Beginning | None = field(default=None, compare=False)
    """What the beginning of a file says, where it was looked at; an object has its head."""

    @property
    def relative(self) -> str:
        """The path below the input: slashes, Unicode form NFC, and the file's suffix."""
        path = Path(self.path.name)
        if isinstance(self.path, Url) and isinstance(self.base, Url):
            path = Path(*self.path.parts[len(self.base.parts) :])
        elif isinstance(self.path, Path) and isinstance(self.base, Path) and self.path.is_relative_to(self.base):
            path = self.path.relative_to(self.base)
        return unicodedata.normalize("NFC", path.as_posix())


@dataclass
class Found:
    """The radiographs that inputs name."""

    radiographs: list[Located] = field(default_factory=list)
    """By path, each real file once."""
    passed_over: Counter[str] = field(default_factory=Counter)
    """How many files are no radiographs, by suffix or in words."""
    unreadable: list[tuple[Place, str]] = field(default_factory=list)
    """(folder, reason) of those that could not be entered, and of objects that could not be read."""

    def in_words(self) -> str:
        """What was passed over, in one line; empty where nothing was."""
        if not (count := self.passed_over.total()):
            return ""
        kinds = [f"{number} {kind}" for kind, number in self.passed_over.most_common(_KINDS_SHOWN)]
        more = ", ..." if len(self.passed_over) > _KINDS_SHOWN else ""
        those = "file is no radiograph" if count == 1 else "files are no radiographs"
        return f"{count} {those} ({', '.join(kinds)}{more})"


def find_radiographs(
    inputs: Iterable[Place | str],
    apart_from: Collection[Place] = (),
    heads: Heads | None = None,
    says_all: bool = True,
) -> Found:
    """Find the radiographs that files, folders, patterns and URLs of any of them name.

    A file that an input names is always taken. Folders, linked ones too, are searched to any depth for DICOM (by
    content, whatever the suffix), for .png, .jpg and .jpeg, and for whatever is named .dcm or .dicom. A DICOM file
    without preamble counts if a SOP Instance UID can be read at its beginning. Hidden files, DICOMDIR, masks, overlays
    and DICOM objects that pleura wrote, also where they come back from an archive, and anyone's segmentations,
    presentation states, reports and documents are left out. An input that exists is no pattern; the matches of a
    pattern are filtered like the files of a folder.

    apart_from: files to leave out without counting them. heads: of objects, that are known. says_all: a refusal may
    quote suffixes, and names of what could not be read.
    Raises: InputError where an input names no radiograph, or a bucket that is not there; StoreError.
    """
    found, seen = Found(), {real_name(path) for path in apart_from}
    by_path: dict[str, Located] = {}
    for name in inputs:
        before, denied, own = found.passed_over.total(), len(found.unreadable), 0
        place = name if isinstance(name, Url) else place_of(name)
        matches = _matches(place, found) if isinstance(place, Path) else _objects(place, found, heads, seen)
        for located, outright in matches:
            real = real_name(located.path)
            if real in by_path:
                own += 1
            elif real not in seen:
                located = located if outright else _looked_at(located)
                if outright or _is_radiograph(located, found.passed_over):
                    own += 1
                    by_path[real] = located
            seen.add(real)
        if not own:
            more = [found.in_words()] if found.passed_over.total() > before else []
            more += [f"{place}: {reason}" for place, reason in found.unreadable[denied : denied + 1]]
            there = f" ({'; '.join(more)})" if more and says_all else ""
            raise InputError(
                f"no radiograph found in {name}{there}; give DICOM, PNG or JPEG files, folders or patterns"
            )
    found.radiographs = sorted(by_path.values(), key=lambda located: order(located.path))
    return found


def real_name(place: Place) -> str:
    """Return what two names of one file have in common: its real path, or its URL."""
    return str(place) if isinstance(place, Url) else os.path.realpath(place)


def _objects(name: Url, found: Found, heads: Heads | None, seen: Collection[str]) -> Iterator[tuple[Located, bool]]:
    """Yield what a URL names, with its head, and whether it names it outright."""
    named = []
    for each in objects_of(name):
        if "" in each[0].parts:
            found.unreadable.append((each[0], "has an empty part in its name (//): rename it"))
        elif str(each[0]) not in seen:
            named.append(each)
    read = (heads or Heads()).of([url for url, _, _ in named])
    for (_, base, outright), (url, error) in zip(named, read, strict=True):
        if error is not None:
            found.unreadable.append((url, f"cannot be read ({str(error).removeprefix(f'{url}: ')})"))
        else:
            yield Located(url, base), outright


def walk(folder: Path, unreadable: list[tuple[Place, str]] | None = None) -> Iterator[Path]:
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


def _matches(path: Path, found: Found) -> Iterator[tuple[Located, bool]]:
    """Yield what one input names, and whether it names it outright."""
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
            yield from ((Located(file, base), False) for file in walk(match, found.unreadable))
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


def _looked_at(located: Located) -> Located:
    path = located.path
    if isinstance(path, Url) or path.name.startswith("."):
        return located
    return replace(located, beginning=beginning_of(path, path.name))


def _is_radiograph(located: Located, passed_over: Counter[str]) -> bool:
    """Return whether what comes from a folder or pattern is a radiograph; count it where it is none and not hidden."""
    if located.path.name.startswith("."):
        return False
    said = located.path.head if isinstance(located.path, Url) else located.beginning
    if said is not None and not said.is_radiograph:
        passed_over[said.kind] += 1
    return said is None or said.is_radiograph
