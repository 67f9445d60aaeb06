"""JPEG 2000 codestreams: their headers, whether they are whole, and their decoding.

Source: ITU-T T.800 Annex A (codestream syntax), I.5 (JP2 boxes); T.814 (high throughput).
"""

from __future__ import annotations

import io
import struct

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pleura.dicom.codestream import Codestream, CodestreamError, SeveralFramesError, refuse_surplus

START = b"\xff\x4f\xff\x51"
JPEG_2000, HIGH_THROUGHPUT = "JPEG 2000", "High-Throughput JPEG 2000"
BOXES = b"\0\0\0\x0cjP  \r\n\x87\n"
_SIZE, _CODING, _CAPABILITIES, _TILE_PART, _END = 0xFF51, 0xFF52, 0xFF50, 0xFF90, b"\xff\xd9"
_HT_BIT, _HT_STYLE = 1 << 17, 0x40


def jpeg2000_codestream(data: bytes) -> Codestream:
    """Return the header and the bytes of a JPEG 2000 codestream, bare or in a JP2 file; an open length is filled in.

    Raises: CodestreamError where a header makes no sense, or the end, a tile or a part of one is missing.
    """
    if data.count(BOXES) > 1:
        raise SeveralFramesError
    if data.startswith(BOXES):
        data = _unboxed(data)
    if not data.startswith(START):
        raise CodestreamError("it does not begin as JPEG 2000 does")
    try:
        return _parsed(data)
    except (struct.error, IndexError) as error:
        raise CodestreamError("it is cut short within its headers") from error


def decode_jpeg2000(codestream: Codestream) -> NDArray[np.int32]:
    """Return the values that were encoded, of one component of up to 16 bits: int32 (rows, columns).

    Pillow shifts signed values up to begin at 0, and all values up to fill 8 or 16 bits.

    Raises: OSError or SyntaxError where OpenJPEG, which is strict here, finds that it is damaged.
    """
    with Image.open(io.BytesIO(codestream.data), formats=("JPEG2000",)) as picture:
        values = np.asarray(picture).astype(np.int32)
    values >>= (8 if codestream.bits <= 8 else 16) - codestream.bits
    if codestream.is_signed:
        values -= 1 << (codestream.bits - 1)
    return values


def _parsed(data: bytes) -> Codestream:
    """Read a bare codestream. Raises: CodestreamError; struct.error or IndexError where it is cut short."""
    headers: dict[int, bytes] = {}
    position = 2
    while (marker := struct.unpack_from(">H", data, position)[0]) != _TILE_PART:
        length = struct.unpack_from(">H", data, position + 2)[0]
        if marker < 0xFF00 or length < 2:
            raise CodestreamError("it is damaged between its headers")
        headers.setdefault(marker, data[position + 4 : position + 2 + length])
        position += 2 + length
    if _SIZE not in headers or _CODING not in headers:
        raise CodestreamError("it has no size, or no coding style")
    size, style = headers[_SIZE], headers[_CODING]
    right, bottom, left, top, *tile, samples = struct.unpack_from(">8LH", size, 2)
    depth, *steps = size[36:39]
    if min(tile[:2]) < 1 or right <= left or bottom <= top or (samples == 1 and steps != [1, 1]):
        raise CodestreamError("its size makes no sense")
    tiles = -(-(right - tile[2]) // tile[0]) * -(-(bottom - tile[3]) // tile[1])
    coding = HIGH_THROUGHPUT if _is_high_throughput(headers) else JPEG_2000
    data = _whole(data, position, tiles)
    return Codestream(coding, bottom - top, right - left, samples, (depth & 127) + 1, depth > 127, style[9] == 0, data)


def _is_high_throughput(headers: dict[int, bytes]) -> bool:
    capabilities = struct.unpack_from(">L", headers[_CAPABILITIES])[0] if _CAPABILITIES in headers else 0
    return bool(capabilities & _HT_BIT) or bool(headers[_CODING][8] & _HT_STYLE)


def _whole(data: bytes, position: int, tiles: int) -> bytes:
    """Return the codestream to its end; `position` is of its first tile-part.

    The last tile-part may leave its length open, as 0: it is filled in, because OpenJPEG would count padding with it.

    Raises: CodestreamError unless every tile is there with all of its parts, then the end, then padding alone.
    """
    expected: dict[int, int] = {}
    found: dict[int, int] = {}
    while data[position : position + 2] == b"\xff\x90":
        tile, length, _, parts = struct.unpack_from(">HLBB", data, position + 4)
        if not length:
            # No two bytes of packets make up a marker, so that the first that look like the end are the end.
            length = data.find(_END, position + 12) - position
            if length > 0:
                data = data[: position + 6] + struct.pack(">L", length) + data[position + 10 :]
        if length < 14 or position + length > len(data):
            raise CodestreamError("it is cut short: a tile-part is not whole")
        found[tile] = found.get(tile, 0) + 1
        expected[tile] = max(parts, expected.get(tile, 0))
        position += length
    if data[position : position + 2] != _END:
        raise CodestreamError("it is cut short: its end is missing")
    if len(found) != tiles or max(found) >= tiles or any(found[tile] < expected[tile] for tile in found):
        raise CodestreamError("it is cut short: some of its tiles are missing")
    refuse_surplus(data[position + 2 :], START)
    return data[: position + 2]


def _unboxed(data: bytes) -> bytes:
    """Return the codestream in a JP2 file. Raises: CodestreamError."""
    position = 0
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">L4s", data, position)
        start = position + 8
        if length == 1 and position + 16 <= len(data):
            length, start = struct.unpack_from(">Q", data, start)[0], start + 8
        if kind == b"jp2c":
            return data[start : position + length if length else len(data)]
        if kind == b"jp2h" and b"pclr" in data[start : position + length]:
            raise CodestreamError("it has a palette")
        if length < 8:
            break
        position += length
    raise CodestreamError("it is cut short: it holds no codestream")
