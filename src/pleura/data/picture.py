"""Radiographs that are pictures: the grey values of a PNG or JPEG."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from pleura.dicom.limits import check_size
from pleura.dicom.parse import collect_warnings
from pleura.errors import InputError, excerpt

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_FORMATS = ("PNG", "JPEG")
_GREY_MODES, _COLOUR_MODES = ("L", "I;16", "I"), ("LA", "P", "PA", "RGB", "RGBA")
_DEPTHS_BITS = (8, 10, 12, 14, 16)
# What Pillow raises on damaged files; any other exception is a bug and stays visible.
_DAMAGE: tuple[type[Exception], ...] = (
    *(ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, OSError, SyntaxError, TypeError, ValueError),
    *(struct.error, zlib.error),
)
_UNREADABLE: tuple[type[Exception], ...] = (Image.DecompressionBombError, *_DAMAGE)
# Grey that went through a JPEG in colour comes back with channels a few of 255 levels apart.
_CHANNEL_TOLERANCE = 4


def is_picture(path: Path) -> bool:
    """Tell whether a file is a PNG or JPEG by its content; DICOM allows any bytes before its own magic."""
    try:
        with path.open("rb") as file:
            head = file.read(132)
    except OSError:
        return False  # what is wrong with the path is said by read_dicom
    return head[128:] != b"DICM" and head.startswith((_PNG, _JPEG))


def picture_pixels(path: Path) -> int:
    """Return how many pixels a PNG or JPEG has by its header, or 0 where that cannot be read."""
    try:
        with collect_warnings(), Image.open(path, formats=_FORMATS) as picture:
            return picture.width * picture.height
    except _UNREADABLE:
        return 0


def read_picture(path: Path) -> NDArray[np.float32]:
    """Return the pixels of a PNG or JPEG: float32 (rows, columns) in [0, 1].

    8 bits become value / 255. 16-bit PNG is divided by the full range of the least depth of 8, 10, 12, 14 or 16 bits
    that holds its highest value, because PNG does not record how many of the 16 bits a detector used. Colour whose
    channels agree is read as grey; the orientation in EXIF is applied.

    Raises: InputError, one line with the file, the reason and the way out.
    """
    try:
        with collect_warnings():
            return _read(path)
    except InputError as error:
        raise InputError(f"cannot read {path}: {error}") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"cannot read {path}: it has far more pixels than a radiograph; export it again") from error
    except _DAMAGE as error:
        reason = excerpt(error) or type(error).__name__
        raise InputError(f"cannot read {path}: truncated or damaged ({reason}); copy or export it again") from error


def _read(path: Path) -> NDArray[np.float32]:
    """Return the pixels of a PNG or JPEG: float32 (rows, columns) in [0, 1].

    Raises: InputError; what Pillow raises on damaged files.
    """
    with Image.open(path, formats=_FORMATS) as picture:
        columns, rows = picture.size
        check_size(rows, columns)
        if picture.mode not in _GREY_MODES + _COLOUR_MODES:
            raise InputError(f"not a greyscale radiograph (mode {picture.mode}); save it as 8- or 16-bit grey")
        upright = ImageOps.exif_transpose(picture)
    values = np.asarray(upright) if upright.mode in _GREY_MODES else _grey(upright)
    highest = int(values.max())
    if highest == int(values.min()):
        raise InputError("all pixels are equal: it shows nothing; export it again")
    bits = 8 if values.dtype == np.uint8 else next((bits for bits in _DEPTHS_BITS if highest < 2**bits), 16)
    return values.astype(np.float32) / np.float32(2**bits - 1)


def _grey(picture: Image.Image) -> NDArray[np.uint8]:
    """Return a picture in colour whose channels agree as uint8 (rows, columns).

    Raises: InputError where they do not, or where it is partly transparent.
    """
    channels = np.asarray(picture.convert("RGBA"))
    if channels[..., 3].min() < 255:
        raise InputError("it has transparent pixels; save it as 8- or 16-bit grey")
    red, green, blue = (channels[..., channel].astype(np.int16) for channel in range(3))
    spread = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    if spread.max() > _CHANNEL_TOLERANCE:
        raise InputError("it is in colour; give the greyscale radiograph")
    return channels[..., 1].copy()
