"""The metadata of an ONNX file, read and written without the packages of ONNX, which a hospital's machine lacks.

An ONNX file is one protobuf message: fields in turn, each a tag, a length and a content. Its metadata are some of them.
Source: https://protobuf.dev/programming-guides/encoding, and ModelProto of https://github.com/onnx/onnx (onnx.proto).
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

METADATA, KEY, VALUE = 14, 1, 2
"""Numbers of fields: `metadata_props` of ModelProto, and what each entry of it has."""
_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5
BLOCK_BYTES = 1 << 20


def read_metadata(path: Path) -> tuple[dict[str, str], str]:
    """Return the metadata of an ONNX file, and the sha256 of all the rest of it.

    Raises: ValueError if it is none, or is cut off; OSError.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        metadata = _split(file, digest.update)
    return metadata, digest.hexdigest()


def with_metadata(model: bytes, metadata: Mapping[str, str], sum_key: str) -> bytes:
    """Return an ONNX file with these metadata, and no others but `sum_key`: the sha256 of all the rest of it.

    Raises: ValueError if `model` is no ONNX file.
    """
    rest = bytearray()
    _split(io.BytesIO(model), rest.extend)
    texts = {**metadata, sum_key: hashlib.sha256(rest).hexdigest()}
    for key, text in sorted(texts.items()):
        rest += _field(METADATA, _field(KEY, key.encode()) + _field(VALUE, text.encode()))
    return bytes(rest)


def _split(file: BinaryIO, rest: Callable[[bytes], object]) -> dict[str, str]:
    """Return the metadata; every other byte goes to `rest`, in order."""
    metadata: dict[str, str] = {}
    while tag := _varint(file, end_is_good=True):
        number, kind = _value(tag) >> 3, _value(tag) & 7
        length = b""
        if kind == _VARINT:
            length, size = _varint(file), 0
        elif kind == _BYTES:
            length = _varint(file)
            size = _value(length)
        elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
            size = 8 if kind == _EIGHT_BYTES else 4
        else:
            raise ValueError("it is no ONNX file")
        if (number, kind) == (METADATA, _BYTES):
            key, text = _entry(_exactly(file, size))
            metadata[key] = text
            continue
        rest(tag + length)
        while size:
            block = _exactly(file, min(size, BLOCK_BYTES))
            rest(block)
            size -= len(block)
    return metadata


def _entry(content: bytes) -> tuple[str, str]:
    """The key and the value of an entry of the metadata."""
    file, found = io.BytesIO(content), {KEY: "", VALUE: ""}
    while tag := _varint(file, end_is_good=True):
        if _value(tag) & 7 != _BYTES:
            raise ValueError("its metadata are damaged")
        found[_value(tag) >> 3] = _exactly(file, _value(_varint(file))).decode()
    return found[KEY], found[VALUE]


def _field(number: int, content: bytes) -> bytes:
    return _as_varint(number << 3 | _BYTES) + _as_varint(len(content)) + content


def _varint(file: BinaryIO, end_is_good: bool = False) -> bytes:
    """The bytes of a number, seven bits in each; none at the end of the file, where that is good."""
    read = file.read(1)
    if not read and end_is_good:
        return b""
    while not read or read[-1] & 0x80:
        if len(read) == 10:
            raise ValueError("it is no ONNX file")
        read += _exactly(file, 1)
    return read


def _value(varint: bytes) -> int:
    return sum((byte & 0x7F) << 7 * place for place, byte in enumerate(varint))


def _as_varint(value: int) -> bytes:
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*made, value])


def _exactly(file: BinaryIO, size: int) -> bytes:
    content = file.read(size)
    if len(content) != size:
        raise ValueError("it is cut off")
    return content
