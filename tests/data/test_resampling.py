"""Large images are resized strip by strip to the same bits as Pillow's."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pleura.data import resampling
from pleura.data.resampling import resized

METHODS = (Image.Resampling.BILINEAR, Image.Resampling.BOX)
SHAPES = [
    ((512, 512), (2000, 1800)), ((2000, 1800), (512, 461)), ((1700, 1900), (600, 1900)), ((1700, 1900), (1700, 600)),
    ((1900, 1700), (600, 1800)), ((3000, 1000), (1024, 341)), ((1000, 3000), (341, 1024)),
    ((1, 5), (7, 3)), ((1, 3_000_000), (1, 1024)), ((1500, 1500), (1500, 1500)),
]  # fmt: skip


@pytest.mark.parametrize(("before", "after"), SHAPES)
def test_the_same_bits_as_pillow(before: tuple[int, int], after: tuple[int, int]) -> None:
    image = np.random.default_rng(1).random(before, dtype=np.float32)
    for method in METHODS:
        expected = np.asarray(Image.fromarray(image).resize((after[1], after[0]), method))
        np.testing.assert_array_equal(resized(image, after, method), expected)


def test_whole_numbers_become_floats_also_without_another_size() -> None:
    mask = np.eye(2000, dtype=np.uint8)
    for shape in ((2000, 2000), (500, 500)):
        found = resized(mask, shape, Image.Resampling.BOX)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, resized(mask.astype(np.float32), shape, Image.Resampling.BOX))


def test_of_a_large_image_pillow_gets_no_more_than_a_strip_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, sizes = Image.fromarray, []
    monkeypatch.setattr(Image, "fromarray", lambda array: sizes.append(array.size) or whole(array))
    resized(np.ones((3000, 2900), dtype=np.float32), (1024, 990), Image.Resampling.BILINEAR)
    resized(np.ones((512, 495), dtype=np.float32), (3000, 2900), Image.Resampling.BILINEAR)
    assert len(sizes) > 40
    assert max(sizes) <= resampling._STRIP_PX
