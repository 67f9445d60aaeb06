"""Surface distances, held against MONAI's where both masks have pixels, and against the documented rule elsewhere."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from monai.metrics import compute_hausdorff_distance, compute_surface_dice
from scipy import ndimage

from pleura.evaluation.metrics.surface import SurfaceDistances

# MONAI 1.6 warns of an argument that it passes to itself.
pytestmark = pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")


def hd95(mask: np.ndarray, predicted: np.ndarray, spacing: tuple[float, float] = (1.0, 1.0)) -> float:
    return SurfaceDistances.of(mask, predicted, spacing).hd95()


def surface_dice(
    mask: np.ndarray, predicted: np.ndarray, tolerance: float, spacing: tuple[float, float] = (1.0, 1.0)
) -> float:
    return SurfaceDistances.of(mask, predicted, spacing).dice(tolerance)


MASKS = arrays(np.uint8, (13, 17), elements=st.sampled_from([0, 0, 0, 1]))


def by_monai(mask: np.ndarray, predicted: np.ndarray, tolerance: float, spacing: tuple[float, float]):
    truth, found = (torch.from_numpy((values != 0).astype(np.float32))[None, None] for values in (mask, predicted))
    options = {"include_background": True, "spacing": list(spacing)}
    distance = compute_hausdorff_distance(found, truth, percentile=95, **options)
    dice = compute_surface_dice(found, truth, class_thresholds=[tolerance], **options)
    return distance.item(), dice.item()


def agrees(mask: np.ndarray, predicted: np.ndarray, tolerance: float = 1.5, spacing: tuple[float, float] = (1.0, 1.0)):
    distance, dice = by_monai(mask, predicted, tolerance, spacing)
    assert hd95(mask, predicted, spacing) == pytest.approx(distance, rel=1e-5)
    assert surface_dice(mask, predicted, tolerance, spacing) == pytest.approx(dice, rel=1e-5)


def box(top: int, bottom: int, left: int, right: int, shape: tuple[int, int] = (40, 56)) -> np.ndarray:
    mask = np.zeros(shape, dtype=np.uint8)
    mask[top:bottom, left:right] = 1
    return mask


SHAPES = {
    "inside": box(10, 20, 12, 30),
    "at the top left corner": box(0, 9, 0, 20),
    "at the right border": box(15, 30, 40, 56),
    "one pixel": box(39, 40, 55, 56),
    "one line": box(20, 21, 0, 56),
    "two parts": box(2, 8, 3, 9) | box(30, 38, 44, 50),
    "with a hole": box(5, 35, 5, 50) - box(15, 25, 20, 35),
    "full": box(0, 40, 0, 56),
}


@pytest.mark.parametrize("predicted", SHAPES)
@pytest.mark.parametrize("mask", SHAPES)
def test_shapes_have_the_distances_that_monai_gives(mask: str, predicted: str) -> None:
    agrees(SHAPES[mask], SHAPES[predicted])


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.5, 0.5), (0.139, 0.2), (2.0, 0.7)])
@pytest.mark.parametrize("tolerance", [0.0, 0.5, 1.0, 3.7])
def test_spacing_and_tolerance_mean_what_they_mean_to_monai(spacing: tuple[float, float], tolerance: float) -> None:
    generator = np.random.default_rng(7)
    for density in (0.02, 0.3, 0.9):
        agrees(*(generator.random((2, 33, 21)) < density), tolerance, spacing)


@given(mask=MASKS, predicted=MASKS)
@settings(max_examples=60)
def test_any_two_masks_that_have_pixels_agree_with_monai(mask: np.ndarray, predicted: np.ndarray) -> None:
    if mask.any() and predicted.any():
        agrees(mask, predicted)


@given(mask=MASKS, predicted=MASKS, tolerance=st.floats(0, 20))
def test_neither_number_minds_which_mask_is_the_truth(mask: np.ndarray, predicted: np.ndarray, tolerance: float):
    assert hd95(mask, predicted) == pytest.approx(hd95(predicted, mask), nan_ok=True)
    assert surface_dice(mask, predicted, tolerance) == surface_dice(predicted, mask, tolerance)
    assert 0 <= surface_dice(mask, predicted, tolerance) <= 1


def test_empty_masks_follow_the_rule_that_the_functions_tell() -> None:
    nothing, something = np.zeros((9, 9), dtype=np.uint8), box(2, 5, 2, 5, (9, 9))
    assert (hd95(nothing, nothing), surface_dice(nothing, nothing, 1)) == (0.0, 1.0)
    for one, other in ((nothing, something), (something, nothing)):
        assert math.isnan(hd95(one, other))
        assert surface_dice(one, other, 100) == 0.0


def test_equal_masks_are_at_distance_0_and_a_shift_by_three_is_at_3() -> None:
    mask = box(10, 20, 10, 20)
    assert (hd95(mask, mask), surface_dice(mask, mask, 0)) == (0.0, 1.0)
    assert hd95(mask, box(10, 20, 13, 23)) == 3.0


def test_masks_of_0_and_255_are_masks_of_0_and_1() -> None:
    mask, predicted = box(4, 9, 4, 9), box(5, 12, 3, 9)
    assert hd95(255 * mask, predicted) == hd95(mask, predicted)


@given(mask=MASKS, predicted=MASKS, spacing=st.tuples(st.floats(0.1, 3), st.floats(0.1, 3)))
def test_distances_are_those_of_scipys_transform(mask: np.ndarray, predicted: np.ndarray, spacing: tuple[float, float]):
    found = SurfaceDistances.of(mask, predicted, spacing)
    if not any(found.empty):
        outlines = [each.astype(bool) & ~ndimage.binary_erosion(each) for each in (mask, predicted)]
        to_predicted, to_mask = (ndimage.distance_transform_edt(~each, sampling=spacing) for each in outlines[::-1])
        np.testing.assert_allclose(found.from_mask, to_predicted[outlines[0]], rtol=1e-12)
        np.testing.assert_allclose(found.from_predicted, to_mask[outlines[1]], rtol=1e-12)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        hd95(np.ones((3, 3)), np.ones((3, 4)))
    with pytest.raises(ValueError, match="tolerance"):
        surface_dice(np.ones((3, 3)), np.ones((3, 3)), -1)
    with pytest.raises(ValueError, match="above 0"):
        hd95(np.ones((3, 3)), np.ones((3, 3)), (0.0, 1.0))
