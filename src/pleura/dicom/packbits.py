"""RLE Lossless frames: the segments of bytes that make up one, and their decoding.

Source: DICOM PS3.5 Annex G.
"""

from __future__ import annotations

import re
import struct

import numpy as np
from numpy.typing import NDArray

from pleura.dicom.codestream import CodestreamError, SeveralFramesError

_HEADER_BYTES = 64
_NO_OPERATIONS = re.compile(rb"\x80+")
RLE_STARTS = tuple(struct.pack("<2L", segments, _HEADER_BYTES) for segments in (1, 2))
"""How a frame of grey begins: the number of its segments, and where the first one is."""


def decode_rle(frame: bytes, rows: int, columns: int, bytes_per_pixel: int) -> NDArray[np.uint16]:
    """Return the pixels of an RLE frame of one sample per pixel: uint16 (rows, columns), high bytes first in `frame`.

    Raises: CodestreamError where segments are missing, cut short, or hold more than the image.
    """
    offsets = _offsets(frame, bytes_per_pixel)
    planes = [
        _segment(frame[start:end], rows * columns)
        for start, end in zip(offsets, [*offsets[1:], len(frame)], strict=True)
    ]
    values = np.zeros(rows * columns, dtype=np.uint16)
    for plane in planes:
        values <<= 8
        values |= plane
    return values.reshape(rows, columns)


def _offsets(frame: bytes, expected: int) -> list[int]:
    """Return where the segments begin. Raises: CodestreamError. Source: DICOM PS3.5 G.5."""
    if len(frame) < _HEADER_BYTES:
        raise CodestreamError("it is cut short within its RLE header")
    count, *offsets = struct.unpack_from("<16L", frame)
    if count != expected or any(offsets[count:]):
        raise CodestreamError(f"its RLE header names {count} segments, where its depth asks for {expected}")
    offsets = offsets[:count]
    if offsets[0] != _HEADER_BYTES or sorted(set(offsets)) != offsets or offsets[-1] >= len(frame):
        raise CodestreamError("its RLE header is damaged")
    return offsets


def _segment(data: bytes, size: int) -> NDArray[np.uint8]:
    """Return the `size` bytes that a segment holds. Raises: CodestreamError. Source: DICOM PS3.5 G.3.2."""
    values = bytearray()
    position = 0
    while len(values) < size:
        if position + 1 >= len(data):
            raise CodestreamError("it is cut short: an RLE segment ends before the image does")
        control = data[position]
        if control < 128:
            values += data[position + 1 : position + 2 + control]
            position += 2 + control
        elif control > 128:
            values += data[position + 1 : position + 2] * (257 - control)
            position += 2
        elif following := _NO_OPERATIONS.match(data, position):
            position = following.end()
    if position > len(data):
        raise CodestreamError("the last run of an RLE segment names more bytes than there are")
    if data[position:].lstrip(b"\0").startswith(tuple(start.rstrip(b"\0") for start in RLE_STARTS)):
        raise SeveralFramesError
    # The last run may not reach beyond the image, and what follows it is padding.
    if len(values) > size or (len(data) - position > 1 and data[position:].strip(b"\0")):
        raise CodestreamError("an RLE segment holds more than the image")
    return np.frombuffer(values, dtype=np.uint8)
