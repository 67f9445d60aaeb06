"""A URL of an object or of what lies below one; a place is that, or a path."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple, TypeAlias

from pleura.errors import InputError, excerpt

DRIVERS = {
    **dict.fromkeys(("s3", "s3a"), "s3fs"),
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    **dict.fromkeys(("az", "abfs", "abfss"), "adlfs"),
    "memory": "fsspec",
}
"""Scheme -> the package that fsspec needs for it."""
_KNOWN = "s3://, gs://, az://, memory:// and file://"
# A path takes one of two slashes away. One letter is a drive of Windows.
_FORM = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(/+)(.*)", re.DOTALL)
_QUERY = re.compile(r"\?[^/]*=")
# user:password@bucket, whose password may hold a slash; and one that was cut before its sign.
_PASSWORD = re.compile(r"[^/]*:|.*:.*@", re.DOTALL)
# The name of an access point, the one bucket with colons.
_ACCESS_POINT = re.compile(r"arn:aws[a-z-]*:s3[a-z-]*:[^/@]*(/|$)")


class Head(NamedTuple):
    """What the first bytes of an object say."""

    is_radiograph: bool
    kind: str
    """As what it is counted where it is none."""
    uid: str | None
    """Its SOP Instance UID."""
    pixels: int
    """Rows x columns; 0 where they cannot be read."""


@dataclass(frozen=True)
class Url:
    """Equal where it names the same object, whatever is known of that."""

    scheme: str
    parts: tuple[str, ...]
    """Bucket, and then the key between its slashes."""
    size: int = field(default=-1, compare=False)
    """In bytes, as it was listed; -1 where it was not."""
    etag: str = field(default="", compare=False)
    """Differs where its content does; "" where the store has none."""
    mtime_ns: int = field(default=0, compare=False)
    head: Head | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return f"{self.scheme}://{'/'.join(self.parts)}"

    def __truediv__(self, name: str) -> Url:
        return self.joinpath(name)

    def joinpath(self, *names: str) -> Url:
        """Return the URL below this one."""
        return Url(self.scheme, (*self.parts, *(part for name in names for part in name.split("/"))))

    @property
    def name(self) -> str:
        """The last part."""
        return self.parts[-1]

    @property
    def suffix(self) -> str:
        """That of the last part, with its dot."""
        return PurePosixPath(self.name).suffix

    @property
    def parent(self) -> Url:
        """What it lies in."""
        return Url(self.scheme, self.parts[:-1])

    def is_below(self, base: Url) -> bool:
        """Whether it lies below another one."""
        return self.scheme == base.scheme and self.parts[: len(base.parts)] == base.parts and self != base


Place: TypeAlias = Path | Url


def is_url(text: str | Path) -> bool:
    """Whether something names an object of a store, `file://` not counted, even where a `Path` took a slash away."""
    found = _FORM.fullmatch(str(text))
    return found is not None and found[1].lower() in DRIVERS


def place_of(text: str | Path, is_recorded: bool = False) -> Place:
    """Return the path or URL that a text names.

    is_recorded: it was found below a URL that has been taken, and its own name may hold any sign.
    Raises: InputError for a URL of a kind that pleura does not take, or that holds credentials, which it then does not
    repeat.
    """
    found = _FORM.fullmatch(str(text))
    if found is None or (found[1].lower() not in (*DRIVERS, "file") and found[2] != "//"):
        return Path(text)
    scheme, rest = found[1].lower(), found[3]
    if scheme == "file":
        if isinstance(text, str) and found[2] != "///":
            raise InputError("a file:// URL has three slashes and the whole path, as file:///data/study")
        return Path(f"/{rest}")
    if scheme not in DRIVERS:
        raise InputError(f"{excerpt(scheme)}:// is none of the URLs that pleura takes: {_KNOWN}; take a copy of it")
    if not is_recorded and _holds_credentials(scheme, rest):
        raise InputError(
            f"{scheme}://...: a URL is not to hold a password, a signature or another query, which tables and logs "
            "would show; credentials come from the environment, such as AWS_ACCESS_KEY_ID"
        )
    return Url(scheme, _parts(scheme, rest))


def _holds_credentials(scheme: str, rest: str) -> bool:
    if _QUERY.search(rest):
        return True
    # abfs://container@account/ is a name; nothing else has a sign there but for a user and a password.
    if "@" in rest.partition("/")[0] and not scheme.startswith("abfs"):
        return True
    return _PASSWORD.match(rest) is not None and not _ACCESS_POINT.match(rest)


def _parts(scheme: str, rest: str) -> tuple[str, ...]:
    parts = tuple(rest.rstrip("/").split("/"))
    if not {"", ".", ".."}.isdisjoint(parts):
        raise InputError(
            f"{scheme}://{excerpt(rest)}: has an empty part, or . or .. as one; write {scheme}://bucket/name"
        )
    return parts


def order(place: Place) -> tuple[bool, tuple[str, ...]]:
    """Return what places are sorted by: as paths are, part by part."""
    return isinstance(place, Url), place.parts
