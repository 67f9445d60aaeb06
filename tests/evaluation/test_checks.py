"""Each check finds its fault, and nothing where there is none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pleura.data.problems import Finding
from pleura.decision.search import Histograms
from pleura.evaluation.checks import (
    ORIENTATIONS,
    OrientationCheck,
    empty_predictor,
    not_binary,
    other_prevalence,
    saturated,
    shared_patients,
)
from pleura.evaluation.metrics.siim import CaseResults, siim_dice

POSES = {
    "turned by 90 degrees to the left": lambda mask: np.rot90(mask),
    "turned by 180 degrees": lambda mask: np.rot90(mask, 2),
    "turned by 90 degrees to the right": lambda mask: np.rot90(mask, 3),
    "flipped left to right": np.fliplr,
    "transposed": lambda mask: mask.T,
    "flipped top to bottom": np.flipud,
    "transposed along the other diagonal": lambda mask: np.rot90(mask, 2).T,
}


def results(masks: np.ndarray, predicted: np.ndarray) -> CaseResults:
    axes = (1, 2)
    return CaseResults(
        masks.any(axis=axes), predicted.any(axis=axes), siim_dice(masks, predicted), np.zeros(len(masks))
    )


def blobs(n: int, seed: int, side: int = 48) -> np.ndarray:
    """Rectangles, each somewhere else; the last quarter empty."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((n, side, side), np.uint8)
    for mask in masks[: n - n // 4]:
        row, column = rng.integers(0, side - 16, 2)
        mask[row : row + rng.integers(5, 14), column : column + rng.integers(5, 14)] = 1
    return masks


def orientation(masks: np.ndarray, predicted: np.ndarray) -> Finding | None:
    check = OrientationCheck()
    check.add(masks, predicted)
    return check.finding()


def sigmoid(values: np.ndarray) -> np.ndarray:
    return (1 / (1 + np.exp(-values))).astype(np.float32)


def test_the_empty_predictor_is_called_by_its_name() -> None:
    masks = blobs(20, 0)
    found = empty_predictor(results(masks, np.zeros_like(masks)))
    assert found
    assert (found.severity, "0.250000" in found.what) == ("error", True)


def test_one_pixel_on_a_positive_is_no_better_than_nothing() -> None:
    masks = blobs(20, 0)
    predicted = np.zeros_like(masks)
    predicted[-1, 0, 0] = 1
    found = empty_predictor(results(masks, predicted))
    assert found
    assert (found.severity, "0 of 15 positives" in found.what) == ("warning", True)


def test_a_good_predictor_and_a_set_without_positives_are_no_empty_predictor() -> None:
    masks = blobs(20, 0)
    assert empty_predictor(results(masks, masks)) is None
    assert empty_predictor(results(masks * 0, masks * 0)) is None


def test_a_sigmoid_of_a_sigmoid_is_found() -> None:
    masks = blobs(8, 1)
    logits = np.where(masks, 3.0, -4.0) + np.random.default_rng(2).normal(size=masks.shape)
    found = saturated(Histograms.of(sigmoid(sigmoid(logits)), masks))
    assert found
    assert (found.severity, "sigmoid of a sigmoid" in found.what) == ("error", True)
    assert saturated(Histograms.of(sigmoid(logits), masks)) is None


@given(st.integers(0, 2**32 - 1), st.floats(0.1, 40))
def test_whatever_goes_through_two_sigmoids_is_found(seed: int, spread: float) -> None:
    logits = np.random.default_rng(seed).normal(0, spread, (2, 8, 8))
    found = saturated(Histograms.of(sigmoid(sigmoid(logits)), (logits > 0).astype(np.uint8)))
    assert found
    assert found.severity == "error"


def test_probabilities_of_0_and_1_are_saturated() -> None:
    masks = blobs(8, 3)
    hard = np.roll(masks, 2, axis=2).astype(np.float32)
    found = saturated(Histograms.of(hard, masks))
    assert found
    assert "does not move with the threshold" in found.what


def test_an_empty_predictor_is_not_also_called_saturated() -> None:
    masks = blobs(8, 3)
    assert saturated(Histograms.of(np.full(masks.shape, 0.01, np.float32), masks)) is None


@pytest.mark.parametrize(
    ("values", "one", "word"),
    [
        ([0, 1], 1, None),
        ([1], 1, None),
        ([0.0], 1, None),
        ([0, 255], 255, None),
        ([0, 255], 1, "values are 0 and 255"),
        ([255], 1, "values are 0 and 255"),
        ([0, 1], 255, "values are 0 and 1"),
        ([0, 17, 130, 255], 255, "4 values from 0 to 255"),
        ([0, 0.5, 1], 1, "3 values from 0 to 1"),
        ([-1, 1], 1, "2 values from -1 to 1"),
    ],
)
def test_mask_values_other_than_two_are_found(values: list[float], one: int, word: str | None) -> None:
    found = not_binary(np.array(values), one)
    assert (found is None) if word is None else (found is not None and word in found.what)


@pytest.mark.parametrize("name", list(POSES))
def test_each_of_seven_wrong_orientations_is_named(name: str) -> None:
    masks = blobs(40, 4)
    undo = {"turned by 90 degrees to the left": "turned by 90 degrees to the right"}
    undo |= {value: key for key, value in undo.items()}
    predicted = np.stack([POSES[undo.get(name, name)](mask) for mask in masks])
    found = orientation(masks, predicted)
    assert found
    assert f"are {name}: Dice 1.000" in found.what


def test_the_names_of_orientations_are_those_tested() -> None:
    assert {"as it is", *POSES} == set(ORIENTATIONS)


@given(st.integers(0, 2**32 - 1), st.integers(0, 60))
def test_noise_does_not_look_like_a_flip(seed: int, n: int) -> None:
    assert orientation(blobs(n, seed), blobs(n, seed + 1)) is None


def test_a_symmetric_mask_a_weak_model_and_too_few_cases_are_no_flip() -> None:
    masks = blobs(40, 5)
    both = masks | masks[:, :, ::-1]
    assert orientation(both, both[:, :, ::-1]) is None
    assert orientation(masks, np.roll(masks, 5, axis=1)) is None
    assert orientation(masks[:2], masks[:2, ::-1]) is None


def test_an_image_that_is_not_square_is_flipped_but_not_turned() -> None:
    masks = blobs(40, 6, side=200)[:, :150]
    found = orientation(masks, masks[:, :, ::-1])
    assert found
    assert "flipped left to right" in found.what


def test_masks_and_predictions_of_two_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        orientation(np.zeros((1, 4, 4)), np.zeros((1, 4, 5)))


def test_another_mixture_is_told_beyond_chance_alone() -> None:
    many = np.arange(188) < 121
    found = other_prevalence(many, 0.2215)
    assert found
    assert "64.4 % of these 188 cases" in found.what
    assert other_prevalence(np.arange(1000) < 230, 0.2215) is None
    assert other_prevalence(np.arange(4) < 3, 0.4) is None
    assert other_prevalence(np.zeros(0, bool), 0.4) is None


def test_patients_on_both_sides_are_counted() -> None:
    found = shared_patients(["a", None, "b"], ["a", "c", None, "a"])
    assert found
    assert "2 of 4 validation images (50.0 %)" in found.what
    assert shared_patients(["a", None], ["b", None]) is None


def test_a_finding_reads_as_one_line() -> None:
    assert str(Finding("note", "this", "do that")) == "note: this; do that"
