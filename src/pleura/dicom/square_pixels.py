"""Pixels that are not square: an image with square ones of the same field of view, and its shape."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SAME_ASPECT = 0.01
"""Pixels whose sides differ by at most this share count as square."""
LARGEST_ASPECT = 10.0
"""The largest ratio of a pixel's sides; no detector, scanner or export has a larger one."""
# No side becomes longer than this: nets are shown far less, and a file of few bytes may claim any shape.
_LONGEST_PX = 4096


def square_pixel_shape(rows: int, columns: int, aspect: float) -> tuple[int, int]:
    """Return (rows, columns) in square pixels of `rows` x `columns` pixels that are `aspect` times as high as wide.

    The finer of the two distances is kept, unless a side would become longer than it was and than 4096.
    """
    if aspect == 1:
        return rows, columns
    finer = min(1.0, aspect)
    height, width = rows * aspect / finer, columns / finer
    scale = min(1.0, max(_LONGEST_PX, rows, columns) / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def with_square_pixels(image: NDArray[np.float32], aspect: float) -> NDArray[np.float32]:
    """Return an image, float32 (rows, columns), with square pixels; the image itself where they are square.

    Pixel edges are aligned, not pixel centres.
    """
    rows, columns = square_pixel_shape(image.shape[0], image.shape[1], aspect)
    if (rows, columns) == image.shape:
        return image
    picture = Image.fromarray(np.ascontiguousarray(image))
    resized = np.asarray(picture.resize((columns, rows), Image.Resampling.BILINEAR), dtype=np.float32)
    return np.clip(resized, image.min(), image.max())
