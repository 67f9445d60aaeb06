"""What a client sends: a body of bounded size and time, in memory alone, and the files in it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from pleura.errors import excerpt
from pleura.serve.problems import ProblemError

Receive = Callable[[], Awaitable[Mapping[str, Any]]]

RAW = (
    *("application/dicom", "image/png", "image/jpeg", "application/octet-stream", ""),
    "application/x-www-form-urlencoded",  # what curl --data-binary says of any file
)
"""Media types of a body that is one file; its content decides what it is."""
MULTIPART = ("multipart/form-data", "multipart/related")
_LONGEST_NAME = 255
_PIECE_BYTES = 2**20


@dataclass(frozen=True)
class Upload:
    """One file as it was sent. Its name is only ever given back to the client: no file is named by it."""

    name: str | None
    content: bytes | bytearray


class Held:
    """The bytes of all uploads together, and their limit."""

    def __init__(self, most_bytes: int) -> None:
        self.bytes, self._most = 0, most_bytes

    def hold(self) -> Hold:
        """Return the account of one request."""
        return Hold(self)

    def change(self, more: int) -> None:
        """Count bytes that came, or went. Raises: ProblemError (busy) where they are too many together."""
        if more > 0 and self.bytes + more > self._most:
            raise ProblemError(
                "busy", "the service holds as many bytes as it may; send it again later", retry_after_s=2
            )
        self.bytes += more


class Hold:
    """The bytes of one request; given back once, however often it is released."""

    def __init__(self, held: Held) -> None:
        self._held, self._bytes = held, 0

    def add(self, count: int) -> None:
        """Count bytes that came. Raises: ProblemError (busy)."""
        self._held.change(count)
        self._bytes += count

    def release(self) -> None:
        """Give them back."""
        self._held.change(-self._bytes)
        self._bytes = 0


def media_type_of(headers: Mapping[str, str]) -> str:
    """Return the media type of a body, without its parameters. Raises: ProblemError (unsupported-type)."""
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in (*RAW, *MULTIPART):
        raise ProblemError(
            "unsupported-type",
            "send the bytes of a DICOM, PNG or JPEG file, or multipart/form-data with it; not " + excerpt(media_type),
        )
    if headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise ProblemError("unsupported-type", "send the body without a Content-Encoding")
    return media_type


async def read_body(
    receive: Receive, headers: Mapping[str, str], most_bytes: int, hold: Hold, seconds: float
) -> bytearray:
    """Return the body of a request. It is refused unread where its length says too much, else as soon as it is more.

    Raises: ProblemError (too-large, body-timeout, busy, client-gone).
    """
    large = ProblemError("too-large", f"a body has at most {most_bytes} bytes here")
    length = headers.get("content-length", "")
    if length.isdecimal() and int(length) > most_bytes:
        raise large
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ProblemError("client-gone", "the body did not arrive")
                chunk = message.get("body", b"")
                if len(body) + len(chunk) > most_bytes:
                    raise large
                hold.add(len(chunk))
                body += chunk
                if not message.get("more_body", False):
                    return body
    except TimeoutError as error:
        raise ProblemError("body-timeout", f"a body arrives within {seconds:g} s here") from error


def files_of(body: bytes | bytearray, content_type: str, most_files: int) -> list[Upload]:
    """Return the files of a body: itself, or those of a multipart.

    Raises: ProblemError (no-file, several-files, bad-multipart, bad-parameter, too-many-files).
    """
    media_type, parameters = parse_options_header(content_type)
    if media_type.decode("latin-1") not in MULTIPART:
        if not body:
            raise ProblemError("no-file", "the body is empty; send the bytes of a DICOM, PNG or JPEG file")
        return [Upload(None, body)]
    parts = _Parts(media_type == b"multipart/form-data", most_files)
    boundary = parameters.get(b"boundary", b"")
    try:
        parser = MultipartParser(boundary, parts.callbacks())  # type: ignore[arg-type]
        for start in range(0, len(body), _PIECE_BYTES):  # it takes bytes alone, and all of them would be a copy
            parser.write(bytes(body[start : start + _PIECE_BYTES]))
    except FormParserError as error:
        raise ProblemError("bad-multipart", f"{excerpt(error)}; let a library for HTTP build the multipart") from error
    if not boundary or not parts.ended:
        raise ProblemError("bad-multipart", "the boundary is missing, or the body ends before its last boundary")
    if not parts.files:
        raise ProblemError("no-file", "the multipart holds no file; send one, as curl -F file=@image.dcm does")
    return parts.files


class _Parts:
    """Collects the files of a multipart."""

    def __init__(self, is_form: bool, most_files: int) -> None:
        self.files: list[Upload] = []
        self.ended = False
        self._is_form, self._most = is_form, most_files
        self._name: str | None = None
        self._content, self._header, self._value = bytearray(), bytearray(), bytearray()
        self._disposition: dict[bytes, bytes] = {}

    def callbacks(self) -> dict[str, Callable[..., None]]:
        """Return what the parser calls."""
        names = ("part_begin", "part_data", "part_end", "header_field", "header_value", "header_end", "end")
        named: dict[str, Callable[..., None]] = {f"on_{name}": getattr(self, f"_{name}") for name in names}
        return named | {"on_headers_finished": self._headers_finished}

    def _part_begin(self) -> None:
        if len(self.files) >= self._most:
            if self._most == 1:
                raise ProblemError("several-files", "one radiograph at a time here; /v1/predict:batch takes several")
            raise ProblemError("too-many-files", f"at most {self._most} files make a job; send several jobs")
        self._content, self._disposition = bytearray(), {}

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            _, self._disposition = parse_options_header(bytes(self._value))
        self._header, self._value = bytearray(), bytearray()

    def _headers_finished(self) -> None:
        name = self._disposition.get(b"filename")
        if self._is_form and name is None:
            field = excerpt(self._disposition.get(b"name", b"").decode("utf-8", "replace"))
            raise ProblemError("bad-parameter", f"the form has a field {field!r}; only files are taken, without fields")
        self._name = None if name is None else _printable(name)

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        self._content += data[start:end]

    def _part_end(self) -> None:
        self.files.append(Upload(self._name, self._content))

    def _end(self) -> None:
        self.ended = True


def _printable(name: bytes) -> str:
    text = name.decode("utf-8", "replace")[:_LONGEST_NAME]
    return "".join(letter if letter.isprintable() else " " for letter in text)
