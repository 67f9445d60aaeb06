"""RLE Lossless frames: the segments of bytes that make up one, and their decoding.

Source: DICOM PS3.5 Annex G.
"""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from pleura.dicom.codestream import CodestreamError, SeveralFramesError

_HEADER_BYTES = 64
_PART_BYTES = 1 << 16
# By control byte: to the next one, and how many bytes the run gives. 128 does nothing.
_STEPS = np.array([*range(2, 130), 1, *[2] * 127], dtype=np.uint8)
_COUNTS = np.array([*range(1, 129), 0, *range(128, 1, -1)], dtype=np.int32)
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
    values, filled, position = np.empty(size, dtype=np.uint8), 0, 0
    codes = np.frombuffer(data, dtype=np.uint8)
    while filled < size:
        starts, counts = _runs(codes[position : position + _PART_BYTES])
        starts += position
        last = min(int(np.searchsorted(counts.cumsum(), size - filled)), len(starts) - 1)
        if last < 0 or starts[last] + 1 >= len(data):
            raise CodestreamError("it is cut short: an RLE segment ends before the image does")
        starts, counts = starts[: last + 1], counts[: last + 1]
        position = int(starts[-1]) + int(_STEPS[data[starts[-1]]])
        here, missing = int(counts.sum()), max(0, position - len(data))
        if here - missing > size - filled:
            raise CodestreamError("an RLE segment holds more than the image")
        if missing:
            short = here - missing < size - filled
            way = "it is cut short: an RLE segment ends before the image does"
            raise CodestreamError(way if short else "the last run of an RLE segment names more bytes than there are")
        values[filled : filled + here] = _expanded(codes, starts, counts)
        filled += here
    rest = data[position:]
    if rest.lstrip(b"\0").startswith(tuple(start.rstrip(b"\0") for start in RLE_STARTS)):
        raise SeveralFramesError
    if len(rest) > 1 and rest.strip(b"\0"):  # what follows the last run is padding
        raise CodestreamError("an RLE segment holds more than the image")
    return values


def _runs(codes: NDArray[np.uint8]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return where the runs of a part begin, which begins with one, and how many bytes each gives.

    Where a run begins follows from the one before alone, so that this much is a loop; it is all that is.
    """
    steps, starts, position = _STEPS[codes].tolist(), [], 0
    while position < len(steps):
        starts.append(position)
        position += steps[position]
    where = np.array(starts, dtype=np.int32)
    return where, _COUNTS[codes[where]]


def _expanded(codes: NDArray[np.uint8], starts: NDArray[np.int32], counts: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Return the bytes that runs give, one after the other."""
    ends, literal = counts.cumsum(dtype=np.int32), codes[starts] < 128
    # Of a literal run each byte stands one further on than the byte before it, of the others all stand in one place.
    first = starts + 1 - np.where(literal, ends - counts, 0)
    places = np.repeat(first, counts)
    places += np.arange(len(places), dtype=np.int32) * np.repeat(literal, counts)
    expanded: NDArray[np.uint8] = codes[places]
    return expanded
