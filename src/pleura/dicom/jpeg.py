"""JPEG and JPEG-LS codestreams: their headers, whether they are whole, and the decoding of 8 bits.

Source: ITU-T T.81 (JPEG) Annex B, G.1.1.1 (progressive); ITU-T T.87 (JPEG-LS) Annex C.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from pleura.dicom.codestream import Codestream, CodestreamError, refuse_surplus
from pleura.errors import InputError

START = b"\xff\xd8\xff"
BASELINE, EXTENDED, PROGRESSIVE = "JPEG baseline", "JPEG extended", "JPEG progressive"
EIGHT_BIT_CODINGS = (BASELINE, EXTENDED, PROGRESSIVE)
LOSSLESS, JPEG_LS = "JPEG lossless", "JPEG-LS"
_CODINGS = {0xC0: BASELINE, 0xC1: EXTENDED, 0xC2: PROGRESSIVE, 0xC3: LOSSLESS, 0xF7: JPEG_LS}
_EXOTIC = {*range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)}
_SCAN, _END, _FILL = 0xDA, 0xD9, 0xFF
_TABLES = {0xC4, 0xDB, 0xDD, *range(0xE0, 0xF0), 0xF8, 0xFE}
# In entropy-coded data 0xFF is followed by a stuffed 0 or is a restart marker; in JPEG-LS, by a stuffed bit.
_MARKER, _MARKER_LS = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]"), re.compile(rb"\xff[\x80-\xfe]")
# Encoders write some ten; each scan of a progressive image passes over all of its pixels.
_MAX_SCANS = 32


def jpeg_codestream(data: bytes) -> Codestream:
    """Return the header and the bytes of the first JPEG or JPEG-LS image in `data`; what follows it is not read.

    Raises: CodestreamError where a header makes no sense, or the end or a part of the scans is missing; InputError for
    kinds of JPEG that no decoder here reads.
    """
    coding, frame, scans = "", b"", list[bytes]()
    segments = list(_segments(data))
    for marker, segment, _ in segments:
        if marker in _CODINGS and coding:
            raise CodestreamError("it has two frame headers")
        if marker in _CODINGS:
            coding, frame = _CODINGS[marker], segment
        elif marker == _SCAN:
            scans.append(segment)
    last, _, end = segments[-1] if segments else (_FILL, b"", 0)
    if last != _END:
        raise CodestreamError("it is cut short: its end is missing")
    if len(frame) < 9 or len(frame) != 6 + 3 * frame[5]:
        raise CodestreamError("its frame header is missing or damaged")
    bits, rows, columns = struct.unpack_from(">BHH", frame)
    if not rows or not columns or not scans:
        raise CodestreamError("it has no size, or no scan")
    parts = frame[6::3]
    _refuse_unless_whole(coding, parts, scans)
    is_lossy = {LOSSLESS: scans[0][-1] & 15, JPEG_LS: scans[0][-3]}.get(coding, 1) > 0
    return Codestream(coding, rows, columns, len(parts), bits, False, is_lossy, data[:end])


def refuse_surplus_of_jpeg(data: bytes, codestream: Codestream) -> None:
    """Check what follows a JPEG in a DICOM frame. Raises: CodestreamError."""
    refuse_surplus(data[len(codestream.data) :], START)


def decode_jpeg(data: bytes, samples: int) -> NDArray[np.uint8]:
    """Return a JPEG of 8 bits as uint8 (rows, columns), or (rows, columns, 3) in RGB where `samples` is 3.

    Whatever makes libjpeg warn is an error: it goes on after a cut or damaged scan, and fills up with grey. What is
    damaged and still makes sense as a code is beyond any decoder's knowledge.

    Raises: ValueError.
    """
    pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, colorspace="RGB" if samples == 3 else "GRAY", strict=True)
    return pixels if samples == 3 else pixels[..., 0]


def _segments(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Yield each marker, what its segment holds, and where it ends; the end of the image is the last.

    Raises: CodestreamError.
    """
    if not data.startswith(START):
        raise CodestreamError("it does not begin as a JPEG does")
    position, inside = 2, _MARKER
    while data[position : position + 1] == b"\xff":
        position += 1
        marker = data[position] if position < len(data) else _FILL
        if marker == _FILL:
            continue
        position += 1
        if marker == _END:
            yield marker, b"", position
            return
        _refuse_unless_known(marker)
        length = int.from_bytes(data[position : position + 2], "big")
        if length < 2 or position + length > len(data):
            raise CodestreamError("it is cut short within its headers")
        segment = data[position + 2 : position + length]
        position += length
        yield marker, segment, position
        inside = _MARKER_LS if _CODINGS.get(marker) == JPEG_LS else inside
        if marker == _SCAN:
            following = inside.search(data, position)
            position = following.start() if following else len(data)
    if position < len(data):
        raise CodestreamError("it is damaged between its headers")


def _refuse_unless_known(marker: int) -> None:
    """Refuse a marker that no supported JPEG has between its headers. Raises: CodestreamError; InputError."""
    if marker in _EXOTIC:
        raise InputError("arithmetic or hierarchical JPEG is not supported; save it as baseline JPEG")
    if marker not in _CODINGS and marker not in _TABLES and marker != _SCAN:
        raise CodestreamError("it is damaged between its headers")


def _refuse_unless_whole(coding: str, parts: bytes, scans: list[bytes]) -> None:
    """Check that the scans cover every component, and every coefficient of it to its last bit.

    A progressive image that ends after some of its scans looks whole, and is blurred.

    Raises: CodestreamError.
    """
    if len(scans) > _MAX_SCANS:
        raise CodestreamError(f"it has {len(scans)} scans")
    # The lowest bit that each coefficient of each component still lacks; sequential scans bring all at once.
    missing = {(part, coefficient): 99 for part in parts for coefficient in range(64)}
    for scan in scans:
        if len(scan) < 6 or len(scan) != 4 + 2 * scan[0]:
            raise CodestreamError("a scan header is damaged")
        first, last, shift = (scan[-3], scan[-2], scan[-1] & 15) if coding == PROGRESSIVE else (0, 63, 0)
        for part in scan[1:-3:2]:
            missing |= {(part, coefficient): shift for coefficient in range(first, min(last, 63) + 1)}
    if any(missing.values()):
        raise CodestreamError("it is cut short: some of its scans are missing")
    if coding in (LOSSLESS, JPEG_LS) and len(parts) == 1 and len(scans) != 1:
        raise CodestreamError("it has several scans of one component")
