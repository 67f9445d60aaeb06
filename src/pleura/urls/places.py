"""Finds, writes and removes results wherever they lie: files of a folder, or objects of a store."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from pleura.files import write_atomically
from pleura.urls.store import delete, exists, put
from pleura.urls.url import Place


def is_there(place: Place) -> bool:
    """Whether there is a file or an object of this name. Raises: StoreError."""
    return place.exists() if isinstance(place, Path) else exists(place)


def write(place: Place, content: bytes) -> None:
    """Write a file or an object, whole or not at all. Raises: OutputError, StoreError."""
    if isinstance(place, Path):
        write_atomically(place, content)
    else:
        put(place, content)


def remove(place: Place) -> None:
    """Remove a file or an object, where it is and can be. Raises: StoreError."""
    if isinstance(place, Path):
        with suppress(OSError):
            place.unlink()
    else:
        delete(place)
