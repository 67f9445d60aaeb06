"""How large a radiograph may be: the size in a file's header is checked before any of it is decoded."""

from __future__ import annotations

import os

from pleura.errors import InputError

# The largest detectors have under 30 million pixels: a header that states more is damaged, or a decompression bomb's.
MEGAPIXELS = 30
SETTING = "PLEURA_MAX_MEGAPIXELS"
MAX_SIDE_PX = 20_000
# Header, thumbnails and compressed pixels of more than the pixels themselves: no radiograph's file has as much.
_OTHER_BYTES = 64 * 2**20


def max_pixels() -> int:
    """Return the most pixels that a radiograph may have: 30 million, or as set in the environment.

    PLEURA_MAX_MEGAPIXELS is a number of millions; memory and time of a read grow with it.

    Raises: InputError where it is no positive number.
    """
    text = os.environ.get(SETTING) or str(MEGAPIXELS)
    try:
        millions = float(text)
    except ValueError:
        millions = 0.0
    if not 0 < millions < 1e6:
        raise InputError(f"{SETTING} is {text[:64]!r}; give a number of millions of pixels, such as {MEGAPIXELS}")
    return int(millions * 1e6)


def max_bytes() -> int:
    """Return the most bytes that a radiograph's file, inflated, may have. Raises: InputError."""
    return 2 * max_pixels() + _OTHER_BYTES


def check_size(rows: int, columns: int) -> None:
    """Refuse an image of a size that no radiograph has, or that is larger than the limit.

    Raises: InputError.
    """
    if min(rows, columns) < 1 or max(rows, columns) > MAX_SIDE_PX:
        raise InputError(f"{rows} x {columns} pixels is no radiograph's size; export it again")
    limit = max_pixels()
    if rows * columns > limit:
        raise InputError(
            f"{rows} x {columns} pixels are more than the {limit / 1e6:g} million that a radiograph may have; "
            f"export it smaller, or set {SETTING} higher"
        )
