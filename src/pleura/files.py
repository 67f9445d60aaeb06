"""Files that a killed run or a full disk leaves whole, and JSON that every reader takes."""

from __future__ import annotations

import json
import math
import os
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pleura.errors import writing

DICOM_SUFFIXES = (".dcm", ".dicom")
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")
RADIOGRAPH_SUFFIXES = (*DICOM_SUFFIXES, *PICTURE_SUFFIXES)


def without_suffix(name: str) -> str:
    """Drop a radiograph's suffix from a name; no other, because the UIDs of DICOM have dots themselves."""
    stem, dot, suffix = name.rpartition(".")
    return stem if stem and f"{dot}{suffix}".lower() in RADIOGRAPH_SUFFIXES else name


def name_of(path: Path) -> str:
    """A file's name without a radiograph's suffix, in the Unicode form NFC: some systems store names in another."""
    return without_suffix(unicodedata.normalize("NFC", path.name))


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a killed run, sees the old content or the new, never a part.

    Raises: OutputError; the old file is then as it was.
    """
    temporary = path.with_name(f".{path.name}.part")
    with writing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise


def refuse_unwritable(folder: Path) -> None:
    """Find out that nothing can be written to a folder before the work, not after it; makes the folder.

    Raises: OutputError.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".pleura-probe"
        probe.touch()
        probe.unlink()


def as_json(document: Mapping[str, Any]) -> str:
    """A document as text: JSON has no NaN, so that what could not be measured becomes null."""
    return json.dumps(_without_nan(document), indent=1)


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
