"""A folder of this machine for what lies below a URL, and the right to write there; kept from run to run.

Who takes it up after a process that was killed on this machine need not wait for that one's lease to run out.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from hashlib import sha256
from pathlib import Path

from pleura.errors import OutputError, writing
from pleura.files import held, user_cache
from pleura.urls.lease import Lease
from pleura.urls.url import Url

_OWNER, _HELD = "owner", ".desk"


@contextmanager
def leased(out: Url, kind: str, what: str) -> Iterator[tuple[Path, Lease]]:
    """Yield the folder of a URL, with what an earlier run left in it, while no other process writes below that URL.

    kind: of the command that uses it so, a word. what: ends the refusal "another process ...".
    Raises: OutputError, StoreError.
    """
    folder = _folder(out, kind)
    with ExitStack() as stack:
        try:
            stack.enter_context(held(folder, what, _HELD))
        except OutputError as error:
            raise OutputError(str(error).replace(str(folder), str(out))) from error
        # Who holds the lock of this folder follows a process that is dead, if that had this folder too.
        owner = folder / _OWNER
        with writing(folder):
            if not owner.exists():
                owner.write_text(secrets.token_hex(16))
        # A home that several machines share may have no locks.
        machine = sha256(socket.gethostname().encode()).hexdigest()[:16]
        with Lease(out, f"{owner.read_text()}-{machine}", what) as lease:
            yield folder, lease


def clear(folder: Path) -> None:
    """Remove what a run has written to its folder. Raises: OutputError."""
    with writing(folder):
        for path in folder.iterdir():
            if path.name in (_OWNER, _HELD):
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def forget(out: Url, kind: str) -> None:
    """Clear the folder of a URL where a run has left something, unless another process is at it."""
    if _place(out, kind)[0].is_dir():
        with suppress(OutputError):
            folder = _folder(out, kind)
            with held(folder, "is at it", _HELD):
                clear(folder)


def _place(out: Url, kind: str) -> tuple[Path, bool]:
    """Where the folder of a URL is, and whether others can write beside it."""
    name = f"{kind}-{sha256(str(out).encode()).hexdigest()[:16]}"
    try:
        return user_cache("urls") / name, False
    except RuntimeError:  # a user without a home
        return Path(tempfile.gettempdir()) / f"pleura-{name}", True


def _folder(out: Url, kind: str) -> Path:
    folder, is_shared = _place(out, kind)
    with writing(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if is_shared and hasattr(os, "getuid"):
            _refuse_anothers(folder)
    return folder


def _refuse_anothers(folder: Path) -> None:
    """Anybody can make a folder of this name in a folder for all users, and read there what is written to it."""
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise OutputError(f"{folder}: belongs to another user; set XDG_CACHE_HOME to a folder of your own")
    folder.chmod(0o700)
