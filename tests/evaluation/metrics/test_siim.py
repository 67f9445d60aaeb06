"""Metrics by the rules of SIIM: two empty masks agree, one empty mask is 0, the floor of saying nothing is known."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import roc_auc_score

from pleura.data.columns import read_column
from pleura.data.folds import read_folds
from pleura.data.mask_csv import read_table
from pleura.decision.triplet import SIIM_PREVALENCE
from pleura.evaluation.metrics.siim import CaseResults, auroc, empty_floor, siim_dice

REAL = Path(__file__).parents[3].parent / "shared/data/labels"

pairs_of_masks = hnp.arrays(np.uint8, (2, 3, 4, 5), elements=st.integers(0, 1))
rankings = st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=2, max_size=40)


def real(name: str) -> Path:
    if not (REAL / name).is_file():
        pytest.skip(f"the SIIM labels are not here ({REAL / name})")
    return REAL / name


def filled(*pixels: int) -> np.ndarray:
    mask = np.zeros((1, 2, 3), dtype=np.uint8)
    mask.reshape(-1)[list(pixels)] = 1
    return mask


@pytest.mark.parametrize(
    ("truth", "predicted", "dice"),
    [
        ((), (), 1.0),
        ((), (2,), 0.0),
        ((2,), (), 0.0),
        ((1, 2), (1, 2), 1.0),
        ((1, 2), (2, 3), 0.5),
        ((1,), (2,), 0.0),
        ((0,), (0, 1, 2), 0.5),
    ],
)
def test_dice_by_hand(truth: tuple[int, ...], predicted: tuple[int, ...], dice: float):
    assert siim_dice(filled(*truth), filled(*predicted)).tolist() == [dice]


def test_each_image_has_its_own_dice():
    truth, predicted = np.concatenate([filled(), filled(), filled(1)]), np.concatenate([filled(), filled(1), filled(1)])
    assert siim_dice(truth, predicted).tolist() == [1.0, 0.0, 1.0]
    assert siim_dice(truth[2], predicted[2]).tolist() == [1.0]


@settings(max_examples=50)
@given(pairs_of_masks)
def test_dice_is_symmetric_and_agrees_with_sets_of_pixels(masks: np.ndarray):
    truth, predicted = masks
    dice = siim_dice(truth, predicted)
    assert dice.tolist() == siim_dice(predicted, truth).tolist()
    for row in range(3):
        a, b = set(np.flatnonzero(truth[row])), set(np.flatnonzero(predicted[row]))
        assert dice[row] == pytest.approx(2 * len(a & b) / (len(a) + len(b)) if a | b else 1.0)


def test_a_mask_may_be_written_with_any_value_and_type():
    assert siim_dice(filled(1, 2) * 255, filled(1, 2) > 0).tolist() == [1.0]
    full = np.full((1, 20, 20), 255, dtype=np.uint8)
    assert siim_dice(full, full).tolist() == [1.0]


def test_masks_of_different_shapes_are_a_mistake():
    with pytest.raises(ValueError, match=r"\(1, 2, 3\), predicted masks \(1, 2\)"):
        siim_dice(filled(), np.zeros((1, 2)))


def test_the_floor_is_the_score_of_saying_nothing():
    truth = np.concatenate([filled(), filled(1), filled(), filled(2)])
    positive = truth.any(axis=(1, 2))
    assert empty_floor(positive) == siim_dice(truth, np.zeros_like(truth)).mean() == 0.5


def test_the_floor_of_the_real_ids_is_the_known_one():
    positive = np.array([texts != ["-1"] for texts in read_table(real("siim-train-rle.csv")).runs.values()])
    assert round(empty_floor(positive), 6) == 0.778451
    assert round(float(positive.mean()), 4) == SIIM_PREVALENCE


def test_the_floors_of_the_legacy_folds_are_the_known_ones():
    path = real("legacy-folds-5.csv")
    folds, positive = read_folds(path), read_column(path, ("exist_labels",))
    floors = [empty_floor(np.array([positive[key] == "1" for key in folds if folds[key] == fold])) for fold in range(5)]
    # Published to six digits, the first one cut the wrong way: 1668 / 2137 = 0.7805335.
    assert floors == pytest.approx([0.780534, 0.782670, 0.773196, 0.775491, 0.774239], abs=1e-6)


@settings(max_examples=50)
@given(rankings)
def test_the_auroc_is_scikit_learns_ties_included(ranking: list[tuple[bool, int]]):
    positive, scores = np.array([row[0] for row in ranking]), np.array([row[1] / 6 for row in ranking])
    if positive.all() or not positive.any():
        assert math.isnan(auroc(positive, scores))
    else:
        assert auroc(positive, scores) == pytest.approx(roc_auc_score(positive, scores))


def test_auroc_by_hand():
    positive = np.array([True, False, True, False])
    assert auroc(positive, np.array([0.9, 0.1, 0.8, 0.2])) == 1.0
    assert auroc(positive, np.array([0.1, 0.9, 0.2, 0.8])) == 0.0
    assert auroc(positive, np.full(4, 0.5)) == 0.5
    assert auroc(positive, np.array([0.9, 0.1, 0.1, 0.5])) == (2 + 0.5) / 4


def four_cases() -> CaseResults:
    return CaseResults(
        positive=np.array([True, True, False, False]),
        predicted_positive=np.array([True, False, True, False]),
        dice=np.array([0.8, 0.0, 0.0, 1.0]),
        scores=np.array([0.9, 0.2, 0.6, 0.1]),
    )


def test_the_summary_by_hand():
    summary = four_cases().summary()
    assert summary == pytest.approx(
        {
            "siim_dice": 0.45,
            "gain_over_empty": 0.45 - 0.5,
            "siim_dice_at_siim_prevalence": 0.2215 * 0.4 + 0.7785 * 0.5,
            "dice_on_positives": 0.4,
            "sensitivity": 0.5,
            "specificity": 0.5,
            "auroc": 0.75,
        }
    )


def test_a_summary_of_rows_counts_repeats():
    summary = four_cases().summary(np.array([0, 0, 0, 3]))
    assert summary["siim_dice"] == pytest.approx((3 * 0.8 + 1) / 4)
    assert (summary["sensitivity"], summary["specificity"], summary["auroc"]) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(("rows", "known"), [([0, 1], "sensitivity"), ([2, 3], "specificity")])
def test_without_a_class_what_needs_it_is_not_a_number(rows: list[int], known: str):
    summary = four_cases().summary(np.array(rows))
    numbers = {name for name, value in summary.items() if not math.isnan(value)}
    assert numbers == {"siim_dice", "gain_over_empty", known} | (
        {"dice_on_positives"} if known == "sensitivity" else set()
    )
