"""Augmentation: the mask follows the image, neutral means untouched, and the seed alone decides."""

from __future__ import annotations

import io
import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from pleura.config.augmentation import AugmentConfig
from pleura.data.augmentation import AugmentParameters, apply, augment, sample_parameters, sampling_grid

PROBABILITIES = [name for name in AugmentConfig.model_fields if name.endswith("_probability")]
NOTHING = AugmentConfig(horizontal_flip=0, **dict.fromkeys(PROBABILITIES, 0.0))
EVERYTHING = AugmentConfig(horizontal_flip=1, **dict.fromkeys(PROBABILITIES, 1.0))


def only(**changes: object) -> AugmentConfig:
    return NOTHING.model_copy(update=changes)


def by_hand(n: int, **changes: Tensor) -> AugmentParameters:
    return replace(sample_parameters(NOTHING, n, (0,)), **changes)


def batch(n: int = 4, side: int = 64, *, width: int | None = None) -> tuple[Tensor, Tensor]:
    """Smooth grey images, and as mask a large ellipse off the centre."""
    width = width or side
    generator = torch.Generator().manual_seed(1)
    noise = torch.rand(n, 1, side // 8, width // 8, generator=generator)
    images = F.interpolate(noise, (side, width), mode="bilinear", align_corners=False)
    y, x = torch.meshgrid((torch.arange(side) + 0.5) / side, (torch.arange(width) + 0.5) / width, indexing="ij")
    ellipse = ((x - 0.4) / 0.25) ** 2 + ((y - 0.45) / 0.15) ** 2 < 1
    return images, ellipse.float().expand(n, 1, side, width).clone()


def same(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


seeds = st.tuples(st.integers(0, 2**63), st.integers(0, 999))
strengths = st.floats(0, 4)


@settings(max_examples=15)
@given(seed=seeds, strength=strengths, border=st.sampled_from(["reflect", "zeros"]))
def test_masks_and_images_stay_in_range_under_every_change(seed: tuple[int, int], strength: float, border: str):
    for changed in augment(*batch(), EVERYTHING.model_copy(update={"strength": strength, "border": border}), seed):
        assert changed.isfinite().all()
        assert changed.min() >= 0
        assert changed.max() <= 1


@settings(max_examples=4)
@given(seed=seeds)
def test_same_seed_gives_the_same_result_and_another_seed_another(seed: tuple[int, int]):
    first = augment(*batch(), EVERYTHING, seed)
    assert same(first, augment(*batch(), EVERYTHING, seed))
    assert not same(first, augment(*batch(), EVERYTHING, (*seed, 0)))


def test_negative_seed_is_refused():
    with pytest.raises(ValueError, match="non-negative"):
        sample_parameters(NOTHING, 1, (-1,))


def test_shapes_that_do_not_belong_together_are_refused():
    images, masks = batch()
    with pytest.raises(ValueError, match="do not belong together"):
        augment(images, masks[:, :, 1:], NOTHING, (0,))


@pytest.mark.parametrize("of", [(-1, 8), (5, 8), (0, 3)])
def test_rows_that_the_whole_batch_does_not_have_are_refused(of: tuple[int, int]):
    with pytest.raises(ValueError, match="has no rows"):
        augment(*batch(), NOTHING, (0,), of)


def in_parts(bounds: list[int], config: AugmentConfig, seed: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """A batch of 12, each part between two bounds augmented by another process."""
    images, masks = batch(12)
    parts = [augment(images[a:b], masks[a:b], config, seed, (a, 12)) for a, b in itertools.pairwise(bounds)]
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


@settings(max_examples=10)
@given(seed=seeds, cuts=st.lists(st.integers(0, 12), max_size=3))
def test_batch_split_over_processes_is_changed_as_the_whole_is(seed: tuple[int, int], cuts: list[int]):
    config = EVERYTHING.model_copy(update={"jpeg_probability": 0.0, "horizontal_flip": 0.5})
    whole, split = augment(*batch(12), config, seed), in_parts([0, *sorted(cuts), 12], config, seed)
    torch.testing.assert_close(split[0], whole[0], atol=2e-6, rtol=0)
    torch.testing.assert_close(split[1], whole[1], atol=2e-6, rtol=0)


def test_split_batch_has_the_artefacts_of_the_whole_too():
    config = only(jpeg_probability=1.0, noise_probability=1.0, blur_probability=0.5)
    whole, split = augment(*batch(12), config, (4,))[0], in_parts([0, 5, 12], config, (4,))[0]
    # A coefficient that is halfway between two levels but for rounding may fall to either.
    assert ((whole - split).abs() > 2e-6).float().mean() < 0.01


def test_whole_batch_is_its_own_part_bit_for_bit():
    assert same(augment(*batch(), EVERYTHING, (5,), (0, 4)), augment(*batch(), EVERYTHING, (5,)))


def test_rows_at_another_place_of_the_batch_are_changed_otherwise():
    config = only(affine_probability=1.0)
    first, second = (augment(*batch(), config, (5,), (place, 12)) for place in (0, 4))
    assert not same(first, second)


def test_nothing_is_changed_at_probability_0_bit_for_bit():
    assert same(augment(*batch(), NOTHING, (3,)), batch())


def test_nothing_is_changed_at_strength_0_bit_for_bit():
    config = EVERYTHING.model_copy(update={"strength": 0.0, "horizontal_flip": 0.0})
    assert same(augment(*batch(), config, (3,)), batch())


def test_given_batch_is_left_as_it_was():
    images, masks = batch()
    augment(images, masks, EVERYTHING, (0,))
    assert same((images, masks), batch())


def test_rows_that_are_not_sampled_come_back_bit_for_bit_beside_rows_that_are():
    images, masks = batch()
    angle, sigma = torch.tensor([0.0, 30, 0, 0]), torch.tensor([0.0, 0, 0, 0.1])
    changed, _ = apply(images, masks, by_hand(4, rotation_degrees=angle, noise_sigma=sigma), NOTHING)
    assert [torch.equal(a, b) for a, b in zip(images, changed, strict=True)] == [True, False, True, False]


def test_flip_mirrors_and_a_flip_of_a_flip_is_the_identity():
    once = augment(*batch(), only(horizontal_flip=1.0), (0,))
    assert same(once, tuple(x.flip(-1) for x in batch()))
    assert same(augment(*once, only(horizontal_flip=1.0), (1,)), batch())


@pytest.mark.parametrize("quarter_turns", [1, 2, 3])
def test_rotation_by_90_degrees_is_rot90(quarter_turns: int):
    images, masks = batch(1)
    parameters = by_hand(1, rotation_degrees=torch.tensor([90.0 * quarter_turns]))
    turned, turned_masks = apply(images, masks, parameters, NOTHING)
    torch.testing.assert_close(turned, images.rot90(quarter_turns, (2, 3)), atol=1e-4, rtol=0)
    torch.testing.assert_close(turned_masks, masks.rot90(quarter_turns, (2, 3)), atol=1e-4, rtol=0)


def test_rotation_by_180_degrees_holds_for_oblong_images_too():
    images, masks = batch(1, 48, width=80)
    turned, _ = apply(images, masks, by_hand(1, rotation_degrees=torch.tensor([180.0])), NOTHING)
    torch.testing.assert_close(turned, images.rot90(2, (2, 3)), atol=1e-4, rtol=0)


def test_rotation_keeps_shapes_in_oblong_images():
    images, masks = torch.zeros(1, 1, 64, 128), torch.zeros(1, 1, 64, 128)
    masks[..., 24:40, 56:72] = 1
    parameters = by_hand(1, rotation_degrees=torch.tensor([90.0]))
    _, turned = apply(images, masks, parameters, only(border="zeros"))
    torch.testing.assert_close(turned, masks, atol=1e-4, rtol=0)


def test_shift_right_and_down_equals_a_roll_inside():
    images, masks = batch(1)
    shifted, shifted_masks = apply(images, masks, by_hand(1, shift=torch.tensor([[4 / 64, 8 / 64]])), NOTHING)
    rolled = images.roll((8, 4), (2, 3))
    torch.testing.assert_close(shifted[..., 8:, 4:], rolled[..., 8:, 4:], atol=1e-4, rtol=0)
    expected = masks.roll((8, 4), (2, 3))[..., 8:, 4:]
    torch.testing.assert_close(shifted_masks[..., 8:, 4:], expected, atol=1e-4, rtol=0)


def test_scale_of_2_shows_the_middle_enlarged():
    images, masks = batch(1)
    _, enlarged = apply(images, masks, by_hand(1, scale=torch.tensor([2.0])), NOTHING)
    middle = F.interpolate(masks[..., 16:48, 16:48], scale_factor=2, mode="bilinear", align_corners=False) >= 0.5
    assert dice(enlarged, middle) > 0.98


def test_reflection_repeats_the_edge_pixel():
    images, masks = batch(1)
    shifted, _ = apply(images, masks, by_hand(1, shift=torch.tensor([[2 / 64, 0.0]])), NOTHING)
    torch.testing.assert_close(shifted[..., :2], images[..., :2].flip(-1), atol=1e-4, rtol=0)


def test_zeros_beyond_the_border_are_black_and_healthy():
    images, masks = torch.ones(1, 1, 64, 64), torch.ones(1, 1, 64, 64)
    config, parameters = only(border="zeros"), by_hand(1, shift=torch.tensor([[0.25, 0.0]]))
    for shifted in apply(images, masks, parameters, config):
        assert shifted[..., :15].max() == 0
        assert shifted[..., 17:].min() > 0.999


def test_flip_and_affine_in_one_grid_equal_one_after_the_other():
    images, masks = batch(4)
    affine = {
        "rotation_degrees": torch.full((4,), 20.0),
        "shift": torch.full((4, 2), 0.05),
        "scale": torch.ones(4) * 1.1,
    }
    flip = {"flip": torch.ones(4, dtype=torch.bool)}
    together = apply(images, masks, by_hand(4, **affine, **flip), NOTHING)
    sequence = apply(*apply(images, masks, by_hand(4, **flip), NOTHING), by_hand(4, **affine), NOTHING)
    torch.testing.assert_close(together[0], sequence[0], atol=1e-4, rtol=0)
    assert dice(*(masks for _, masks in (together, sequence))) > 0.999


def dice(first: Tensor, second: Tensor) -> float:
    first, second = first > 0.5, second > 0.5
    return float(2 * (first & second).sum() / (first.sum() + second.sum()))


@settings(max_examples=12)
@given(seed=seeds, strength=st.floats(0, 1.5))
def test_image_and_mask_move_together(seed: tuple[int, int], strength: float):
    _, masks = batch(side=128)
    config = only(horizontal_flip=0.5, affine_probability=1.0, distortion_probability=1.0, strength=strength)
    images, moved = augment(masks * 0.8, masks, config, seed)
    assert dice(images / 0.8, moved) > 0.95


@settings(max_examples=6)
@given(seed=seeds)
def test_warp_does_not_depend_on_the_size(seed: tuple[int, int]):
    config = only(horizontal_flip=0.5, affine_probability=1.0, distortion_probability=1.0)
    parameters = sample_parameters(config, 4, seed)
    # The elastic field is too fine for this: its neighbours are averaged over different pixels.
    parameters = replace(parameters, elastic_nodes=torch.zeros_like(parameters.elastic_nodes))
    large, small = (sampling_grid(parameters, side, side, "cpu").permute(0, 3, 1, 2) for side in (256, 128))
    torch.testing.assert_close(F.avg_pool2d(large, 2), small, atol=0.01, rtol=0)


def test_elastic_field_has_the_published_deviation_and_does_not_depend_on_the_size():
    parameters = sample_parameters(only(distortion_probability=1.0), 12, (5,))
    elastic = parameters.take(parameters.elastic_nodes.flatten(1).any(1).nonzero().flatten())
    plain = sampling_grid(by_hand(1), 512, 512, "cpu")
    displacement_px = (sampling_grid(elastic, 512, 512, "cpu") - plain) * 512
    # Gaussian smoothing (sigma 6) of uniform noise in [-1, 1], times 120: 120 / (2 sqrt(3 pi) 6) px.
    assert displacement_px.std().item() == pytest.approx(3.257, rel=0.05)
    near, far = sampling_grid(elastic, 1024, 1024, "cpu"), sampling_grid(elastic, 512, 512, "cpu")
    pooled = F.avg_pool2d(near.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
    torch.testing.assert_close(pooled, far, atol=1.5e-3, rtol=0)


@settings(max_examples=12)
@given(coefficient=st.floats(-4, 4), seed=seeds)
def test_optical_and_grid_distortion_never_fold_the_image(coefficient: float, seed: tuple[int, int]):
    cells = 1 + (torch.rand(1, 2, 5, generator=torch.Generator().manual_seed(seed[1])) - 0.5) * 1.8
    parameters = by_hand(1, grid_cells=cells, optical=torch.tensor([[coefficient, 0, 0]]))
    x, y = sampling_grid(parameters, 64, 64, "cpu").double().unbind(-1)
    area = x.diff(dim=2)[:, :-1] * y.diff(dim=1)[:, :, :-1] - x.diff(dim=1)[:, :, :-1] * y.diff(dim=2)[:, :-1]
    assert area.min() > 0


def test_grid_distortion_keeps_the_edges_in_place():
    parameters = sample_parameters(only(distortion_probability=1.0), 30, (2,))
    bent = parameters.take((parameters.grid_cells != 1).flatten(1).any(1).nonzero().flatten())
    grid = sampling_grid(bent, 512, 512, "cpu")
    torch.testing.assert_close(grid[:, :, 0, 0], torch.full_like(grid[:, :, 0, 0], -1), atol=4e-3, rtol=0)
    torch.testing.assert_close(grid[:, -1, :, 1], torch.full_like(grid[:, -1, :, 1], 1), atol=4e-3, rtol=0)


def test_each_of_the_choices_is_reached_and_excludes_the_others():
    config = only(distortion_probability=1.0, intensity_probability=1.0)
    p = sample_parameters(config, 60, (0,))
    bent = [p.elastic_nodes.flatten(1).any(1), (p.grid_cells != 1).flatten(1).any(1), p.optical[:, 0] != 0]
    tinted = [p.contrast != 1, p.gamma != 1, p.brightness != 0]
    for choices in (bent, tinted):
        assert all(5 < int(choice.sum()) < 40 for choice in choices)
        assert torch.equal(sum(choice.int() for choice in choices), torch.ones(60, dtype=torch.int32))


def test_magnitudes_stay_within_their_ranges_and_probabilities_are_met():
    p = sample_parameters(AugmentConfig(elastic_sigma=200), 2000, (0,))
    assert p.flip.float().mean().item() == pytest.approx(0.5, abs=0.05)
    assert (p.rotation_degrees != 0).float().mean().item() == pytest.approx(0.5, abs=0.05)
    assert p.rotation_degrees.abs().max().item() == pytest.approx(45, abs=1)
    assert p.shift.abs().max().item() == pytest.approx(0.0625, abs=1e-3)
    assert (p.scale.min().item(), p.scale.max().item()) == pytest.approx((0.9, 1.1), abs=1e-3)
    assert (p.gamma.min().item(), p.gamma.max().item()) == pytest.approx((0.8, 1.2), abs=0.01)
    assert p.optical[:, 0].abs().max().item() == pytest.approx(2, abs=0.05)


def test_changing_one_probability_leaves_the_other_draws_alone():
    first, second = (sample_parameters(AugmentConfig(blur_probability=p), 8, (1,)) for p in (0.0, 1.0))
    assert torch.equal(first.rotation_degrees, second.rotation_degrees)
    assert torch.equal(first.elastic_nodes, second.elastic_nodes)
    assert not torch.equal(first.blur_sigma_px, second.blur_sigma_px)


def test_contrast_brightness_and_gamma_do_what_they_say():
    images, masks = batch(3)
    images = 0.3 + images * 0.4
    parameters = by_hand(
        3, contrast=torch.tensor([0.5, 1, 1]), brightness=torch.tensor([0, 0.1, 0]), gamma=torch.tensor([1.0, 1, 2])
    )
    flat, bright, dark = apply(images, masks, parameters, NOTHING)[0]
    torch.testing.assert_close(flat, images[0].mean() + (images[0] - images[0].mean()) / 2)
    torch.testing.assert_close(bright, images[1] + 0.1)
    torch.testing.assert_close(dark, images[2] ** 2)


def test_blur_lowers_the_variance_and_keeps_the_mean():
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    blurred, _ = apply(images, torch.zeros(2, 1, 64, 64), by_hand(2, blur_sigma_px=torch.tensor([0.5, 1.5])), NOTHING)
    assert blurred[1].var() < blurred[0].var() < images[0].var()
    assert blurred.mean().item() == pytest.approx(images.mean().item(), abs=0.01)


def test_row_is_blurred_alike_beside_a_row_that_is_blurred_more():
    images, masks = batch(2)
    alone, _ = apply(images[:1], masks[:1], by_hand(1, blur_sigma_px=torch.tensor([0.5])), NOTHING)
    beside, _ = apply(images, masks, by_hand(2, blur_sigma_px=torch.tensor([0.5, 3.0])), NOTHING)
    torch.testing.assert_close(beside[:1], alone, atol=1e-6, rtol=0)


def test_blur_of_next_to_nothing_leaves_the_image_as_it_is():
    images, masks = batch(1)
    blurred, _ = apply(images, masks, by_hand(1, blur_sigma_px=torch.tensor([1e-26])), NOTHING)
    assert torch.equal(blurred, images)


@pytest.mark.parametrize("quality", [10, 50, 95])
def test_jpeg_agrees_with_pillow_to_a_grey_level_or_two(quality: int):
    images, masks = batch(1, 64, width=75)
    levels = (images * 255).round()
    ours, _ = apply(levels / 255, masks, by_hand(1, jpeg_quality=torch.tensor([float(quality)])), NOTHING)
    file = io.BytesIO()
    Image.fromarray(levels[0, 0].numpy().astype(np.uint8)).save(file, "JPEG", quality=quality)
    theirs = torch.from_numpy(np.array(Image.open(file)).astype(np.float32))
    assert ((ours[0, 0] * 255 - theirs).abs() <= 2).float().mean() > 0.99


def test_jpeg_changes_little_at_quality_95_and_more_at_10():
    images, masks = batch(2)
    high, low = (apply(images, masks, by_hand(2, jpeg_quality=torch.tensor([95.0, 10.0])), NOTHING)[0] - images).abs()
    assert high.max() < 0.02
    assert low.mean() > 3 * high.mean()


def test_noise_is_centred_and_of_the_sigma_asked_for():
    images, masks = torch.full((2, 1, 256, 256), 0.5), torch.zeros(2, 1, 256, 256)
    parameters = by_hand(2, noise_sigma=torch.tensor([0.02, 0.05]), noise_seed=torch.tensor([7, 8]))
    noise = apply(images, masks, parameters, NOTHING)[0] - 0.5
    assert noise.mean().abs() < 3e-4
    torch.testing.assert_close(noise.std((1, 2, 3)), torch.tensor([0.02, 0.05]), rtol=0.02, atol=0)
    for a, b in (
        (noise[0, 0], noise[1, 0]),
        (noise[0, 0, 1:], noise[0, 0, :-1]),
        (noise[0, 0, :, 1:], noise[0, 0, :, :-1]),
    ):
        assert abs(np.corrcoef(a.flatten(), b.flatten())[0, 1]) < 0.02


def test_within_autocast_it_is_what_it_is_without():
    images, masks = batch(8)
    wanted = augment(images, masks, EVERYTHING, (3,))
    with torch.autocast("cpu", torch.bfloat16):
        found = augment(images, masks, EVERYTHING, (3,))
    assert all(torch.equal(one, two) for one, two in zip(found, wanted, strict=True))
