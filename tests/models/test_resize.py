"""Images and masks at another size: nothing moves, means and areas stay, and the old way is there by its name."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from pleura.models.resize import area_mean, mask_shares, resize_images

sizes = st.integers(1, 40)


def random_images(seed: int, side: int = 16, n: int = 2) -> Tensor:
    return torch.rand(n, 1, side, side, generator=torch.Generator().manual_seed(seed))


def gaussian(row: float, column: float, side: int, sigma: float = 2.0) -> Tensor:
    """A smooth spot whose centre is at a place in px from the upper left edge of the image."""
    place = torch.arange(side, dtype=torch.float64) + 0.5
    down, across = (torch.exp(-((place - centre) ** 2) / (2 * sigma**2)) for centre in (row, column))
    return (down[:, None] * across)[None, None].float()


def centroid(image: Tensor) -> tuple[float, float]:
    """(row, column) of the mean of an image's mass, as a share of the side."""
    image, place = image[0, 0].double(), (torch.arange(image.shape[-1]) + 0.5) / image.shape[-1]
    return float((image.sum(1) * place).sum() / image.sum()), float((image.sum(0) * place).sum() / image.sum())


@pytest.mark.parametrize(("side", "wanted"), [(512, 448), (512, 384), (512, 320), (512, 333), (501, 333), (96, 95)])
def test_spot_stays_where_it_is_when_an_image_is_reduced(side: int, wanted: int):
    for share in (0.2, 0.31, 0.5, 0.613, 0.8):
        row, column = share * side, (1 - share) * side + 0.3
        found = centroid(resize_images(gaussian(row, column, side), wanted))
        assert found == pytest.approx((row / side, column / side), abs=0.05 / side)


def test_first_way_moves_a_spot_where_the_ratio_is_no_whole_number():
    moved = [
        centroid(resize_images(gaussian(row, row, 512), 333, "adaptive"))[0] * 512 - row for row in range(200, 215)
    ]
    assert max(map(abs, moved)) > 0.1


@settings(max_examples=40)
@given(sizes, sizes, st.integers(0, 99))
def test_mean_over_the_image_stays_at_every_ratio_of_sizes(side: int, wanted: int, seed: int):
    images = random_images(seed, side)
    torch.testing.assert_close(area_mean(images, wanted).mean((1, 2, 3)), images.mean((1, 2, 3)))


def test_pixel_on_an_edge_counts_by_its_share():
    image = torch.tensor([[0.0, 3.0, 6.0]]).expand(3, 3)[None, None]
    # 1.5 old pixels to a new one: (0 + 3 / 2) / 1.5 and (3 / 2 + 6) / 1.5.
    torch.testing.assert_close(area_mean(image.contiguous(), 2)[0, 0], torch.tensor([[1.0, 5.0]]).expand(2, 2))


def test_oblong_image_is_reduced_on_each_axis_by_its_own_ratio():
    image = random_images(3, 12)[..., :9]
    expected = functional.avg_pool2d(image, (4, 3))
    torch.testing.assert_close(area_mean(image, 3), expected)


def test_half_precision_around_it_does_not_round_an_image():
    image = random_images(4, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        reduced = resize_images(image, 20)
    assert reduced.dtype == torch.float32
    assert torch.equal(reduced, resize_images(image, 20))


@pytest.mark.parametrize(("side", "wanted"), [(64, 48), (64, 20), (30, 10)])
def test_first_way_is_what_it_was_bit_for_bit(side: int, wanted: int):
    images = random_images(5, side)
    before = functional.interpolate(images, size=wanted, mode="area")
    assert torch.equal(resize_images(images, wanted, "adaptive"), before)


@pytest.mark.parametrize(("side", "wanted"), [(64, 32), (60, 20), (64, 16)])
def test_both_ways_agree_where_the_sizes_divide(side: int, wanted: int):
    images = random_images(6, side)
    torch.testing.assert_close(resize_images(images, wanted), resize_images(images, wanted, "adaptive"))


@settings(max_examples=40)
@given(sizes, sizes, st.integers(0, 99))
def test_resized_image_has_the_size_and_stays_in_the_range_of_its_values(side: int, wanted: int, seed: int):
    images = random_images(seed, side)
    resized = resize_images(images, wanted)
    assert resized.shape == (2, 1, wanted, wanted)
    assert resized.dtype == torch.float32
    assert resized.min() >= images.min() - 1e-6
    assert resized.max() <= images.max() + 1e-6


def test_bytes_become_shares_of_255():
    images = torch.tensor([[[[0, 51], [204, 255]]]], dtype=torch.uint8)
    torch.testing.assert_close(resize_images(images, 2), torch.tensor([[[[0.0, 0.2], [0.8, 1.0]]]]))


def test_image_of_the_right_size_is_left_alone():
    images = random_images(0)
    assert resize_images(images, 16) is images


@pytest.mark.parametrize("times", [2, 4])
def test_reduced_image_is_the_mean_over_area(times: int):
    images = random_images(1, 16)
    blocks = images.reshape(2, 1, 16 // times, times, 16 // times, times).mean(dim=(3, 5))
    torch.testing.assert_close(resize_images(images, 16 // times), blocks)


@settings(max_examples=30)
@given(sizes, sizes, st.integers(0, 99))
def test_mirrored_image_is_resized_to_the_mirror_of_its_resized_self(side: int, wanted: int, seed: int):
    images = random_images(seed, side)
    torch.testing.assert_close(resize_images(images.flip(-1), wanted), resize_images(images, wanted).flip(-1))


@settings(max_examples=40)
@given(sizes, sizes, st.integers(0, 99))
def test_mask_keeps_its_area_at_every_ratio_of_sizes(side: int, wanted: int, seed: int):
    masks = (random_images(seed, side) > 0.5).byte()
    shares = mask_shares(masks, wanted)
    assert (shares.shape, shares.dtype) == ((2, 1, wanted, wanted), torch.float32)
    assert shares.min() >= 0
    assert shares.max() <= 1 + 1e-6
    torch.testing.assert_close(shares.mean((1, 2, 3)), masks.float().mean((1, 2, 3)))


def test_reduced_mask_is_the_share_of_each_pixel_that_it_covers():
    masks = torch.tensor([[[[1, 0, 1, 0], [0, 0, 0, 1], [1, 1, 0, 0], [1, 0, 0, 0]]]], dtype=torch.uint8)
    assert mask_shares(masks, 2).tolist() == [[[[0.25, 0.5], [0.75, 0.0]]]]


@settings(max_examples=30)
@given(st.integers(1, 12), st.integers(1, 4), st.integers(0, 99))
def test_enlarged_mask_reduces_to_itself(side: int, times: int, seed: int):
    masks = (random_images(seed, side) > 0.5).float()
    torch.testing.assert_close(mask_shares(mask_shares(masks, side * times), side), masks)
