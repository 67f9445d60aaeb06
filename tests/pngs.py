"""PNG files sample by sample, as any tool may write them, for tests."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6


def png_bytes(
    samples: np.ndarray,
    colour: int = GREY,
    depth: int = 8,
    palette: Sequence[tuple[int, int, int]] = (),
    transparent: bytes = b"",
) -> bytes:
    """A PNG with exactly these samples, (rows, columns) or (rows, columns, channels); transparent: content of tRNS."""
    rows, columns = samples.shape[:2]
    flat = samples.reshape(rows, -1)
    if depth == 16:
        lines = flat.astype(">u2").view(np.uint8).reshape(rows, -1)
    else:
        shifts = np.arange(depth - 1, -1, -1)
        bits = (flat[..., None].astype(np.int64) >> shifts) & 1
        lines = np.packbits(bits.reshape(rows, -1).astype(np.uint8), axis=1)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", columns, rows, depth, colour, 0, 0, 0))]
    if palette:
        chunks.append((b"PLTE", bytes(np.array(palette, np.uint8).reshape(-1))))
    if transparent:
        chunks.append((b"tRNS", transparent))
    chunks.append((b"IDAT", zlib.compress(b"".join(b"\0" + line.tobytes() for line in lines))))
    chunks.append((b"IEND", b""))
    whole = [struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
             for kind, data in chunks]  # fmt: skip
    return b"\x89PNG\r\n\x1a\n" + b"".join(whole)


def write_png(path: Path, samples: np.ndarray, *more: object, **named: object) -> Path:
    """Write `png_bytes` to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png_bytes(samples, *more, **named))  # type: ignore[arg-type]
    return path
