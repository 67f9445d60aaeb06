"""Images of floats in another size: as Pillow's, in little memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_WHOLE_PX, _STRIP_PX = 2**21, 2**18


def resized(image: NDArray[Any], shape: tuple[int, int], method: Image.Resampling) -> NDArray[np.float32]:
    """Return an image of any numbers, (rows, columns), with `shape` as float32; itself where it is that already.

    The same bits as `Image.resize`, which widens its filter to reduce. Pillow copies what it is given, and numpy what
    it gives, twice: of an image of 30 million pixels 480 MB. Of a large image both of its passes, first along rows and
    then down columns, are done here strip by strip.
    """
    if image.shape == shape and image.dtype == np.float32:
        return image
    (rows_before, columns_before), (rows, columns) = image.shape, shape
    is_small = max(image.size, rows * columns) <= _WHOLE_PX
    # Pillow 13 takes columns first where rows are lost, more than twice as many; older versions do not.
    may_be_columns_first = 0 < rows_before - rows > 2 * (columns_before - columns)
    if is_small or may_be_columns_first:
        return _resized(image, shape, method)
    across = np.empty((rows_before, columns), dtype=np.float32)
    for strip in _strips(rows_before, columns_before, columns):
        across[strip] = _resized(image[strip], across[strip].shape, method)
    if rows == rows_before:
        return across
    down = np.empty(shape, dtype=np.float32)
    for strip in _strips(columns, rows_before, rows):
        down[:, strip] = _resized(across[:, strip], down[:, strip].shape, method)
    return down


def _strips(count: int, before: int, after: int) -> list[slice]:
    """Return slices of `count` rows, or columns, that have `before` pixels each, and will have `after`."""
    step = max(1, _STRIP_PX // max(before, after))
    return [slice(start, start + step) for start in range(0, count, step)]


def _resized(image: NDArray[Any], shape: tuple[int, ...], method: Image.Resampling) -> NDArray[np.float32]:
    picture = Image.fromarray(np.ascontiguousarray(image, dtype=np.float32))
    return np.asarray(picture.resize((shape[1], shape[0]), method))
