"""Local copies of what URLs name, for verbs that read files: made before the verb, removed after it.

A copy keeps its name, its folders and the time of its object. Lines that the verb prints name the URL and not the copy.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pleura.errors import InputError, OutputError, writing
from pleura.progress import track
from pleura.urls.store import ahead, get_file, listed
from pleura.urls.url import Place, Url, place_of

LARGE_BYTES = 64 * 2**20
"""From where on a file is fetched by itself, and lies in memory a piece at a time."""
_said: dict[str, str] = {}


@contextmanager
def copied(urls: list[Url]) -> Iterator[list[Path]]:
    """Yield a local copy of each URL, a file or a folder.

    Raises: InputError where there is nothing, or an object cannot be read; OutputError if the disk is too small;
    StoreError.
    """
    with tempfile.TemporaryDirectory(prefix="pleura-") as name, ExitStack() as stack:
        paths = []
        for number, url in enumerate(urls):
            found = listed(url)
            if not found:
                raise InputError(f"{url}: there is no such object, and none below it; check its name")
            paths.append(Path(name) / str(number) / url.name)
            stack.enter_context(saying(paths[-1], url))
            fetch(url, found, Path(name) / str(number))
        yield paths


@contextmanager
def saying(path: Path, url: Url) -> Iterator[None]:
    """Let `said` name a URL where a text has the path of its copy."""
    is_known = str(path) in _said  # the same copy may be meant by two options
    _said[str(path)] = str(url)
    try:
        yield
    finally:
        if not is_known:
            _said.pop(str(path), None)


def said(text: str) -> str:
    """Return a text with the URLs of copies in place of their paths."""
    for path, url in sorted(_said.items(), reverse=True):
        text = text.replace(path, url)
    return text


def origin(path: Path) -> Place:
    """Return the object that a copied file is of; any other path is its own."""
    for copy, url in _said.items():
        if path.is_relative_to(copy):
            return place_of("/".join((url, *path.relative_to(copy).parts)), is_recorded=True)
    return path


def fetch(base: Url, found: Sequence[Url], folder: Path) -> None:
    """Write objects into a folder: what a URL names, what lies below it, and what lies beside it.

    Raises: InputError if one cannot be read, OutputError if the disk is too small, StoreError.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    total, free = sum(url.size for url in found), shutil.disk_usage(folder).free
    if total > free:
        raise OutputError(f"{base}: a copy of it takes {total // 10**6} MB, and {folder.parent} has {free // 10**6} MB")
    small = [url for url in found if url.size < LARGE_BYTES]
    with writing(folder):
        for url, content in track(ahead(small, lambda url: url), "fetch", total=len(small)):
            if isinstance(content, InputError):
                raise content
            (path := _path(folder, base, url)).write_bytes(content)
            os.utime(path, ns=(url.mtime_ns, url.mtime_ns))
        for url in found:
            if url.size >= LARGE_BYTES:
                get_file(url, path := _path(folder, base, url))
                os.utime(path, ns=(url.mtime_ns, url.mtime_ns))


def _path(folder: Path, base: Url, url: Url) -> Path:
    parts = url.parts[len(base.parts) - 1 :]
    if "" in parts or ".." in parts:
        raise InputError(f"{url}: has a part in its name that no folder can have; rename it")
    path = folder.joinpath(*parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
