"""Folders of this machine whose files go up below a URL: for verbs that write files.

What a verb writes goes up when it has ended, in the order in which it was written, each file whole or not at all. What
could not go up stays on this machine, and the refusal says where.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TypeAlias

from pleura.errors import OutputError, PleuraError
from pleura.urls.copies import fetch, saying
from pleura.urls.kept import objects_of
from pleura.urls.store import GOES_ON, delete, exists, listed, put, put_file
from pleura.urls.url import Place, Url

_PROBE = ".pleura-probe"
Stamp: TypeAlias = tuple[int, int, int]
_open: list[Mirror] = []


class Mirror:
    """A folder, and what of it is below a URL already."""

    def __init__(
        self, folder: Path, base: Url, check: Callable[[], None] = lambda: None, but: Collection[str] = ()
    ) -> None:
        """What the folder has now counts as being there.

        check: is called before each write, and may refuse it. but: files that stay here, besides hidden ones.
        """
        self.folder, self.base, self.check, self.but = folder, base, check, but
        self.up = self.stamps()

    def bring_up(self, last: str = "") -> None:
        """Put all files that are new or have changed, in the order of their times; remove those that are gone.

        last: the one that follows the others, since it refers to them. Files whose name begins with a dot stay.
        Raises: what `check` raises, StoreError; what was put is not put again.
        """
        now = self.stamps()
        changed = [name for name in now if now[name] != self.up.get(name)]
        for name in sorted(changed, key=lambda name: (name == last, now[name][1], name)):
            self.check()
            put_file(self.folder / name, self.base.joinpath(name))
            self.up[name] = now[name]
        for name in self.up.keys() - now.keys():
            self.check()
            delete(self.base.joinpath(name))
            del self.up[name]

    def stamps(self) -> dict[str, Stamp]:
        """Return size, time and inode of each file, by its path below the folder."""
        found = {}
        for path in self.folder.rglob("*"):
            name = path.relative_to(self.folder).as_posix()
            if not path.name.startswith(".") and name not in self.but and path.is_file():
                status = path.stat()
                found[name] = (status.st_size, status.st_mtime_ns, status.st_ino)
        return found


@contextmanager
def written(base: Url, in_the_way: Collection[str] | None = ()) -> Iterator[Path]:
    """Yield an empty folder whose files go up below a URL at the end.

    in_the_way: names that the verb may refuse to replace: of those that are there it finds an empty file. None: all.
    Raises: StoreError, at once if nothing may be written there.
    """
    put(base / _PROBE, b"")
    delete(base / _PROBE)
    if in_the_way is None:
        there = [url.name for url in listed(base) if len(url.parts) == len(base.parts) + 1]
    else:
        there = [name for name in in_the_way if exists(base / name)]
    with _scratch() as scratch, saying(folder := scratch / base.name, base):
        folder.mkdir()
        for name in there:
            (folder / name).touch()
        with _BroughtUp(Mirror(folder, base)):
            yield folder


@contextmanager
def written_at(place: Place) -> Iterator[Path]:
    """Yield a folder to write files of it to: itself, or the one of `written`. Raises: as `written`."""
    if isinstance(place, Path):
        yield place
        return
    with written(place) as folder:
        yield folder


@contextmanager
def changed(url: Url, files: Collection[str]) -> Iterator[Path]:
    """Yield a copy of a file or folder that may be changed; what has changed or is new goes up at the end.

    files: what is copied of a folder, as `kept` does.
    Raises: InputError where there is nothing; OutputError where somebody else has changed it meanwhile, or if the disk
    is too small; StoreError.
    """
    found = objects_of(url, files)
    base = url.parent if found[0] == url else url
    is_checked = False

    def check() -> None:
        nonlocal is_checked
        if not is_checked and [(each, each.etag) for each in objects_of(url, files)] != former:
            raise OutputError(f"{url}: somebody else has changed it meanwhile; run the same command again")
        is_checked = True

    former = [(each, each.etag) for each in found]
    with _scratch() as scratch, saying(scratch / base.name, base):
        fetch(url, found, scratch / base.name if base != url else scratch)
        with _BroughtUp(Mirror(scratch / base.name, base, check)):
            yield scratch / base.name if base == url else scratch / base.name / url.name


def bring_up() -> None:
    """Bring up what verbs have written so far, before they say so. Raises: as `Mirror.bring_up`."""
    for mirror in _open:
        _bring_up(mirror)


@contextmanager
def _scratch() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="pleura-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _BroughtUp:
    """Brings up the files of a mirror at the end, also of a verb that ends early: what was finished is kept."""

    def __init__(self, mirror: Mirror) -> None:
        self.mirror = mirror

    def __enter__(self) -> None:
        _open.append(self.mirror)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        _open.remove(self.mirror)
        try:
            _bring_up(self.mirror)
        except PleuraError as fault:
            if error is None:
                raise
            logging.getLogger("pleura").warning("%s", fault)


def _bring_up(mirror: Mirror) -> None:
    try:
        mirror.bring_up()
    except PleuraError as error:
        raise type(error)(f"{str(error).removesuffix(GOES_ON)}; {_kept(mirror)}") from error
    except KeyboardInterrupt:  # the folder is about to be removed, and is the only one to hold it
        logging.getLogger("pleura").warning("%s: %s", mirror.base, _kept(mirror))
        raise


def _kept(mirror: Mirror) -> str:
    place = Path(tempfile.mkdtemp(prefix="pleura-kept-")) / mirror.folder.name
    mirror.folder.rename(place)
    mirror.up = {}
    return f"what was to be written there is kept in {place}"
