"""The hash in card.json, held against the files: at least once for each change of them.

12.6 GB (12,047 images of 1024 px) take some ten seconds to hash. What was found is kept in the user's cache, by the
files' sizes, times and inodes, never in the dataset's folder, which may be read-only.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

from pleura.errors import InputError, PleuraError
from pleura.files import hash_files, write_json

SETTLED_S = 2.0
"""A file that changed less long ago is hashed again next time: it may change once more within a tick of its clock."""


def refuse_changed(folder: Path, files: Sequence[Path], expected: str, always: bool = False) -> None:
    """Compare sha256 over the bytes of `files`, in order, with `expected`.

    always: without a look at the cache. Raises: InputError if they differ, or a file cannot be read.
    """
    try:
        before = [_stamp(file) for file in files]
        note = [expected, before]
        if not always and _noted(folder) == note:
            return
        found = hash_files(*files)
        settled = time.time() - max(times for _, *changes, _ in before for times in changes) / 1e9 > SETTLED_S
        unchanged = before == [_stamp(file) for file in files]
    except OSError as error:
        raise InputError(f"{error.filename or folder}: cannot be read ({error.strerror})") from error
    if found != expected:
        names = " or ".join(file.name for file in files)
        raise InputError(
            f"{folder}: {names} is not as it was prepared (the sha256 of card.json is of other bytes); prepare it "
            f'again, or, if the change is yours, write "sha256": "{found}" into card.json'
        )
    if settled and unchanged:
        with contextlib.suppress(PleuraError, OSError, RuntimeError):  # no cache is no fault
            write_json(_note_of(folder), note)


def _stamp(file: Path) -> list[int]:
    status = file.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _noted(folder: Path) -> object:
    try:
        return json.loads(_note_of(folder).read_text(encoding="utf-8"))
    except (OSError, ValueError, RuntimeError, RecursionError):
        return None


def _note_of(folder: Path) -> Path:
    """Raises: RuntimeError where the user has no home."""
    place = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    caches = Path(place) if place else Path.home() / ".cache"
    name = hashlib.sha256(os.fsencode(os.path.realpath(folder))).hexdigest()
    return caches / "pleura" / "datasets" / f"{name[:32]}.json"
