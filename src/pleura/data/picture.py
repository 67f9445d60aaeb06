"""Radiographs that are pictures: the grey values of a PNG or JPEG."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from pleura.data.png import (
    GREY,
    PALETTE,
    PILLOW_DAMAGE,
    RGB,
    SIGNATURE,
    UNREADABLE,
    PngChunks,
    deep_channels,
    inflated,
    png_of,
)
from pleura.dicom.jpeg import EIGHT_BIT_CODINGS, START, decode_jpeg, jpeg_codestream
from pleura.dicom.limits import check_size, max_bytes
from pleura.dicom.parse import collect_warnings
from pleura.dicom.square_pixels import LARGEST_ASPECT, SAME_ASPECT
from pleura.errors import InputError, excerpt

_FORMATS = ("PNG", "JPEG")
_GREY_MODES, COLOUR_MODES = ("L", "I;16", "I"), ("LA", "P", "PA", "RGB", "RGBA")
DEPTHS_BITS = (8, 10, 12, 14, 16)
"""Of detectors. Neither PNG nor an array records how many of 16 bits were used."""
CHANNEL_TOLERANCE = 4
"""Of 255 levels: grey that was saved as a JPEG in colour comes back with channels this far apart."""
_BLOCK_ROWS = 256


def least_depth_bits(highest: int) -> int:
    """Return the least depth of a detector that holds a value of at most 16 bits."""
    return next(bits for bits in DEPTHS_BITS if highest < 2**bits)


def is_picture(path: Path) -> bool:
    """Return whether a file is a PNG or JPEG by its content; DICOM allows any bytes before its own magic."""
    try:
        with path.open("rb") as file:
            head = file.read(132)
    except OSError:
        return False  # read_dicom refuses it with the reason
    return head[128:] != b"DICM" and head.startswith((SIGNATURE, START))


def picture_pixels(path: Path) -> int:
    """Return how many pixels a PNG or JPEG has by its header, or 0 where that cannot be read."""
    try:
        with collect_warnings(), Image.open(path, formats=_FORMATS) as picture:
            return picture.width * picture.height
    except UNREADABLE:
        return 0


def picture_aspect(path: Path) -> float:
    """Return how many times as high as wide a pixel of a PNG or JPEG is; 1 where it is square, or not known.

    Source: PNG 11.3.4.3 (pHYs), JFIF 1.02 (Xdensity, Ydensity).
    """
    try:
        with collect_warnings(), Image.open(path, formats=_FORMATS) as picture:
            info = picture.info
            density = info.get("jfif_density") if picture.format == "JPEG" else info.get("aspect") or info.get("dpi")
            across, down = (float(one) for one in density or (1, 1))
            aspect = across / down
            if not 1 / LARGEST_ASPECT <= aspect <= LARGEST_ASPECT or abs(aspect - 1) <= SAME_ASPECT:
                return 1.0
            is_turned = picture.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
            return 1 / aspect if is_turned else aspect
    except UNREADABLE:
        return 1.0


def read_picture(path: Path) -> NDArray[np.float32]:
    """Return the pixels of a PNG or JPEG: float32 (rows, columns) in [0, 1].

    8 bits become value / 255. 16-bit PNG is divided by the full range of the depth that its sBIT names; without one,
    of the least depth of 8, 10, 12, 14 or 16 bits that holds its highest value, because PNG does not record otherwise
    how many of the 16 bits a detector used. Colour whose channels agree is read as grey, also with alpha where that is
    the same everywhere; the orientation in EXIF is applied.

    Raises: InputError, one line with the file, the reason and the way out.
    """
    return image_of_values(*picture_values(path))


def image_of_values(values: NDArray[np.integer], bits: int) -> NDArray[np.float32]:
    """Return what `picture_values` gives as float32 (rows, columns) in [0, 1]."""
    image = values.astype(np.float32)
    image /= np.float32(2**bits - 1)
    return image


def picture_values(path: Path) -> tuple[NDArray[np.integer], int]:
    """Return the whole numbers of a PNG or JPEG, (rows, columns) from 0 on, and the bits of their full range.

    As `read_picture`, which divides them. Raises: InputError, as `read_picture`.
    """
    try:
        with collect_warnings():
            return _read(path)
    except InputError as error:
        raise InputError(f"cannot read {path}: {error}") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"cannot read {path}: it has far more pixels than a radiograph; export it again") from error
    except PILLOW_DAMAGE as error:
        reason = excerpt(error) or type(error).__name__
        raise InputError(f"cannot read {path}: truncated or damaged ({reason}); copy or export it again") from error


def _read(path: Path) -> tuple[NDArray[np.integer], int]:
    """Return the whole numbers of a PNG or JPEG, (rows, columns), and the bits of their full range.

    Raises: InputError; what Pillow raises on damaged files.
    """
    if path.stat().st_size > max_bytes():
        raise InputError(
            f"its file has more than the {max_bytes() // 10**6} MB that a radiograph may have; export it again"
        )
    content = path.read_bytes()
    png = png_of(content) if content.startswith(SIGNATURE) else None
    if png is None:
        _refuse_unless_eight_bits(content)
    with Image.open(io.BytesIO(content), formats=_FORMATS) as picture:
        check_size(picture.height, picture.width)
        if picture.mode not in _GREY_MODES + COLOUR_MODES:
            raise InputError(f"not a greyscale radiograph (mode {picture.mode}); save it as 8- or 16-bit grey")
        frames = getattr(picture, "n_frames", 1)
        if frames > 1:
            raise InputError(f"it holds {frames} pictures; export one radiograph per file")
        values = _png_values(png, picture) if png else _jpeg_values(content, picture)
        info = picture.info
    highest = int(values.max())
    if highest == int(values.min()):
        raise InputError("all pixels are equal: it shows nothing; export it again")
    values, bits = _with_depth(values, highest, png.significant_bits if png else None)
    return _upright(values, info | ({"exif": b"Exif\0\0" + png.exif} if png and png.exif else {})), bits


def _upright(values: NDArray[Any], info: dict[Any, Any]) -> NDArray[Any]:
    """Return the values turned by the EXIF in a picture's `info`; damaged EXIF turns nothing."""
    carrier = Image.fromarray(values)
    carrier.info = info
    try:
        return np.asarray(ImageOps.exif_transpose(carrier))
    except PILLOW_DAMAGE:
        return values


def _refuse_unless_eight_bits(content: bytes) -> None:
    """Refuse a JPEG that is cut short or that Pillow cannot name. Raises: InputError; CodestreamError."""
    codestream = jpeg_codestream(content)
    if codestream.bits != 8 or codestream.coding not in EIGHT_BIT_CODINGS:
        raise InputError(f"{codestream.bits}-bit {codestream.coding} is not supported; save it as 16-bit grey PNG")


def _jpeg_values(content: bytes, picture: Image.Image) -> NDArray[np.uint8]:
    """Return the grey values of a JPEG: uint8 (rows, columns).

    Raises: InputError where it is in colour; ValueError where it is damaged.
    """
    if picture.mode == "L":
        return decode_jpeg(content, 1)
    channels = decode_jpeg(content, 3)
    return _one_of([channels[..., channel] for channel in range(3)], 255)


def _png_values(png: PngChunks, picture: Image.Image) -> NDArray[Any]:
    """Return the grey values of a PNG: uint8, uint16 or int32 (rows, columns).

    Raises: InputError where it is in colour, or partly transparent; what Pillow raises where it is damaged.
    """
    if png.depth < 16 or png.colour == GREY:
        inflated(png)
    if picture.mode in _GREY_MODES:
        return np.asarray(picture)
    if png.colour == PALETTE and np.asarray(picture).max() >= len(picture.getpalette() or []) // 3:
        raise ValueError("its pixels refer to colours that its palette does not have")
    if png.depth < 16:
        pixels = np.asarray(picture.convert("RGBA"))
        colours, alpha = [pixels[..., channel] for channel in range(3)], pixels[..., 3]
    else:
        *colours, alpha = deep_channels(png)
        if png.colour == RGB:
            colours, alpha = [*colours, alpha], _opacity([*colours, alpha], png.transparent)
    if alpha.min() != alpha.max() or not alpha.any():
        raise InputError("it has transparent pixels; save it as 8- or 16-bit grey")
    return _one_of(colours, max(int(colour.max()) for colour in colours))


def _opacity(colours: Sequence[NDArray[np.uint16]], transparent: bytes | None) -> NDArray[np.bool_]:
    """Return where pixels of 16 bits are opaque: all but those of the colour that tRNS names."""
    if transparent is None:
        return np.ones(1, dtype=np.bool_)
    named = struct.unpack(">3H", transparent)
    opaque: NDArray[np.bool_] = np.any([colour != key for colour, key in zip(colours, named, strict=True)], axis=0)
    return opaque


def _one_of(colours: Sequence[NDArray[Any]], highest: int) -> NDArray[Any]:
    """Return the grey of colours that agree, each (rows, columns). Raises: InputError where they do not."""
    tolerance = CHANNEL_TOLERANCE * highest // 255
    first = colours[len(colours) // 2]
    for other in colours:
        # A block at a time: a large picture in colour would else take five times its size.
        for start in range(0, len(first), _BLOCK_ROWS):
            block = first[start : start + _BLOCK_ROWS].astype(np.int32)
            if np.abs(block - other[start : start + _BLOCK_ROWS]).max() > tolerance:
                raise InputError("it is in colour; give the greyscale radiograph")
    return np.ascontiguousarray(first)


def _with_depth(values: NDArray[Any], highest: int, significant: int | None) -> tuple[NDArray[Any], int]:
    """Return the values as the detector stored them, as far as that is known, and their depth in bits.

    Where sBIT names the detector's depth, its values are either scaled up to all bits, as the specification prescribes:
    then its significant bits are taken. Or they lie in the lower bits, as many tools write them.
    """
    full = 8 if values.dtype == np.uint8 else 16
    if significant == full:
        return values, full
    if significant and significant < full:
        low = full - significant
        kept = values >> low
        remainder = values & ((1 << low) - 1)
        repeated = (kept << low) >> significant if low <= significant else None
        if not remainder.any() or (repeated is not None and np.array_equal(remainder, repeated)):
            return kept, significant
        if highest < 2**significant:
            return values, significant
    return values, 8 if full == 8 else least_depth_bits(highest)
