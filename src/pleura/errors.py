"""The errors that pleura raises on purpose: one line that names the file or the setting, and the way out.

The command line prints the message of a `PleuraError` and exits with 1; anything else is a bug in pleura.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class PleuraError(Exception):
    """Something outside pleura's control is not as it should be; the message names it and the way out."""


class InputError(PleuraError):
    """A radiograph, mask, csv or dataset folder cannot be used."""


class RLEError(InputError):
    """A run-length string does not describe a mask of the given shape."""


class ConfigError(PleuraError):
    """A recipe or an override does not fit the schema; the message names each setting by its dotted path."""


class CheckpointError(PleuraError):
    """A checkpoint file is damaged, or belongs to another net."""


class OutputError(PleuraError):
    """A result could not be written: the disk is full, the folder is read-only, or it holds something else."""


class StoreError(PleuraError):
    """A store of objects cannot be reached or denies access: nothing more can be read from it, or written."""


class MissingExtraError(PleuraError):
    """A package that not every installation has is needed; the message names the extra that brings it."""


class NonFiniteLossError(PleuraError):
    """The training loss became NaN or infinite; the message names the cases of the batch."""


EXCERPT_CHARACTERS = 64


def excerpt(text: object) -> str:
    """Return text from a file as a message may quote it: one line of at most 64 printable characters.

    A header can hold anything, such as the patient's name, and be as long as the file.
    """
    printable = "".join(letter if letter.isprintable() else " " for letter in str(text)[: 64 * EXCERPT_CHARACTERS])
    line = " ".join(printable.split())
    return line if len(line) <= EXCERPT_CHARACTERS else line[: EXCERPT_CHARACTERS - 3] + "..."


_WAYS_OUT = {
    errno.ENOSPC: "the disk is full; free some space and run the same command again",
    errno.EDQUOT: "the disk quota is used up; free some space and run the same command again",
    errno.EACCES: "permission denied; choose another --out or change its permissions",
    errno.EPERM: "permission denied; choose another --out or change its permissions",
    errno.EROFS: "the file system is read-only; choose another --out",
    errno.ENOTDIR: "a part of the path is a file, not a folder; choose another --out",
    errno.ENAMETOOLONG: "the name is longer than the file system allows; rename the file",
    errno.EEXIST: "a file of that name is in the way; choose another --out",
}


@contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """Turn the operating system's refusal to write `path` into an `OutputError` with the way out.

    Raises: OutputError.
    """
    try:
        yield
    except OSError as error:
        reason = _WAYS_OUT.get(error.errno or 0, error.strerror or str(error))
        raise OutputError(f"cannot write {path}: {reason}") from error
