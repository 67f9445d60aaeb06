"""A warp from the prepared size to the stage's in one step: places, areas, mirror images, what is kept of detail."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pleura.config.augmentation import AugmentConfig
from pleura.data.augmentation import AugmentParameters, apply, augment, sample_parameters
from pleura.models.resize import area_mean

PROBABILITIES = [name for name in AugmentConfig.model_fields if name.endswith("_probability")]
NOTHING = AugmentConfig(horizontal_flip=0, **dict.fromkeys(PROBABILITIES, 0.0))
WARPS = NOTHING.model_copy(update={"affine_probability": 1.0, "distortion_probability": 1.0})


def by_hand(n: int, **changes: Tensor) -> AugmentParameters:
    return replace(sample_parameters(NOTHING, n, (0,)), **changes)


def turned(degrees: float, n: int = 1) -> AugmentParameters:
    return by_hand(n, rotation_degrees=torch.full((n,), degrees))


def in_one_step(
    images: Tensor, masks: Tensor, parameters: AugmentParameters, size_px: int, border: str = "reflect"
) -> tuple[Tensor, Tensor]:
    config = NOTHING.model_copy(update={"border": border})
    small = area_mean(images, size_px), area_mean(masks, size_px)
    return apply(*small, parameters, config, larger=(images, masks))


def spot(row: float, column: float, side: int, sigma: float) -> Tensor:
    place = torch.arange(side) + 0.5
    down, across = (torch.exp(-((place - centre) ** 2) / (2 * sigma**2)) for centre in (row, column))
    return (down[:, None] * across)[None, None]


def disc(row: float, column: float, side: int, radius: float) -> Tensor:
    place = torch.arange(side) + 0.5
    return ((place[:, None] - row) ** 2 + (place - column) ** 2 < radius**2).float()[None, None]


def centroid(image: Tensor) -> tuple[float, float]:
    """(row, column) of an image's mass, as shares of the side."""
    image, place = image[0, 0].double(), (torch.arange(image.shape[-1]) + 0.5) / image.shape[-1]
    return float((image.sum(1) * place).sum() / image.sum()), float((image.sum(0) * place).sum() / image.sum())


@pytest.mark.parametrize(("side", "size_px"), [(256, 128), (256, 96), (256, 100), (250, 77), (256, 224)])
@pytest.mark.parametrize("degrees", [0.5, 17.0, -33.0])
def test_spot_lands_where_the_rotation_puts_it(side: int, size_px: int, degrees: float):
    row, column = 0.36 * side, 0.58 * side
    image = spot(row, column, side, 5.0)
    found = centroid(in_one_step(image, image, turned(degrees), size_px)[0])
    angle, right, down = math.radians(degrees), column / side - 0.5, row / side - 0.5
    # Counter-clockwise on the screen, where rows go down.
    expected = (
        0.5 - right * math.sin(angle) + down * math.cos(angle),
        0.5 + right * math.cos(angle) + down * math.sin(angle),
    )
    assert found == pytest.approx(expected, abs=0.05 / side)


@settings(max_examples=25)
@given(
    st.floats(3.0, 20.0), st.floats(-45, 45), st.floats(0.35, 0.65), st.floats(0.35, 0.65), st.sampled_from([128, 100])
)
def test_turned_mask_keeps_its_area(radius: float, degrees: float, row: float, column: float, size_px: int):
    mask = disc(row * 256, column * 256, 256, radius)
    _, small = in_one_step(mask, mask, turned(degrees or 1.0), size_px)
    assert float(small.mean() / mask.mean()) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("size_px", [128, 100])
def test_small_masks_neither_grow_nor_shrink(size_px: int):
    generator, radii = torch.Generator().manual_seed(0), (2.0, 2.5, 3.0)
    changes = []
    for place in range(60):
        row, column, degrees = (torch.rand(3, generator=generator, dtype=torch.float64) * 90).tolist()
        mask = disc(85 + row, 85 + column, 256, radii[place % 3])
        changes.append(float(in_one_step(mask, mask, turned(degrees - 45), size_px)[1].mean() / mask.mean()) - 1)
    assert sum(changes) / len(changes) == pytest.approx(0, abs=0.005)


@settings(max_examples=15)
@given(st.integers(0, 10**6), st.sampled_from([64, 48, 50]))
def test_what_is_not_warped_is_the_mean_over_area(seed: int, size_px: int):
    images = torch.rand(2, 1, 96, 96, generator=torch.Generator().manual_seed(seed))
    masks = (images > 0.7).float()
    flips = by_hand(2, flip=torch.tensor([True, False]))
    changed = in_one_step(images, masks, flips, size_px)
    for before, after in zip((images, masks), changed, strict=True):
        small = area_mean(before, size_px)
        assert torch.equal(after[0], small[0].flip(-1))
        assert torch.equal(after[1], small[1])
        torch.testing.assert_close(after.mean((1, 2, 3)), before.mean((1, 2, 3)))


@settings(max_examples=10)
@given(st.integers(0, 10**6), st.sampled_from([64, 48, 50]))
def test_mirror_of_an_image_by_the_mirror_of_its_warp_is_the_mirror_of_what_the_warp_gives(seed: int, size_px: int):
    images = F.interpolate(torch.rand(2, 1, 12, 12, generator=torch.Generator().manual_seed(seed)), 96, mode="bilinear")
    masks = (images > 0.6).float()
    shift, degrees = torch.tensor([[0.05, 0.02], [-0.1, 0.03]]), torch.tensor([20.0, -31.0])
    there = by_hand(2, shift=shift, rotation_degrees=degrees)
    back = by_hand(2, shift=shift * torch.tensor([-1.0, 1.0]), rotation_degrees=-degrees)
    once = in_one_step(images, masks, there, size_px)
    mirrored = in_one_step(images.flip(-1), masks.flip(-1), back, size_px)
    for one, other in zip(once, mirrored, strict=True):
        torch.testing.assert_close(one.flip(-1), other, atol=2e-4, rtol=0)


@settings(max_examples=10)
@given(st.integers(0, 10**6))
def test_mean_of_a_mask_inside_stays_under_rotation_and_shift(seed: int):
    generator = torch.Generator().manual_seed(seed)
    masks = torch.zeros(1, 1, 128, 128)
    masks[..., 48:80, 48:80] = (torch.rand(1, 1, 32, 32, generator=generator) > 0.5).float()
    degrees, shift = torch.rand(1, generator=generator) * 80 - 40, torch.rand(1, 2, generator=generator) * 0.1
    _, small = in_one_step(masks, masks, by_hand(1, rotation_degrees=degrees, shift=shift), 64, "zeros")
    assert float(small.mean()) == pytest.approx(float(masks.mean()), rel=0.02)


def grating(cycles_per_px: float, direction: float, side: int) -> Tensor:
    place = torch.arange(side) + 0.5
    phase = place * math.cos(direction) + place[:, None] * math.sin(direction)
    return (0.5 + 0.5 * torch.cos(2 * math.pi * cycles_per_px * phase))[None, None]


def kept_of(image: Tensor, size_px: int, at_once: bool) -> float:
    """The amplitude of a grating after a turn, as a share of what it had."""
    small = area_mean(image, size_px)
    larger = (image, image) if at_once else None
    changed, _ = apply(small, small, turned(13.0), NOTHING, larger=larger)
    return float(changed[..., size_px // 4 : -size_px // 4, size_px // 4 : -size_px // 4].std()) * math.sqrt(2) / 0.5


def test_fine_detail_is_kept_that_two_interpolations_lose():
    gratings = [grating(0.2, direction, 256) for direction in (0.3, 1.1, 2.0)]  # 0.4 cycles to a pixel of 128
    two, one = (sum(kept_of(each, 128, at_once) for each in gratings) / 3 for at_once in (False, True))
    assert two < 0.55
    assert one > 0.68


def test_what_is_finer_than_the_stage_is_averaged_away_and_not_shown_as_something_else():
    gratings = [grating(0.42, direction, 256) for direction in (0.3, 1.1, 2.0)]  # 0.84 cycles to a pixel of 128
    assert max(kept_of(each, 128, True) for each in gratings) < 0.3


def test_batch_split_over_processes_is_warped_as_the_whole_is():
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(6, 1, 96, 96, generator=generator)
    masks = (images > 0.5).float()
    small = area_mean(images, 40), area_mean(masks, 40)
    whole = augment(*small, WARPS, (3, 1), larger=(images, masks))
    parts = [
        augment(*(each[a:b] for each in small), WARPS, (3, 1), (a, 6), (images[a:b], masks[a:b]))
        for a, b in ((0, 2), (2, 6))
    ]
    for at in (0, 1):
        torch.testing.assert_close(torch.cat([part[at] for part in parts]), whole[at], atol=2e-6, rtol=0)


def test_larger_batch_of_other_images_is_refused():
    images = torch.rand(2, 1, 32, 32)
    with pytest.raises(ValueError, match="do not belong together"):
        apply(images, images, turned(3.0, 2), NOTHING, larger=(torch.rand(3, 1, 64, 64), torch.rand(3, 1, 64, 64)))
