"""Ids of radiographs, and which image a row of a table or the name of a mask means: one rule for every command.

A DICOM file's id is its SOP Instance UID. A picture's, and that of a DICOM file without a UID, is its path below the
input that it was found under, with slashes, without a radiograph's suffix, in Unicode form NFC.
"""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from pleura.data.classify import uid_of
from pleura.data.finding import Located, find_radiographs, real_name
from pleura.data.radiograph import read_radiograph
from pleura.dicom.parse import valid_uid
from pleura.errors import InputError, excerpt
from pleura.files import without_suffix
from pleura.urls.store import AT_ONCE, exists
from pleura.urls.url import Place, Url

T = TypeVar("T")


@dataclass(frozen=True)
class Identified:
    """A radiograph and its id."""

    image_id: str
    path: Place
    relative: str
    """The path below its input, with the suffix, as `Located.relative`."""
    pixels: int | None = None
    """Rows x columns by its beginning; None where that was not looked at."""
    copy_of: Place | None = None
    """The file that bears the SOP Instance UID, where this one has it too, and the same pixels."""


@dataclass
class Identities:
    """The radiographs of a command, each with an id of its own."""

    cases: list[Identified] = field(default_factory=list)
    clashes: list[tuple[Place, Place]] = field(default_factory=list)
    """(file, another one) where the SOP Instance UID is the same and the pixels are not: both go by their paths."""

    @property
    def copies(self) -> list[tuple[Place, Place]]:
        """(file, the one that it is a copy of)."""
        return [(case.path, case.copy_of) for case in self.cases if case.copy_of is not None]


def identify(radiographs: Sequence[Located], earlier: Mapping[str, Place] | None = None) -> Identities:
    """Return every radiograph with an id of its own.

    Of DICOM files of one SOP Instance UID and equal pixels the first bears it, and its copies go by their paths; with
    different pixels the UID identifies none, and each goes by its path. Paths that would give one id to several files
    get the names of the folders above in front, as many as distinguish their inputs (`a/x` and `b/x`); below one input
    they keep their suffixes (`x.png` and `x.jpg`); what still is the same gets a number (`x~2`).

    earlier: ids, and their files, that an earlier run into the same folder gave. A picture keeps its own, and no other
    file gets it.
    """
    made, earlier = Identities(), earlier or {}
    real = {one: real_name(one.path) for one in radiographs}
    here = set(real.values())
    gone = {key: path for key, path in earlier.items() if real_name(path) not in here}
    with ThreadPoolExecutor(AT_ONCE) as pool:  # a store takes its time for each
        elsewhere = {
            key: gone[key] for key, there in zip(gone, pool.map(is_there, gone.values()), strict=True) if there
        }
    copies: dict[Located, Place] = {}
    uids, named = _by_uid(radiographs, elsewhere, copies, made)
    had = {real_name(path): image_id for image_id, path in earlier.items()}
    kept = {one: had[real[one]] for one in named if real[one] in had and valid_uid(had[real[one]]) is None}
    new = [one for one in named if one not in kept]
    ids = uids | kept | _by_path(new, set(uids.values()), {*kept.values(), *elsewhere})
    made.cases = [
        Identified(ids[one], one.path, one.relative, one.beginning.pixels if one.beginning else None, copies.get(one))
        for one in radiographs
    ]
    return made


def is_there(place: Place) -> bool:
    """Whether a file or object is there. Raises: StoreError."""
    return exists(place) if isinstance(place, Url) else place.exists()


def _uid(one: Located) -> str | None:
    if isinstance(one.path, Path):
        return one.beginning.uid if one.beginning else uid_of(one.path)
    return one.path.head.uid if one.path.head else None


def identified(folder: Path) -> list[Identified]:
    """The radiographs of one folder with their ids. Raises: InputError if there is none."""
    return identify(find_radiographs([folder]).radiographs).cases


def _by_uid(
    radiographs: Sequence[Located], elsewhere: Mapping[str, Place], copies: dict[Located, Place], made: Identities
) -> tuple[dict[Located, str], list[Located]]:
    """The ids of those that bear a SOP Instance UID, and those that go by their paths."""
    groups: dict[str, list[Located]] = defaultdict(list)
    by_path = []
    for one in radiographs:
        if (uid := _uid(one)) is None:
            by_path.append(one)
        else:
            groups[uid].append(one)
    ids: dict[Located, str] = {}
    for uid, same in groups.items():
        other = elsewhere.get(uid)
        others = [] if other is None else [Located(other, other.parent)]
        bearer, rest = _bearer([*others, *same], copies, made) if len(same) + len(others) > 1 else (same[0], [])
        if bearer is not None:
            ids[bearer] = uid
        by_path += [one for one in rest if one not in others]
    return ids, by_path


def _bearer(
    same: Sequence[Located], copies: dict[Located, Place], made: Identities
) -> tuple[Located | None, list[Located]]:
    """Of files of one UID: the one that bears it, and those that go by their paths; notes copies and clashes."""
    first: dict[str, Located] = {}
    by_path = []
    for one in same:
        pixels = _pixels(one.path)
        if pixels is None:
            by_path.append(one)  # refused with the reason when it is read
        elif (other := first.setdefault(pixels, one)) is not one:
            copies[one] = other.path
            by_path.append(one)
    images = list(first.values())
    if len(images) == 1 or not images:
        return (images or by_path)[0], by_path[0 if images else 1 :]
    made.clashes += [(one.path, images[0 if one is not images[0] else 1].path) for one in images]
    return None, images + by_path


def _pixels(path: Place) -> str | None:
    """A hash of the pixels; None for a file that cannot be read."""
    try:
        image = read_radiograph(path).image
    except InputError:
        return None
    return hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()


def _by_path(radiographs: Iterable[Located], uids: Collection[str], taken: Collection[str]) -> dict[Located, str]:
    """Ids by paths, different from each other, from the UIDs and from those that are taken."""
    groups: dict[str, list[Located]] = defaultdict(list)
    for one in radiographs:
        groups[without_suffix(one.relative)].append(one)
    used = {*uids, *taken}
    ids = {same[0]: name for name, same in groups.items() if len(same) == 1 and name not in used}
    used |= set(ids.values())
    for name, same in groups.items():
        if same[0] in ids:
            continue
        folders = {one: _folders(one.base) for one in same}
        count = _tails(set(folders.values())) or int(name in taken)
        for one in same:
            alone = sum(folders[other] == folders[one] for other in same) == 1 and name not in uids
            tail = folders[one][len(folders[one]) - min(count, len(folders[one])) :]
            longer = unicodedata.normalize("NFC", "/".join((*tail, name if alone else one.relative)))
            ids[one] = next(each for each in _numbered(longer) if each not in used)
            used.add(ids[one])
    return ids


def _folders(base: Place) -> tuple[str, ...]:
    return base.parts if isinstance(base, Url) else Path(os.path.abspath(base)).parts[1:]


def _tails(folders: Collection[tuple[str, ...]]) -> int:
    """How many last parts distinguish the folders: 0 for one folder."""
    return next(
        count for count in range(99) if len({parts[-count:] * (count > 0) for parts in folders}) == len(folders)
    )


def _numbered(name: str) -> Iterable[str]:
    yield name
    number = 1
    while True:
        number += 1
        yield f"{name}~{number}"


def as_name(text: str) -> str:
    """How names are compared: Unicode form NFC, slashes, no `./` in front and no blanks around."""
    return unicodedata.normalize("NFC", text.strip()).replace("\\", "/").removeprefix("./")


class Names:
    """Finds the case that a row of a table, or the name of a mask, refers to.

    By its id; else by its path, from the end, as far as both go: `x`, `x.png`, `b/x` and `images/b/x.png` all fit the
    file `b/x.png`, and `a/x` does not. A suffix counts only where two files differ in nothing else.
    """

    def __init__(self, cases: Iterable[tuple[str, str]]) -> None:
        """cases: the id of each, and its path below the input ("" if it has none)."""
        self._ids: dict[str, str] = {}
        self._paths: dict[str, list[tuple[tuple[str, ...], str, str]]] = defaultdict(list)
        for image_id, path in cases:
            self._ids[as_name(image_id)] = image_id
            whole = as_name(path or image_id)
            for each in dict.fromkeys((whole, as_name(image_id))):
                parts = tuple(without_suffix(each).split("/"))
                self._paths[parts[-1]].append((parts, whole, image_id))

    def find(self, name: str, where: Path | str = "") -> str | None:
        """The id of the case that `name` refers to, or None. Raises: InputError where it refers to several."""
        key = as_name(name)
        for exact in (key, without_suffix(key)):
            if exact in self._ids:
                return self._ids[exact]
        parts = tuple(without_suffix(key).split("/"))
        fits = [each for each in self._paths.get(parts[-1], []) if _same_end(each[0], parts)]
        if len({image_id for _, _, image_id in fits}) > 1:
            fits = [each for each in fits if _same_end(tuple(each[1].split("/")), tuple(key.split("/")))] or fits
        found = {image_id: whole for _, whole, image_id in fits}
        if len(found) > 1:
            at = f"{where}: " if where else ""
            files = " and ".join(sorted(found.values())[:2])
            raise InputError(f"{at}{excerpt(name)} can be {files}; write as much of the path as distinguishes them")
        return next(iter(found), None)

    def resolve(self, table: Mapping[str, T], where: Path | str) -> dict[str, T]:
        """A table by names, by ids instead; what refers to no case keeps its name.

        Raises: InputError where a name refers to several cases, or two names with different values to one.
        """
        resolved: dict[str, T] = {}
        names: dict[str, str] = {}
        for name, value in table.items():
            image_id = self.find(name, where) or name
            if resolved.setdefault(image_id, value) != value:
                both = f"{excerpt(names[image_id])} and {excerpt(name)}"
                raise InputError(f"{where}: {both} are the same image, with different values; delete one")
            names.setdefault(image_id, name)
        return resolved


def _same_end(first: tuple[str, ...], second: tuple[str, ...]) -> bool:
    count = min(len(first), len(second))
    return first[-count:] == second[-count:]


def without_aliases(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return names without any alias, as `pair` takes them."""
    return dict.fromkeys(names, ())


def pair(names: Mapping[str, Sequence[str]], images: Mapping[str, Sequence[str]], where: Path | str) -> dict[str, str]:
    """Return name -> the image that it means; a name that fits none is left out.

    names, images: name -> its aliases, such as paths. A name and then its aliases are tried, and the first that fits an
    image counts. where: the source of the names, for a refusal.
    Raises: InputError if a name fits several images, or several names one image.
    """
    index = Names((image, alias) for image, aliases in images.items() for alias in (aliases or ("",)))
    found, first = dict[str, str](), dict[str, str]()
    for name, aliases in names.items():
        image = next((hit for alias in (name, *aliases) if (hit := index.find(alias, where)) is not None), None)
        if image is None:
            continue
        if (other := first.setdefault(image, name)) != name:
            raise InputError(f"{where}: {excerpt(other)} and {excerpt(name)} are the same image; keep one")
        found[name] = image
    return found
