"""Copies of datasets and models that stay in the user's cache, so that the next command need not fetch them again.

A copy goes by its URL, and by name, size and ETag of each of its objects: what has changed is another copy. It is made
in a folder of another name, which is renamed once all of it is there and is still what was listed: a kill leaves none
that is taken for whole. Others of this machine wait meanwhile. Who uses a copy shares a lock on it; one that nobody
uses is removed when another is made, if its objects have changed since, or nobody has used it for 30 days.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import shutil
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from fnmatch import fnmatchcase
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from pleura.errors import InputError, writing
from pleura.files import sync_folder, user_cache
from pleura.urls.copies import copied, fetch, saying
from pleura.urls.store import exists, listed
from pleura.urls.url import Url

DATASET_FILES = ("images.npy", "cases.csv", "card.json")
MODEL_FILES = ("best.safetensors", "metrics.csv", "fold-*/best.safetensors", "fold-*/metrics.csv", "ensemble.json")
"""What of a folder a dataset or a model is, with how long it was trained; states and pictures of a run are not, and
what lies deeper is another's. Each part of a name is a pattern."""
_ENSEMBLE, _OF_MEMBERS = "ensemble.json", "*/"
"""Of a folder that holds this one, the same files of each folder below it are asked for too."""
_BESIDE = {".xml": "{stem}.bin", ".safetensors": "metrics.csv"}
"""Suffix of a model -> the file beside it that belongs to it, or says how long it was trained."""
UNUSED_S = 30 * 24 * 3600.0
_PAUSE_S = 0.2
_fcntl: Any = import_module("fcntl") if os.name == "posix" else None
_until_the_end = ExitStack()


@contextmanager
def kept(base: Url, files: Collection[str]) -> Iterator[Path]:
    """Yield the copy of a file or folder, of which nothing may be changed; it is not removed meanwhile.

    files: what is copied of a folder, by names below it, as `MODEL_FILES`.
    Raises: InputError where there is nothing, or an object cannot be read or has just changed; OutputError if the disk
    is too small; StoreError.
    """
    found = objects_of(base, files)
    try:
        root = user_cache("copies")
    except RuntimeError:  # a user without a home
        with copied([base]) as (copy,):
            yield copy
        return
    facts = [[str(url), url.size, url.etag or url.mtime_ns] for url in found]
    folder = root / sha256(json.dumps([str(base), facts]).encode()).hexdigest()[:32]
    with writing(root):
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _shared(folder, base, found, files), saying(copy := folder / base.name, base):
        yield copy


def keep(base: Url, files: Collection[str]) -> Path:
    """Return the copy of `kept`, for as long as this process lives. Raises: as `kept`."""
    return _until_the_end.enter_context(kept(base, files))


def objects_of(base: Url, files: Collection[str]) -> list[Url]:
    """Return the objects of a file or folder that `kept` copies. Raises: InputError where there is none, StoreError."""
    there = listed(base)
    if _ENSEMBLE in files and base / _ENSEMBLE in there:
        files = [*files, *(_OF_MEMBERS + name for name in files)]
    found = [
        url for url in there if url == base or any(_is_named(url.parts[len(base.parts) :], name) for name in files)
    ]
    if not found:
        raise InputError(f"{base}: there is no such object, and below it none of {', '.join(files)}; check its name")
    if found == [base] and (beside := _BESIDE.get(base.suffix)):
        other = base.parent / beside.format(stem=base.name.removesuffix(base.suffix))
        found += listed(other) if exists(other) else []
    return found


def _is_named(parts: Sequence[str], pattern: str) -> bool:
    patterns = pattern.split("/")
    return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))


def _shared(folder: Path, base: Url, found: list[Url], files: Collection[str]) -> IO[bytes]:
    """Make the copy where it is not there; return its lock, shared for as long as that is open."""
    path, is_told = _lock_file(folder), False
    while True:
        with writing(path), ExitStack() as stack:
            lock = stack.enter_context(path.open("a+b"))
            if _locked(lock, exclusive=False) is False:
                if not is_told:
                    logging.getLogger("pleura").info("%s: another process fetches it; waiting", base)
                is_told = True
            elif folder.is_dir() and _is_at(lock, path):
                os.utime(path)
                stack.pop_all()
                return lock
            elif (is_alone := _locked(lock, True)) is not False and not folder.is_dir() and _is_at(lock, path):
                path.write_text(str(base))
                if is_alone:  # where there are no locks, they may be of a process that is at it
                    _remove_parts(folder)
                _make(folder, base, found, files)
                continue
        time.sleep(_PAUSE_S * (1 + secrets.randbelow(100) / 100))  # two that give way to each other come back unequal


def _make(folder: Path, base: Url, found: list[Url], files: Collection[str]) -> None:
    _remove_stale(folder, base)
    part = folder.with_name(f"{folder.name}.part-{secrets.token_hex(4)}")
    try:
        fetch(base, found, part)
        if [(url, url.size, url.etag) for url in objects_of(base, files)] != [
            (url, url.size, url.etag) for url in found
        ]:
            raise InputError(f"{base}: changed while it was copied; run the same command again")
        for path in part.rglob("*"):
            if path.is_file():
                with path.open("r+b") as file:
                    os.fsync(file.fileno())
        try:
            part.rename(folder)
        except OSError:
            if not folder.is_dir():  # where there are no locks, another process may have been faster
                raise
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _remove_stale(but: Path, base: Url) -> None:
    """Remove the copies that are of no use any more and that nobody uses."""
    for path in but.parent.glob("*.lock"):
        folder = path.with_suffix("")
        with suppress(OSError):
            is_stale = time.time() - path.stat().st_mtime > UNUSED_S or path.read_text() == str(base)
            if folder == but or not is_stale:
                continue
            with path.open("r+b") as lock:
                if _locked(lock, exclusive=True) and _is_at(lock, path):
                    _remove_parts(folder)
                    shutil.rmtree(folder, ignore_errors=True)
                    path.unlink()


def _remove_parts(folder: Path) -> None:
    """Remove what processes that were killed have left."""
    for left in folder.parent.glob(f"{folder.name}.part-*"):
        shutil.rmtree(left, ignore_errors=True)


def _lock_file(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def _locked(file: IO[bytes], exclusive: bool) -> bool | None:
    """Whether the lock on an open file is had, or had in this way; None where there are no locks."""
    if _fcntl is None:
        return None
    try:
        _fcntl.flock(file, (_fcntl.LOCK_EX if exclusive else _fcntl.LOCK_SH) | _fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # of a file system without them
        return None
    return True


def _is_at(file: IO[bytes], path: Path) -> bool:
    """Whether an open file is the one of that name: who removes a copy removes its lock too."""
    return path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat())
