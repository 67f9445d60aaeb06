"""Where the journal and the tables of results are written: in their folder, or on a desk and from there into a store.

A file of lines that grows goes up in parts, because a store cannot append: `follow`. `take` brings the whole and its
parts back, in order; `put` writes the whole and then removes the parts that it holds. A run that is killed in between
leaves parts whose lines the whole has too, none of them older: who takes the last line of each file, in order, has lost
and doubled nothing.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from pleura.errors import InputError, writing
from pleura.urls.lease import Lease
from pleura.urls.scratch import clear, leased
from pleura.urls.store import ahead, delete, exists, get_file, listed, put, put_file
from pleura.urls.url import Place, Url

PARTS = ".parts"
FOLLOW_S, MOST_PARTS = 10.0, 500
"""How long a finished line may wait until it goes up, and how many parts there are before the whole is written."""
_PIECE_BYTES = 2**20


class Desk:
    """The folder of journal and tables, which is OUT itself: nothing has to go anywhere."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def take(self, name: str) -> None:
        """Bring a file of an earlier run, where there is one."""

    def follow(self, name: str) -> None:
        """Bring up what a file of lines has more, where it is time to."""

    def put(self, name: str) -> None:
        """Bring up a file of lines, to the end of its last whole one."""


class RemoteDesk(Desk):
    """A folder of this machine for the journal and tables below a URL."""

    def __init__(self, folder: Path, out: Url, lease: Lease) -> None:
        super().__init__(folder)
        self.out, self.lease = out, lease
        self._parts: dict[str, list[Url]] = {}
        self._up: dict[str, int] = {}
        """How many bytes of a file are there already."""
        self._last: dict[str, float] = {}

    def take(self, name: str) -> None:
        """Raises: InputError if one has just been deleted, OutputError, StoreError."""
        self._parts[name] = parts = listed(self.out / PARTS / name)
        if exists(self.out / name):
            get_file(self.out / name, self.folder / name)
        elif not parts:
            return
        with writing(self.folder), (self.folder / name).open("ab") as file:
            for _, content in ahead(parts, lambda url: url):
                if isinstance(content, InputError):
                    raise content
                file.write(content)

    def follow(self, name: str) -> None:
        """Raises: OutputError if another process writes there, StoreError."""
        now = time.monotonic()
        if now - self._last.setdefault(name, now) < FOLLOW_S:
            return
        parts = self._parts.setdefault(name, [])
        if len(parts) >= MOST_PARTS:
            self.put(name)
            return
        with (self.folder / name).open("rb") as file:
            file.seek(self._up.get(name, 0))
            lines = file.read()
        lines = lines[: lines.rfind(b"\n") + 1]
        self._last[name] = now
        if lines:
            self.lease.check()
            part = self.out / PARTS / name / f"{len(parts) + 1:06d}"
            put(part, lines)
            parts.append(part)
            self._up[name] = self._up.get(name, 0) + len(lines)

    def put(self, name: str) -> None:
        """Raises: OutputError if another process writes there, StoreError."""
        self.lease.check()
        # While it goes up the file may grow by half a line, which what comes next would be joined to.
        with writing(self.folder), tempfile.NamedTemporaryFile(dir=self.folder, delete=False) as copy:
            size = _copy_lines(self.folder / name, copy)
        try:
            put_file(Path(copy.name), self.out / name)
        finally:
            Path(copy.name).unlink()
        for part in self._parts.pop(name, []):
            delete(part)
        self._up[name], self._last[name] = size, time.monotonic()


def _copy_lines(path: Path, to: IO[bytes]) -> int:
    """Copy the lines that a file has by now, whole ones, and return how many bytes those are."""
    copied = size = 0
    with path.open("rb") as file:
        left = path.stat().st_size
        while left > 0 and (piece := file.read(min(_PIECE_BYTES, left))):
            to.write(piece)
            left -= len(piece)
            if b"\n" in piece:
                size = copied + piece.rindex(b"\n") + 1
            copied += len(piece)
    to.truncate(size)
    return size


@contextmanager
def desk_for(out: Place, what: str) -> Iterator[Desk]:
    """Yield the desk of a folder of results; for a URL, while no other process writes below it.

    what: ends the refusal "another process ...". Raises: OutputError, StoreError.
    """
    if isinstance(out, Path):
        yield Desk(out)
        return
    with leased(out, "desk", what) as (folder, lease):
        clear(folder)
        try:
            yield RemoteDesk(folder, out, lease)
        finally:
            clear(folder)
