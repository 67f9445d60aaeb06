"""A dataset below a URL: its tables are read, and a whole one goes up from a folder, card.json last."""

from __future__ import annotations

import logging
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from pleura.data.dataset import AGAIN, CARD, CASES, IMAGES, Case, read_tables
from pleura.data.ingest import PARTIAL
from pleura.data.problems import PROBLEMS, Problem, read_problems
from pleura.errors import InputError, OutputError
from pleura.urls.lease import Lease
from pleura.urls.store import AbsentError, exists, get, listed, put_file
from pleura.urls.url import Url


def tables_at(out: Url) -> tuple[dict[str, Any], list[Case], list[Problem]] | None:
    """Return card, cases and problems of the dataset at a URL; None where there is none.

    Raises: OutputError if there is an object of that name, InputError if the dataset is damaged, StoreError.
    """
    if exists(out):
        raise OutputError(f"cannot write {out}: an object of that name is in the way; choose another --out")
    with tempfile.TemporaryDirectory(prefix="pleura-") as name:
        folder = Path(name)
        try:
            (folder / CARD).write_bytes(get(out / CARD))
        except AbsentError:
            return None
        (folder / CASES).write_bytes(get(out / CASES))
        with suppress(AbsentError):
            (folder / PROBLEMS).write_bytes(get(out / PROBLEMS))
        try:
            card, cases = read_tables(folder)
            problems = read_problems(folder / PROBLEMS)
        except InputError as error:
            raise InputError(str(error).replace(name, str(out))) from error
    size_bytes = next((url.size for url in listed(out / IMAGES)), 0)
    if size_bytes < len(cases) * card["size_px"] ** 2:
        raise InputError(f"{out / IMAGES}: is damaged: it has {size_bytes} bytes for {len(cases)} cases; {AGAIN}")
    return card, cases, problems


def refuse_small_disk(out: Url, folder: Path, need_bytes: int) -> None:
    """Refuse a disk that has no room for the images of a dataset, unless an unfinished run has it already.

    Raises: OutputError.
    """
    has = any((place / IMAGES).exists() for place in (folder, folder / PARTIAL))
    free_bytes = shutil.disk_usage(folder.parent).free
    if not has and need_bytes > free_bytes:
        raise OutputError(
            f"{out}: its images take {need_bytes // 10**6} MB on this machine before they go up, and {folder.parent} "
            f"has {free_bytes // 10**6} MB; free some, or set XDG_CACHE_HOME to a folder of a larger disk"
        )


def put_up(folder: Path, out: Url, lease: Lease) -> None:
    """Write the files of a dataset as objects, the card last.

    Raises: OutputError if another process may write there by now, StoreError.
    """
    size_mb = (folder / IMAGES).stat().st_size // 10**6
    logging.getLogger("pleura").info(f"{out}: goes up, {size_mb} MB")
    for name in (IMAGES, CASES, PROBLEMS, CARD):
        lease.check()
        put_file(folder / name, out / name)
