"""What arrives goes to the disk while it arrives: one dataset's bytes, their hash, and no more memory than a piece."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import shutil
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pleura.errors import InputError

INCOMING = "incoming"
LEAST_FREE_BYTES = 10**8
"""Left on the disk whatever arrives: without room for results and tables nothing would be delivered, and so nothing
would ever make room."""


@dataclass(frozen=True)
class Beginning:
    """What stands before a dataset in its file."""

    head: bytes
    """Preamble and file meta information. Source: DICOM PS3.10 7.1."""
    transfer_syntax_uid: str


@dataclass(frozen=True)
class Arrival:
    """A whole instance on the disk, not yet in the inbox."""

    path: Path
    name: str
    """Of its files from now on, and in the log."""
    sop_instance_uid: str
    sha256: str
    """Of transfer syntax and dataset: the same for the same bytes, whoever sends them."""
    size_bytes: int
    sender: str


class Spool(io.BytesIO):
    """Takes the pieces of one dataset. A BytesIO for the DICOM network layer, which accepts nothing else.

    No piece is refused: a full disk, or a dataset that is too large, is known when all of it has come, as the protocol
    has no answer before that. What is not kept is gone when this is closed or forgotten.
    """

    def __init__(self, folder: Path, begin: Callable[[], Beginning | None], limit_bytes: int) -> None:
        """begin: called at the first piece; None where the dataset is not wanted."""
        super().__init__()
        self._folder, self._begin, self._limit_bytes = folder, begin, limit_bytes
        self._hash = hashlib.sha256()
        self._file: BinaryIO | None = None
        self._path: Path | None = None
        self._begun = False
        self.size_bytes = 0
        """Of the dataset, as far as it has come."""
        self.fault: OSError | InputError | None = None
        """Why it cannot be kept."""

    @property
    def is_wanted(self) -> bool:
        """Whether it is kept, or would be but for a fault."""
        return not self._begun or self._path is not None or self.fault is not None

    def write(self, piece: Any) -> int:
        """Take the next piece."""
        self.size_bytes += len(piece)
        try:
            self._put(piece)
        except (OSError, InputError) as error:
            self.fault = self.fault or error
            self._discard()
        return len(piece)

    def finish(self, sop_instance_uid: str, sender: str) -> Arrival:
        """Return the instance once all of it is on the disk. Raises: the fault, if there was one; OSError."""
        if self.fault is not None:
            raise self.fault
        if self._file is None or self._path is None:
            raise InputError("nothing of it came")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        arrival = Arrival(
            self._path, self._path.stem, sop_instance_uid, self._hash.hexdigest(), self.size_bytes, sender
        )
        self._file = None
        return arrival

    def close(self) -> None:
        """Forget it; its file goes, unless the inbox has taken it."""
        self._discard()
        super().close()

    def _put(self, piece: Any) -> None:
        if not self._begun:
            self._open()
        if self.size_bytes > self._limit_bytes:
            most = self._limit_bytes // 10**6
            raise InputError(f"it has more than the {most} MB that a radiograph may have")
        if self._file is not None:
            self._refuse_unless_room_is_left(len(piece))
            self._file.write(piece)
            self._hash.update(piece)

    def _refuse_unless_room_is_left(self, more_bytes: int) -> None:
        if shutil.disk_usage(self._folder).free - more_bytes < LEAST_FREE_BYTES:
            raise OSError(errno.ENOSPC, "the disk of the inbox is full")

    def _open(self) -> None:
        self._begun = True
        begun = self._begin()
        if begun is None:
            return
        self._path = self._folder / f"{time.strftime('%Y%m%dT%H%M%S')}-{uuid.uuid4().hex[:12]}.part"
        self._file = self._path.open("xb")
        self._file.write(begun.head)
        self._hash.update(begun.transfer_syntax_uid.encode() + b"\0")

    def _discard(self) -> None:
        file, self._file = getattr(self, "_file", None), None
        with suppress(OSError):  # buffered bytes that a full disk does not take
            if file is not None:
                file.close()
        if getattr(self, "_path", None) is not None:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)  # type: ignore[union-attr]
