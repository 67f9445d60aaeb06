"""API keys: who may ask. Only their hashes are kept, and they are compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pleura.errors import InputError

ENV, FILE_ENV = "PLEURA_API_KEY", "PLEURA_API_KEY_FILE"
LEAST_CHARACTERS = 16
MAKE_ONE = "make one with: openssl rand -hex 32"


@dataclass(frozen=True)
class Keys:
    """The sha256 of each key; without any, everyone may ask."""

    digests: tuple[bytes, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.digests)

    def who(self, headers: Mapping[str, str]) -> bytes | None:
        """Return the hash of the key that a request has, or None where it has none of these.

        headers: by names in lower case; `x-api-key: KEY`, or `authorization: Bearer KEY`.
        """
        scheme, _, token = headers.get("authorization", "").partition(" ")
        given = headers.get("x-api-key") or (token.strip() if scheme.lower() == "bearer" else "")
        digest = hashlib.sha256(given.encode("utf-8", "surrogateescape")).digest()
        found = None
        for known in self.digests:  # each of them, whichever it is: the time says nothing
            if hmac.compare_digest(known, digest):
                found = known
        return found


NO_KEYS = Keys()


def load_keys(path: Path | None, environment: Mapping[str, str] = os.environ) -> Keys:
    """Return the keys of a file, one a line, or else those that the environment has.

    A file may hold several, so that clients can change over to a new one in turn; lines that begin with # are none.
    Raises: InputError for a file that cannot be read or holds none, or a key of less than 16 characters.
    """
    path = path or (Path(environment[FILE_ENV]) if environment.get(FILE_ENV) else None)
    if path is None:
        lines, where = [environment.get(ENV, "")], ENV
    else:
        try:
            lines, where = path.read_text(encoding="utf-8").splitlines(), str(path)
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: no keys can be read from it ({error}); {MAKE_ONE}") from error
    keys = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if path is not None and not keys:
        raise InputError(f"{path}: holds no key; {MAKE_ONE}")
    for key in keys:
        if len(key) < LEAST_CHARACTERS or not key.isascii() or not key.isprintable() or " " in key:
            raise InputError(
                f"{where}: a key has at least {LEAST_CHARACTERS} printable characters of ASCII and no space; {MAKE_ONE}"
            )
    return Keys(tuple(hashlib.sha256(key.encode()).digest() for key in keys))
