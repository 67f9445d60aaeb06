"""Local copies of what URLs name, for verbs that read files: made before the verb, removed after it.

A copy keeps its name, its folders and the time of its object. Lines that the verb prints name the URL and not the copy.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pleura.errors import InputError, OutputError, writing
from pleura.progress import track
from pleura.urls.store import ahead, get_file, listed
from pleura.urls.url import Url

LARGE_BYTES = 64 * 2**20
"""From where on a file is fetched by itself, and lies in memory a piece at a time."""
_said: dict[str, str] = {}


@contextmanager
def copied(urls: list[Url]) -> Iterator[list[Path]]:
    """Yield a local copy of each URL, a file or a folder.

    Raises: InputError where there is nothing, or an object cannot be read; OutputError if the disk is too small;
    StoreError.
    """
    with tempfile.TemporaryDirectory(prefix="pleura-") as name:
        folder = Path(name)
        try:
            yield [_copy(url, folder / str(number)) for number, url in enumerate(urls)]
        finally:
            for path in [path for path in _said if path.startswith(name)]:
                del _said[path]


def said(text: str) -> str:
    """Return a text with the URLs of copies in place of their paths."""
    for path, url in sorted(_said.items(), reverse=True):
        text = text.replace(path, url)
    return text


def _copy(base: Url, folder: Path) -> Path:
    found = listed(base)
    if not found:
        raise InputError(f"{base}: there is no such object, and none below it; check its name")
    total, free = sum(url.size for url in found), shutil.disk_usage(folder.parent).free
    if total > free:
        raise OutputError(f"{base}: a copy of it takes {total // 10**6} MB, and {folder.parent} has {free // 10**6} MB")
    copy = folder / base.name
    _said[str(copy)] = str(base)
    small = [url for url in found if url.size < LARGE_BYTES]
    with writing(folder):
        for url, content in track(ahead(small, lambda url: url), "fetch", total=len(small)):
            if isinstance(content, InputError):
                raise content
            (path := _path(copy, base, url)).write_bytes(content)
            os.utime(path, ns=(url.mtime_ns, url.mtime_ns))
        for url in found:
            if url.size >= LARGE_BYTES:
                get_file(url, path := _path(copy, base, url))
                os.utime(path, ns=(url.mtime_ns, url.mtime_ns))
    return copy


def _path(copy: Path, base: Url, url: Url) -> Path:
    parts = url.parts[len(base.parts) :]
    if "" in parts or ".." in parts:
        raise InputError(f"{url}: has a part in its name that no folder can have; rename it")
    path = copy.joinpath(*parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
