"""Copies are found whatever was done to them; other patients are not taken for copies."""

from __future__ import annotations

import io
import time
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from pleura.data.duplicates import near_duplicates, perceptual_hashes, thumbnails


def pictures(n: int, seed: int = 0, side: int = 128) -> np.ndarray:
    """Smooth clouds, each another, 0..255."""
    noise = np.random.default_rng(seed).normal(size=(n, side, side))
    smooth = np.stack([gaussian_filter(one, side / 12) for one in noise])
    low, high = smooth.min(axis=(1, 2), keepdims=True), smooth.max(axis=(1, 2), keepdims=True)
    return (255 * (smooth - low) / (high - low)).astype(np.uint8)


def as_jpeg(image: np.ndarray) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=40)
    return np.asarray(Image.open(file))


def scaled(image: np.ndarray) -> np.ndarray:
    small = Image.fromarray(image).resize((77, 77), Image.Resampling.BILINEAR)
    return np.asarray(small.resize(image.shape, Image.Resampling.BICUBIC))


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "the same": lambda image: image,
    "saved as JPEG": as_jpeg,
    "scaled": scaled,
    "darker": lambda image: (image * 0.5).astype(np.uint8),
    "brighter": lambda image: (60 + image * 0.7).astype(np.uint8),
    "gamma": lambda image: (255 * (image / 255) ** 1.4).astype(np.uint8),
}


@pytest.mark.parametrize("change", list(CHANGES.values()), ids=list(CHANGES))
def test_changed_copy_is_found_and_nothing_else(change: Callable[[np.ndarray], np.ndarray]) -> None:
    images = pictures(60)
    every = np.concatenate([images, np.stack([change(image) for image in images[:20]])])
    assert near_duplicates(thumbnails(every)).tolist() == [[row, 60 + row] for row in range(20)]


def test_phantoms_of_other_patients_are_no_copies(dataset) -> None:
    images = np.load(dataset / "images.npy")
    assert near_duplicates(thumbnails(images)).tolist() == []


def test_size_of_an_image_does_not_matter() -> None:
    large = pictures(4, side=512)
    small = np.stack([np.asarray(Image.fromarray(one).resize((64, 64))) for one in large])
    both = np.concatenate([thumbnails(large), thumbnails(small)])
    assert near_duplicates(both).tolist() == [[row, 4 + row] for row in range(4)]


def test_black_images_are_like_nothing() -> None:
    assert near_duplicates(thumbnails(np.zeros((5, 70, 70), np.uint8))).tolist() == []
    assert near_duplicates(thumbnails(np.zeros((0, 70, 70), np.uint8))).shape == (0, 2)


def test_thumbnail_has_mean_0_and_length_1_and_a_hash_half_of_its_bits() -> None:
    small = thumbnails(pictures(3))
    np.testing.assert_allclose(small.mean(axis=(1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose((small**2).sum(axis=(1, 2)), 1, rtol=1e-5)
    assert perceptual_hashes(small).sum(axis=1).tolist() == [32, 32, 32]


def test_every_pair_across_blocks_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pleura.data.duplicates._BLOCK", 7)
    images = pictures(10)
    every = np.concatenate([images, images[::-1]])
    assert near_duplicates(thumbnails(every)).tolist() == [[row, 19 - row] for row in range(10)]


@pytest.mark.slow
def test_twelve_thousand_hashes_take_seconds() -> None:
    rng = np.random.default_rng(0)
    small = rng.normal(size=(12_047, 64, 64)).astype(np.float32)
    small /= np.sqrt((small**2).sum(axis=(1, 2), keepdims=True))
    small[-1] = small[0]
    start = time.perf_counter()
    assert near_duplicates(small).tolist() == [[0, 12_046]]
    assert time.perf_counter() - start < 60
