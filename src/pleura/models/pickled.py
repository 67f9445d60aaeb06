"""The names inside a pickle that is not unpickled, for the refusal of a file that holds other objects.

Every class and function that the pickle names is replaced by one that does nothing; tensors' bytes are not read.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

MOST_BYTES = 1 << 26
"""Of names and plain values; the tensors lie beside them."""
_DAMAGE = (
    *(ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, OSError, RuntimeError, TypeError),
    *(ValueError, pickle.UnpicklingError, struct.error, zipfile.BadZipFile),
)


class _Inert:
    """Stands for any object: it can be made, filled and hashed, and does nothing."""

    def __new__(cls, *_args: object, **_options: object) -> _Inert:
        return object.__new__(cls)

    def __init__(self, *_args: object, **_options: object) -> None:
        pass

    def __setstate__(self, _state: object) -> None:
        pass

    def __setitem__(self, _key: object, _value: object) -> None:
        pass

    def append(self, _value: object) -> None:
        """Take what a list would."""

    def extend(self, _values: object) -> None:
        """Take what a list would."""


class _Names(pickle._Unpickler):
    """The one in Python, because the one in C takes gigabytes for a number in a damaged file."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        return type(printable(f"{module}.{name}"), (_Inert,), {})

    def persistent_load(self, _name: object) -> Any:
        return _Inert()


def keys_of(path: Path) -> dict[Any, Any] | None:
    """Return the dict of a torch file, with an inert stand-in for each object; None where it cannot be read."""
    try:
        with zipfile.ZipFile(path) as archive:
            name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
            if archive.getinfo(name).file_size > MOST_BYTES:
                return None
            content = _Names(io.BytesIO(archive.read(name))).load()
    except (StopIteration, *_DAMAGE):
        return None
    return content if isinstance(content, dict) else None


def printable(text: object, most: int = 64) -> str:
    """Return the first printable characters of a text that a file holds."""
    plain = "".join(character if character.isprintable() else "?" for character in str(text)[: most + 1])
    return plain if len(plain) <= most else f"{plain[: most - 3]}..."
