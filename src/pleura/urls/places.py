"""Finds, reads, writes and removes files wherever they lie: files of a folder, or objects of a store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pleura.errors import InputError, PleuraError
from pleura.files import write_atomically
from pleura.urls.copies import copied, said
from pleura.urls.store import AbsentError, delete, exists, get, put
from pleura.urls.url import Place


def is_there(place: Place) -> bool:
    """Whether there is a file or an object of this name. Raises: StoreError."""
    return place.exists() if isinstance(place, Path) else exists(place)


def read(place: Place) -> bytes | None:
    """Return the content of a file or an object; None where there is none. Raises: InputError, StoreError."""
    try:
        return place.read_bytes() if isinstance(place, Path) else get(place)
    except AbsentError:
        return None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{place}: cannot be read ({error.strerror})") from error


@contextmanager
def at_hand(place: Place) -> Iterator[Path]:
    """Yield the path of a file or folder, or of a copy of it. Raises: as `copied`."""
    if isinstance(place, Path):
        yield place
        return
    with copied([place]) as (path,):
        try:
            yield path
        except PleuraError as error:
            raise type(error)(said(str(error))) from error


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
