"""The square grid of a dataset: how an image of any shape sits on it, and images and masks from one to the other."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pleura.data.resampling import resized
from pleura.dicom.square_pixels import square_pixel_shape
from pleura.errors import InputError

# Half of a pixel's area, less the rounding of a float32 average.
_HALF = 0.5 - 1e-6


@dataclass(frozen=True)
class SquareGeometry:
    """How an image of `rows` x `columns` sits on a square grid of `size_px`.

    `aspect` is how many times as high as wide a pixel is there: masks and probabilities are on that grid, the image has
    square pixels (`image_shape`).
    The aspect is kept: the longer side is scaled to `size_px`, and the other is centred between black borders, the
    odd pixel at the bottom or right. Both grids cover the same area: pixel edges are aligned, not pixel centres.

    Raises: InputError unless the first three are at least 1, and the aspect is positive.
    """

    rows: int
    columns: int
    size_px: int
    aspect: float = 1.0

    def __post_init__(self) -> None:
        if min(self.rows, self.columns, self.size_px) < 1 or not 0 < self.aspect < math.inf:
            pixels = f"{self.rows} x {self.columns} pixels of aspect {self.aspect:g}"
            raise InputError(f"no image has {pixels}, on a grid of {self.size_px}")

    @property
    def image_shape(self) -> tuple[int, int]:
        """(rows, columns) of the image with square pixels."""
        return square_pixel_shape(self.rows, self.columns, self.aspect)

    @property
    def pixels_per_square_pixel(self) -> tuple[float, float]:
        """How many of the `rows` and of the `columns` one pixel of the square grid covers."""
        longer = max(self.rows * self.aspect, self.columns)
        return longer / self.aspect / self.size_px, longer / self.size_px

    @property
    def whole_area_px(self) -> int:
        """How many pixels, of the size that the image's own have, cover the whole square, black borders included.

        The same on a square grid of any size.
        """
        longer = max(self.rows * self.aspect, self.columns)
        return round(longer / self.aspect * longer)

    @property
    def inner_shape(self) -> tuple[int, int]:
        """(rows, columns) of the image on the square grid, in pixels."""
        rows, columns = self.image_shape
        longer = max(rows, columns)
        return max(1, round(rows * self.size_px / longer)), max(1, round(columns * self.size_px / longer))

    @property
    def inner(self) -> tuple[slice, slice]:
        """Where on the square grid the image is."""
        rows, columns = self.inner_shape
        top, left = (self.size_px - rows) // 2, (self.size_px - columns) // 2
        return slice(top, top + rows), slice(left, left + columns)

    def image_to_square(self, image: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Return an image, float32 (`image_shape`) in [0, 1], as uint8 (size_px, size_px), in steps of 1 / 255.

        Reduction averages over the area of a pixel and never overshoots; the same size is passed through exactly.

        Raises: InputError where the shape differs.
        """
        self._check("image", image.shape, self.image_shape)
        square = np.zeros((self.size_px, self.size_px), dtype=np.uint8)
        inner = resized(image, self.inner_shape, Image.Resampling.BILINEAR)
        square[self.inner] = np.rint(np.clip(inner, 0.0, 1.0) * 255.0).astype(np.uint8)
        return square

    def mask_to_square(self, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return a mask, {0, 1} (rows, columns), as uint8 {0, 1} (size_px, size_px).

        A pixel is set where at least half of its area is. A mask that has any pixel keeps at least the one it covers
        most, so that a positive case stays positive.

        Raises: InputError where the shape differs.
        """
        self._check("mask", mask.shape, (self.rows, self.columns))
        square = np.zeros((self.size_px, self.size_px), dtype=np.uint8)
        square[self.inner] = _resize_mask(mask, self.inner_shape)
        return square

    def probabilities_to_original(self, probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return probabilities, float32 (size_px, size_px), as float32 (rows, columns), resized bilinearly.

        Raises: InputError where the shape differs.
        """
        self._check("probabilities", probabilities.shape, (self.size_px, self.size_px))
        inner = np.ascontiguousarray(probabilities[self.inner], dtype=np.float32)
        found = resized(inner, (self.rows, self.columns), Image.Resampling.BILINEAR)
        return np.clip(
            found, inner.min(), inner.max(), out=found if found.flags.writeable and found is not inner else None
        )

    def _check(self, what: str, shape: tuple[int, ...], expected: tuple[int, int]) -> None:
        if shape != expected:
            is_now = " x ".join(map(str, shape))
            raise InputError(f"the {what} is {is_now} pixels where {expected[0]} x {expected[1]} are expected")


def _resize_mask(mask: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Return `mask`, {0, 1}, with `shape` as uint8 {0, 1}; BOX averages to reduce, and takes the nearest to enlarge."""
    binary = (np.asarray(mask) > 0).astype(np.uint8)
    if binary.shape == shape or not binary.any():
        return binary if binary.shape == shape else np.zeros(shape, dtype=np.uint8)
    coverage = resized(binary, shape, Image.Resampling.BOX)
    kept = (coverage >= _HALF).astype(np.uint8)
    if not kept.any():
        kept[np.unravel_index(int(coverage.argmax()), shape)] = 1
    return kept
