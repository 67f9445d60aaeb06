"""PNG files as they were written: every sample at its own depth, palette and transparency kept apart."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pleura.data.png_chunks import CHANNELS, GREY, PALETTE, RGB, SIGNATURE, deep_channels, inflated, png_of
from pleura.dicom.limits import check_size
from pleura.dicom.parse import collect_warnings
from pleura.errors import InputError

_ORIENTATION, _UPRIGHT = 0x0112, 1
_LONGEST_REASON = 120
# What Pillow raises on damaged files; any other exception is a bug and stays visible.
_DAMAGE: tuple[type[Exception], ...] = (
    *(ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, OSError, SyntaxError, TypeError, ValueError),
    *(struct.error, zlib.error, Image.DecompressionBombError),
)


@dataclass(frozen=True, eq=False)
class Png:
    """One PNG: what its samples are, before anyone says what they mean."""

    samples: NDArray[np.integer]
    """(rows, columns, channels), in 0 ... 2 ** depth_bits - 1; of a palette its indices, one channel."""
    depth_bits: int
    colour_type: int
    palette: NDArray[np.uint8] | None
    """(n, 4): red, green, blue and alpha of each index, of a palette only."""
    transparent: tuple[int, ...] | None
    """Of grey and RGB: the one colour that is transparent, where the file names one."""

    @property
    def full(self) -> int:
        """The highest value that a sample can have."""
        return int(2**self.depth_bits - 1)


def read_png(path: Path) -> Png:
    """Read a PNG without scaling, converting or dropping anything.

    Raises: InputError, without the path, if it is no PNG, damaged, animated, turned by its EXIF, or far too large.
    """
    try:
        with collect_warnings():
            return _read(path)
    except _DAMAGE as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).replace(str(path), "it").split())
        raise InputError(reason[:_LONGEST_REASON] or type(error).__name__) from error


def _read(path: Path) -> Png:
    with path.open("rb") as file:
        head = file.read(26)
    if not head.startswith(SIGNATURE):
        raise InputError("it is a JPEG" if head.startswith(b"\xff\xd8\xff") else "it is no PNG")
    if len(head) < 26:
        raise InputError("it is cut short")
    depth, colour = head[24], head[25]
    with Image.open(path, formats=("PNG",)) as picture:
        columns, rows = picture.size
        check_size(rows, columns)
        if getattr(picture, "n_frames", 1) > 1:
            raise InputError("it is animated; save one picture")
        if picture.getexif().get(_ORIENTATION, _UPRIGHT) != _UPRIGHT:
            raise InputError("its EXIF turns it; save it upright")
        transparency, palette = picture.info.get("transparency"), None
        if colour == PALETTE:
            palette = _palette(picture, transparency)
        chunks = png_of(path.read_bytes())
        if depth == 16 and colour != GREY:
            samples = np.dstack(deep_channels(chunks))
        else:
            inflated(chunks)
            samples = np.asarray(picture)
    samples = samples.reshape(rows, columns, -1)
    if samples.shape[2] != CHANNELS[colour]:
        raise InputError(f"its colour type {colour} came out as {samples.shape[2]} channels")
    if samples.dtype == np.bool_:
        samples = samples.view(np.uint8)
    if colour == GREY and depth in (2, 4):
        samples = samples // (255 // (2**depth - 1))  # Pillow stretches them
    named = (transparency,) if isinstance(transparency, int) else transparency
    return Png(samples, depth, colour, palette, tuple(named) if named and colour in (GREY, RGB) else None)


def _palette(picture: Image.Image, transparency: object) -> NDArray[np.uint8]:
    colours = np.array(picture.getpalette("RGB") or [], dtype=np.uint8).reshape(-1, 3)
    alpha = np.full(len(colours), 255, dtype=np.uint8)
    if isinstance(transparency, bytes):
        count = min(len(alpha), len(transparency))
        alpha[:count] = np.frombuffer(transparency[:count], dtype=np.uint8)
    elif isinstance(transparency, int) and transparency < len(alpha):
        alpha[transparency] = 0
    return np.column_stack([colours, alpha])
