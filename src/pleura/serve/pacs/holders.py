"""Who holds a claim, and whether that process still lives: by a lock on a file, which a killed process loses."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pleura.errors import OutputError
from pleura.files import held

FOLDER = "holders"


@contextmanager
def holding(inbox: Path) -> Iterator[str]:
    """Yield a name for claims that lasts as long as this block, or this process. Raises: OutputError."""
    name = uuid.uuid4().hex
    with held(inbox / FOLDER, "holds this name", name):
        yield name


def is_alive(inbox: Path, name: str) -> bool:
    """Return whether the holder of a name is still there; where that cannot be found out, it is."""
    if not (inbox / FOLDER / name).exists():
        return False
    try:
        with held(inbox / FOLDER, "holds this name", name):
            return False
    except OutputError:
        return True


def forget_the_dead(inbox: Path) -> None:
    """Remove the files of holders that were killed."""
    if (inbox / FOLDER).is_dir():
        for file in list((inbox / FOLDER).iterdir()):
            is_alive(inbox, file.name)  # a lock that is free again leaves no file
