"""Images that are nearly the same: a copy that was saved again, scaled, or made brighter is a copy all the same.

A 64-bit perceptual hash finds candidates among all pairs, the correlation of thumbnails decides: chest radiographs
are so alike that hashes alone take different patients for copies.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

THUMBNAIL_PX, HASHED_PX = 64, 32
"""Sides of what correlates, and of what is hashed."""
HASH_SIDE = 8
MAX_DISTANCE = 10
"""Bits of 64 in which copies may differ."""
MIN_CORRELATION = 0.98
"""Of the 4.06 million pairs of 2,849 real radiographs none reaches it. Of 300 that were saved as JPEG of quality 30,
scaled to 0.6, darkened or put through a gamma of 0.7 or 1.4 every one does; a clipped or shifted copy need not."""
_BLOCK, _STEP = 2048, 4
_SAMPLED = np.arange(_STEP * THUMBNAIL_PX)
_COSINES: NDArray[np.float32] = np.cos(
    np.pi * np.arange(1, HASH_SIDE + 1)[:, None] * (2 * np.arange(HASHED_PX) + 1) / (2 * HASHED_PX)
).astype(np.float32)
"""(8, 32): rows 1 to 8 of the discrete cosine transform (DCT-II), but for their common scale."""


def thumbnails(images: NDArray[np.uint8], batch: int = 64) -> NDArray[np.float32]:
    """(N, H, W) uint8 -> (N, 64, 64) float32 of mean 0 and length 1, which keep the order of grey values alone.

    Images are read in batches, and only 256 rows and columns of large ones: a memory-mapped file of 12,047 images
    takes seconds. A constant image becomes zeros.
    """
    parts = [_thumbnails(images[start : start + batch]) for start in range(0, len(images), batch)]
    return np.concatenate(parts) if parts else np.zeros((0, THUMBNAIL_PX, THUMBNAIL_PX), np.float32)


def _thumbnails(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    rows, columns = (_SAMPLED.astype(np.int64) * side // len(_SAMPLED) for side in images.shape[1:])
    some = images[:, rows][:, :, columns]
    steps = [(row, column) for row in range(_STEP) for column in range(_STEP)]
    small = sum((some[:, row::_STEP, column::_STEP].astype(np.uint16) for row, column in steps), np.uint16(0))
    flat = np.asarray(small).reshape(len(images), -1)
    equalised = np.stack([_equalised(values) for values in flat])
    centred = equalised - equalised.mean(axis=1, keepdims=True)
    length = np.sqrt((centred**2).sum(axis=1, keepdims=True))
    normal = np.where(length > 0, centred / np.maximum(length, 1e-6), 0)
    return np.asarray(normal, dtype=np.float32).reshape(len(images), THUMBNAIL_PX, THUMBNAIL_PX)


def _equalised(values: NDArray[np.uint16]) -> NDArray[np.float32]:
    """The share of an image's pixels that are darker: no curve of brightness, contrast or gamma changes it."""
    counts = np.bincount(values, minlength=1)
    below = counts.cumsum() - (counts + 1) / 2  # equal values share the mean of their ranks
    return np.asarray(below[values] / len(values), dtype=np.float32)


def perceptual_hashes(small: NDArray[np.float32]) -> NDArray[np.bool_]:
    """(N, 64, 64) thumbnails -> (N, 64) bits: which of the 8 x 8 lowest frequencies lie above their median.

    Source: pHash, from the discrete cosine transform of 32 x 32 pixels; the mean (frequency 0) is left out.
    """
    half = small.reshape(len(small), HASHED_PX, 2, HASHED_PX, 2).mean(axis=(2, 4))
    flat = (_COSINES @ half @ _COSINES.T).reshape(len(small), HASH_SIDE**2)
    return np.asarray(flat > np.median(flat, axis=1, keepdims=True))


def near_duplicates(
    small: NDArray[np.float32], max_distance: int = MAX_DISTANCE, min_correlation: float = MIN_CORRELATION
) -> NDArray[np.int64]:
    """(K, 2) indices of pairs that show the same picture, first < second, in order.

    small: thumbnails. max_distance: bits of 64 in which hashes may differ. min_correlation: of thumbnails, in [-1, 1].
    """
    found = [np.zeros((0, 2), dtype=np.int64)]
    flat = small.reshape(len(small), THUMBNAIL_PX**2)
    for pairs in _candidates(perceptual_hashes(small), max_distance):
        alike = np.einsum("ij,ij->i", flat[pairs[:, 0]], flat[pairs[:, 1]])
        found.append(pairs[alike >= min_correlation])
    every = np.concatenate(found)
    return every[np.lexsort((every[:, 1], every[:, 0]))]


def _candidates(hashes: NDArray[np.bool_], max_distance: int) -> Iterator[NDArray[np.int64]]:
    """Pairs whose hashes are close, a block of images against all later ones at a time.

    The product of two rows of -1 and 1 counts equal bits less unequal ones: a matrix product does all of a block.
    """
    signs = np.where(hashes, np.float32(1), np.float32(-1))
    least = hashes.shape[1] - 2 * max_distance
    for start in range(0, len(signs), _BLOCK):
        close = signs[start : start + _BLOCK] @ signs[start:].T >= least
        pairs = np.argwhere(np.triu(close, k=1)).astype(np.int64)
        yield pairs + start
