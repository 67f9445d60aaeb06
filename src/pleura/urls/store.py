"""Objects of any store that fsspec has a driver for; the one file that imports fsspec.

Drivers retry what is worth it, with growing pauses, and give up in bounded time: s3fs after 5 tries of 15 s without an
answer. Credentials and endpoints are theirs to find, in the environment (AWS_ENDPOINT_URL) or fsspec's own settings; an
error of theirs is put in our words, and what they say is not repeated, since it may hold some of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from functools import cache, partial
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from pleura.errors import InputError, MissingExtraError, PleuraError, StoreError, writing
from pleura.extras import is_installed, need
from pleura.urls.url import DRIVERS, Url

AT_ONCE, AHEAD_BYTES = 16, 256 * 2**20
"""Requests that run ahead of what is used, and their bytes together, unless one alone has more."""
PARTS_AT_ONCE = 2
"""Of a large file that goes up or comes, each of 50 MiB in memory: s3fs would take ten."""
Item = TypeVar("Item")
_IS_THERE = {"PreconditionFailed", "ConditionalRequestConflict", "412"}
"""What stores answer where an object that is to be created is there, or is just being created by another process."""
_PAST_ITS_END = {"InvalidRange", "416"}
_OF_ONE = {"", "AccessDenied", "403"}
"""What denies access to one object; other codes of a `PermissionError` are of the credentials. "": none was given."""
_ARCHIVED = "InvalidObjectState"
_EXPIRED = "the credentials of the environment have expired; get new ones"
_CREDENTIALS = {
    "ExpiredToken": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "InvalidToken": "its store does not take the token of the environment; check AWS_SESSION_TOKEN",
    "InvalidAccessKeyId": "its store does not know the access key of the environment; check AWS_ACCESS_KEY_ID, and "
    "AWS_ENDPOINT_URL if the store is not Amazon's",
    "SignatureDoesNotMatch": "the secret key of the environment is not that of its access key; check "
    "AWS_SECRET_ACCESS_KEY",
    "RequestTimeTooSkewed": "the clock of this machine is not the store's; set it",
}
GOES_ON = "; the same command goes on from here"
"""The end of refusals by a store that is away or takes no credentials."""
_TIMES = ("LastModified", "mtime", "updated", "last_modified", "created")


class AbsentError(InputError):
    """There is no object of this name."""


@cache
def _store(scheme: str) -> Any:
    """Raises: MissingExtraError."""
    need("fsspec", f"{scheme}://")
    driver = DRIVERS[scheme]
    if driver == "s3fs":
        need("s3fs", f"{scheme}://")
    elif not is_installed(driver):
        raise MissingExtraError(f"{scheme}:// needs {driver}, fsspec's driver for it: pip install {driver}")
    import fsspec

    parts = {"max_concurrency": PARTS_AT_ONCE} if driver == "s3fs" else {}
    # A listing is used once, and what another process writes has to be seen.
    return fsspec.filesystem(scheme, use_listings_cache=False, **parts)


def _code(error: BaseException | None) -> str:
    """What a store that speaks S3 calls an error that its driver put in its own words; "" where it is of no store."""
    while error is not None:
        answer = getattr(error, "response", None)
        if isinstance(answer, dict):
            return str(answer.get("Error", {}).get("Code", ""))
        error = error.__cause__
    return ""


class _Asking:
    """Turns what drivers raise into a refusal in one line; many of their errors are plain exceptions.

    Of an object that is read, what is not there or denied is an InputError, of that object alone; all else is a
    StoreError, which ends a batch.
    """

    def __init__(self, url: Url, alone: type[PleuraError] = StoreError) -> None:
        """alone: what the refusal of this object is that says nothing of others."""
        self.url, self.alone = url, alone

    def __enter__(self) -> None:
        """Nothing is done before."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if not isinstance(error, Exception) or isinstance(error, PleuraError | FileExistsError):
            return
        name, code = type(error).__name__, _code(error)
        if isinstance(error, FileNotFoundError):
            absent = AbsentError if self.alone is InputError else self.alone
            raise absent(f"{self.url}: is not there; check its name, and that of the bucket") from None
        if "Credential" in name:
            raise StoreError(
                f"{self.url}: there are no credentials in the environment; set them, such as AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, on the machines of a cluster too"
            ) from None
        if code in _CREDENTIALS:
            raise StoreError(f"{self.url}: {_CREDENTIALS[code]}{GOES_ON}") from None
        if code == _ARCHIVED:
            raise self.alone(f"{self.url}: is archived; restore it in its store first") from None
        if isinstance(error, PermissionError) and code not in _OF_ONE:
            raise StoreError(
                f"{self.url}: its store does not take the credentials of the environment; check them"
            ) from None
        if isinstance(error, PermissionError):
            raise self.alone(
                f"{self.url}: access denied; give the credentials of the environment the right to it"
            ) from None
        if "Timeout" in name or isinstance(error, TimeoutError):
            reason = "does not answer in time"
        elif "Connect" in name or "HTTPClient" in name or isinstance(error, ConnectionError):
            reason = "its server cannot be reached"
        else:
            reason = f"its store refuses ({name})"
        raise StoreError(
            f"{self.url}: {reason}; check the network, and AWS_ENDPOINT_URL if the store is not Amazon's{GOES_ON}"
        ) from None


def listed(base: Url) -> list[Url]:
    """Return the object of this name, or all below it, sorted; none where there is none.

    Left out are names that end in a slash, which stand for folders.
    Raises: InputError if the bucket is not there or may not be listed, StoreError.
    """
    with _Asking(base, alone=InputError):
        found = _store(base.scheme).find(str(base), detail=True)
    urls = []
    while found:  # the driver's own record of each is large, and let go of one by one
        name, facts = found.popitem()
        if facts.get("type") != "directory" and not name.endswith("/"):
            urls.append(_with_facts(Url(base.scheme, tuple(name.lstrip("/").split("/"))), facts))
    return sorted(urls, key=lambda url: url.parts)


def _with_facts(url: Url, facts: dict[str, Any]) -> Url:
    etag = str(facts.get("ETag") or facts.get("etag") or "").strip('"')
    time = next((facts[name] for name in _TIMES if facts.get(name)), 0)
    if isinstance(time, str):
        time = datetime.fromisoformat(time)
    seconds = time.timestamp() if isinstance(time, datetime) else float(time)
    return Url(url.scheme, url.parts, int(facts.get("size") or 0), etag, int(seconds * 1e9))


def exists(url: Url) -> bool:
    """Whether there is an object of this name. Raises: StoreError."""
    with _Asking(url):
        try:
            found = _store(url.scheme).info(str(url))
        except FileNotFoundError:
            return False
        return bool(found["type"] == "file")


def get(url: Url, first: int | None = None) -> bytes:
    """Return the content of an object, or its first bytes.

    Raises: InputError if it is not there, may not be read, or has another size than was listed; StoreError.
    """
    if url.size == 0:
        return b""
    # A known size saves s3fs from asking for it; a byte more than that shows an object that has grown.
    end = first if first is not None else url.size + 1 if url.size > 0 else None
    with _Asking(url, alone=InputError):
        try:
            content: bytes = _store(url.scheme).cat_file(str(url), **({} if end is None else {"start": 0, "end": end}))
        except OSError as error:
            if _code(error) not in _PAST_ITS_END:
                raise
            content = b""  # of an empty object there is not even the first byte
    if url.size >= 0 and len(content) != (url.size if first is None else min(first, url.size)):
        raise InputError(f"{url}: changed while it was read; run the same command again")
    return content


def get_file(url: Url, path: Path) -> None:
    """Write the content of an object to a file, a piece in memory at a time.

    Raises: InputError if it is not there or may not be read, OutputError, StoreError.
    """
    with _Asking(url, alone=InputError), writing(path):
        _store(url.scheme).get_file(str(url), str(path))


def put(url: Url, content: bytes) -> None:
    """Write an object, whole or not at all. Raises: StoreError."""
    with _Asking(url):
        _store(url.scheme).pipe_file(str(url), content)


def put_file(path: Path, url: Url) -> None:
    """Write a file's content as an object, whole or not at all, few pieces of it in memory. Raises: StoreError."""
    with _Asking(url):
        _store(url.scheme).put_file(str(path), str(url))


def create(url: Url, content: bytes) -> bool:
    """Write an object unless there is one of this name, and return whether it was written.

    A store that knows no conditions writes it anyway. Raises: StoreError.
    """
    with _Asking(url):
        try:
            _store(url.scheme).pipe_file(str(url), content, mode="create")
        except OSError as error:  # drivers know one form of this answer, of Amazon's
            if isinstance(error, FileExistsError) or _code(error) in _IS_THERE:
                return False
            raise
    return True


def delete(url: Url) -> None:
    """Delete an object, where it is. Raises: StoreError."""
    with _Asking(url), suppress(FileNotFoundError):
        _store(url.scheme).rm_file(str(url))


def ahead(
    items: Iterable[Item], url_of: Callable[[Item], Url], first: int | None = None
) -> Iterator[tuple[Item, bytes | InputError]]:
    """Yield each item with the content of its object, or why there is none, in order, while the next are fetched.

    first: how many bytes of each; None: all. Raises: StoreError.
    """
    waiting: deque[tuple[Item, int, Future[bytes | InputError]]] = deque()
    held_bytes = 0
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for item in items:
            url = url_of(item)
            size = max(0, url.size) if first is None else min(first, max(0, url.size))
            while waiting and (len(waiting) >= AT_ONCE or held_bytes + size > AHEAD_BYTES):
                done, its_size, future = waiting.popleft()
                held_bytes -= its_size
                yield done, future.result()
            waiting.append((item, size, pool.submit(partial(_got, url, first))))
            held_bytes += size
        while waiting:
            done, _, future = waiting.popleft()
            yield done, future.result()


def _got(url: Url, first: int | None) -> bytes | InputError:
    try:
        return get(url, first)
    except InputError as error:
        return error
