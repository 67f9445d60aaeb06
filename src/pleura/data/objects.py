"""Finds radiographs among the objects of a store: by a listing, and by the first bytes of each."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pleura import __version__
from pleura.data.classify import beginning_of
from pleura.dicom.limits import max_bytes
from pleura.errors import InputError
from pleura.files import file_with, journal_line, read_journal
from pleura.urls.store import ahead, get, listed
from pleura.urls.url import Head, Place, Url

HEAD_BYTES = 2**14
INPUTS = "inputs.jsonl"
"""What the heads of earlier runs said, in a folder of results."""


class Heads:
    """What the first bytes of objects say, with what an earlier run learned of those that have not changed since."""

    def __init__(
        self, path: Path | None = None, keep: Callable[[], None] | None = None, shown: Place | None = None
    ) -> None:
        """path: the file that keeps them; None keeps nothing. keep: is called after each that was read.

        What another version of pleura decided is not taken. shown: where the file is for its user.
        Raises: OutputError if it is damaged.
        """
        self.path, self.keep = path, keep
        if path is not None:
            path.touch()
        self._known: dict[str, tuple[tuple[int, str, int], Head]] = {}
        if path is None:
            return
        for _, entry in read_journal(path, f"remove {shown or path}", shown):
            if entry.get("pleura") != __version__:
                continue
            head = Head(entry["is_radiograph"], entry["kind"], entry["uid"], entry["pixels"])
            self._known[entry["file"]] = (entry["size"], entry["etag"], entry["mtime_ns"]), head

    def of(self, urls: Sequence[Url]) -> Iterator[tuple[Url, InputError | None]]:
        """Yield each object with its head, or why it cannot be read, in order. Raises: OutputError, StoreError."""
        new = [url for url in urls if self._earlier(url) is None]
        read = ahead(new, lambda url: url, HEAD_BYTES)
        for url in urls:
            if (head := self._earlier(url)) is not None:
                yield replace(url, head=head), None
                continue
            _, content = next(read)
            try:
                if isinstance(content, InputError):
                    raise content
                head = _head(url, content)
            except InputError as error:
                yield url, error
                continue
            self._note(url, head)
            yield replace(url, head=head), None

    def _earlier(self, url: Url) -> Head | None:
        stamp, head = self._known.get(str(url), (None, None))
        return head if stamp == (url.size, url.etag, url.mtime_ns) else None

    def _note(self, url: Url, head: Head) -> None:
        if self.path is None:
            return
        stamp = {"size": url.size, "etag": url.etag, "mtime_ns": url.mtime_ns}
        entry: dict[str, Any] = {"pleura": __version__, "file": str(url), **stamp}
        with self.path.open("ab") as file:
            file.write(journal_line(entry | head._asdict()).encode())
        if self.keep is not None:
            self.keep()


def _head(url: Url, content: bytes) -> Head:
    """What the first bytes say; all of them are read where those do not reach as far as they would in a file."""
    with file_with(content) as path:
        found = beginning_of(path, url.name)
    is_enough = not found.is_radiograph or (found.pixels and not found.is_deflated) or len(content) == url.size
    if not is_enough and url.size <= max_bytes():  # reading a larger one refuses it
        with file_with(get(url)) as path:
            found = beginning_of(path, url.name)
    return Head(found.is_radiograph, found.kind, found.uid, found.pixels)


def objects_of(name: Url) -> Iterator[tuple[Url, Url, bool]]:
    """Yield the objects that a URL names, the URL of the input that each lies below, and whether it is named outright.

    Names that begin with a dot are left out below it, as are those of files. `*`, `?` and `[` are signs of a pattern
    where no object has them; `**` is any number of folders.
    Raises: InputError, StoreError.
    """
    plain = next((place for place, part in enumerate(name.parts) if glob.has_magic(part)), len(name.parts))
    found = listed(name) if glob.has_magic(str(name)) else None
    if found or plain == len(name.parts):
        for url in listed(name) if found is None else found:
            if url == name:
                yield url, name.parent, True
            elif not _is_hidden(url.parts[len(name.parts) :]):
                yield url, name, False
        return
    if plain == 0:
        raise InputError(f"{name}: the name of a bucket cannot be a pattern")
    base = Url(name.scheme, name.parts[:plain])
    for url in listed(base):
        if _fits(url.parts[plain:], name.parts[plain:]) and not _is_hidden(url.parts[plain:]):
            yield url, base, False


def _fits(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a pattern fits a path, or a folder that it lies below."""
    if not pattern or not parts:
        return not pattern
    first, rest = pattern[0], pattern[1:]
    if first == "**" and rest:
        return any(_fits(parts[skipped:], rest) for skipped in range(len(parts)))
    return fnmatchcase(parts[0], "*" if first == "**" else first) and _fits(parts[1:], rest)


def _is_hidden(parts: Iterable[str]) -> bool:
    return any(part.startswith(".") for part in parts)
