"""Codestreams as encoders write them, and as few do: JPEG lossless of every predictor, JPEG-LS, JPEG 2000."""

from __future__ import annotations

import io
import struct

import imagecodecs
import numpy as np
from jpeg_ls import encode_buffer
from PIL import Image

_CODE_BITS = 6
"""Of the code of every number of bits that a difference may have, 0 to 16: the code is that number."""


def jpeg_lossless(
    stored: np.ndarray, bits: int, *, predictor: int = 1, shift: int = 0, rows_at_once: int = 0, left_over: bytes = b""
) -> bytes:
    """One component by the rules of ITU-T T.81 Annex H; shift: the point transform. left_over: behind the last code."""
    values = stored.astype(np.int64) >> shift
    rows, columns = values.shape
    counts = bytes([0] * (_CODE_BITS - 1) + [17] + [0] * (16 - _CODE_BITS))
    tables = b"\0" + counts + bytes(range(17))
    frame = struct.pack(">BHHB3B", bits, rows, columns, 1, 1, 0x11, 0)
    restarts = _segment(0xDD, struct.pack(">H", rows_at_once * columns)) if rows_at_once else b""
    scan = bytes([1, 1, 0, predictor, 0, shift])
    coded = b""
    step = rows_at_once or rows
    for number, first in enumerate(range(0, rows, step)):
        marker = bytes([0xFF, 0xD0 + (number - 1) % 8]) if number else b""
        coded += marker + _coded(values[first : first + step], predictor, 1 << (bits - shift - 1))
    headers = _segment(0xC4, tables) + _segment(0xC3, frame) + restarts + _segment(0xDA, scan)
    return b"\xff\xd8" + headers + coded + left_over + b"\xff\xd9"


def _segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def _coded(values: np.ndarray, predictor: int, first: int) -> bytes:
    left, above = np.roll(values, 1, axis=1), np.roll(values, 1, axis=0)
    corner = np.roll(above, 1, axis=1)
    expected = [
        *(left, left, above, corner, left + above - corner, left + ((above - corner) >> 1)),
        *(above + ((left - corner) >> 1), (left + above) >> 1),
    ][predictor]
    expected[0], expected[:, 0] = left[0], above[:, 0]
    expected[0, 0] = first
    differences = (values - expected + 2**15 - 1) % 2**16 - (2**15 - 1)  # -32767 to 32768
    bits = []
    for difference in differences.ravel().tolist():
        length = abs(difference).bit_length()
        bits.append(f"{length:0{_CODE_BITS}b}")
        if 0 < length < 16:
            bits.append(f"{difference + (0 if difference > 0 else 2**length - 1):0{length}b}")
    text = "".join(bits)
    text += "1" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\0")


def jpeg_ls(stored: np.ndarray, bits: int, near: int = 0) -> bytes:
    """near: how far a value may be off."""
    return bytes(encode_buffer(stored.tobytes(), *stored.shape, 1, bits, lossy_error=near))


def jpeg_2000(stored: np.ndarray, bits: int, level: int = 0) -> bytes:
    """A bare codestream, reversible where level, the wanted signal to noise in dB, is 0."""
    return bytes(imagecodecs.jpeg2k_encode(stored, level=level, codecformat="J2K", bitspersample=bits))


def jpeg_2000_by_pillow(stored: np.ndarray, **options: object) -> bytes:
    content = io.BytesIO()
    Image.fromarray(stored).save(content, "JPEG2000", **{"no_jp2": True, **options})
    return content.getvalue()


def moved(codestream: bytes, by: int = 64) -> bytes:
    """A JPEG 2000 of one tile, as if it was cut out of a larger image. Source: ITU-T T.800 A.5.1, B.2."""
    at = codestream.index(b"\xff\x51") + 6
    right, bottom, _, _, wide, high, *corner = struct.unpack_from(">8L", codestream, at)
    sizes = struct.pack(">8L", right + by, bottom + by, by, by, wide + by, high + by, *corner)
    return codestream[:at] + sizes + codestream[at + 32 :]
