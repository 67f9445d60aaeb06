"""Operating points, against scikit-learn and by hand; what a class is missing for is NaN."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from pleura.evaluation.metrics.operating import (
    FROC_RATES,
    MAX_POINTS,
    Candidates,
    at_prevalences,
    froc,
    group_means,
    patient_weights,
    pr,
    predictive_values,
    proportions,
    roc,
)
from pleura.evaluation.metrics.siim import auroc

TIED = st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2, max_size=40)
BOTH = TIED.filter(lambda rows: len({positive for positive, _ in rows}) == 2)


def arrays(rows: list[tuple[bool, int]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([row[0] for row in rows]), np.array([row[1] / 5 for row in rows])


@given(BOTH)
def test_the_roc_is_that_of_scikit_learn_ties_included(rows):
    positive, scores = arrays(rows)
    found = roc(positive, scores)
    x, y, _ = roc_curve(positive, scores, drop_intermediate=False)
    np.testing.assert_allclose(found.x, x, atol=1e-12)
    np.testing.assert_allclose(found.y, y, atol=1e-12)
    assert found.area == pytest.approx(roc_auc_score(positive, scores))
    assert found.area == pytest.approx(auroc(positive, scores))


@given(BOTH)
def test_precision_recall_and_average_precision_are_those_of_scikit_learn(rows):
    positive, scores = arrays(rows)
    found = pr(positive, scores)
    precision, recall, _ = precision_recall_curve(positive, scores)
    np.testing.assert_allclose(found.x, recall[:-1][::-1], atol=1e-12)
    np.testing.assert_allclose(found.y, precision[:-1][::-1], atol=1e-12)
    assert found.area == pytest.approx(average_precision_score(positive, scores))


@pytest.mark.parametrize("curve", [roc, pr])
@pytest.mark.parametrize("positive", [[True, True], [False, False], []])
def test_one_class_alone_has_no_curve_and_no_area(curve, positive):
    found = curve(np.array(positive, dtype=bool), np.linspace(0, 1, len(positive)), resamples=5)
    assert math.isnan(found.area)
    assert found.thinned() == {"x": [], "y": [], "band_x": [], "low": [], "high": []}


@pytest.mark.parametrize("curve", [roc, pr])
def test_the_band_holds_the_curve_and_narrows_with_the_cases(curve):
    generator = np.random.default_rng(0)
    widths = []
    for count in (50, 800):
        positive = np.arange(count) % 3 == 0
        found = curve(positive, generator.normal(positive * 1.0), np.arange(count), 200)
        assert found.interval.low < found.area < found.interval.high
        assert (found.low <= found.high).all()
        widths.append(float(np.mean(found.high - found.low)))
    assert widths[1] < widths[0] / 2


def test_images_of_one_patient_are_drawn_together():
    patients = np.array([7, 7, 3, 9, 9, 9])
    for weights in patient_weights(patients, 50):
        assert weights[0] == weights[1]
        assert len(set(weights[3:])) == 1
        assert weights[0] + weights[2] + weights[3] == 3


def test_repeated_patients_make_the_interval_wider_than_as_many_independent_ones():
    positive, scores = np.tile([True, False], 40), np.random.default_rng(1).random(80)
    one, few = (roc(positive, scores, patients, 400).interval for patients in (np.arange(80), np.arange(80) // 8))
    assert few.value == one.value
    same = np.repeat(scores[:20], 4), np.repeat(positive[:20], 4)
    clustered, alone = (roc(same[1], same[0], p, 400).interval for p in (np.repeat(np.arange(20), 4), np.arange(80)))
    assert clustered.high - clustered.low > 1.5 * (alone.high - alone.low)


def test_a_long_curve_is_thinned_and_keeps_its_ends():
    found = roc(np.arange(5000) % 2 == 0, np.random.default_rng(2).random(5000)).thinned()
    assert len(found["x"]) == MAX_POINTS
    assert (found["x"][0], found["y"][0], found["x"][-1], found["y"][-1]) == (0, 0, 1, 1)


def test_the_froc_counts_lesions_and_false_alarms_by_hand():
    cases = [Candidates((0.9, 0.0), (0.5,)), Candidates((), (0.95, 0.2)), Candidates((0.4,), ()), Candidates((), ())]
    found = froc(cases)
    np.testing.assert_allclose(found.x, [0, 0.25, 0.25, 0.5, 0.5, 0.75])
    np.testing.assert_allclose(found.y, [0, 0, 1 / 3, 1 / 3, 2 / 3, 2 / 3])
    heights = {0.125: 0, 0.25: 1 / 3, 0.5: 2 / 3}
    assert found.area == pytest.approx(np.mean([heights.get(rate, 2 / 3) for rate in FROC_RATES]))


def test_an_froc_without_a_lesion_is_nan_and_one_without_a_mark_is_zero():
    assert math.isnan(froc([Candidates((), (0.5,))]).area)
    assert math.isnan(froc([]).area)
    assert froc([Candidates((0.0,), ())], np.zeros(1, dtype=int), 10).area == 0


@given(st.lists(st.tuples(st.lists(st.floats(0, 1), max_size=3), st.lists(st.floats(0, 1), max_size=3)), min_size=1))
def test_an_froc_never_falls_and_stays_within_its_lesions(cases):
    found = froc([Candidates(tuple(hits), tuple(false)) for hits, false in cases], resamples=3)
    assert (np.diff(found.x) >= 0).all()
    assert (np.diff(found.y) >= 0).all()
    assert found.y.size == 0 or (found.y.min() >= 0 and found.y.max() <= 1)


def test_the_four_shares_are_those_of_the_table():
    positive = np.array([True] * 10 + [False] * 20)
    predicted_positive = np.array([True] * 8 + [False] * 2 + [True] * 5 + [False] * 15)
    found = proportions(positive, predicted_positive)
    values = {name: estimate.value for name, estimate in found.items()}
    assert values == pytest.approx({"sensitivity": 0.8, "specificity": 0.75, "ppv": 8 / 13, "npv": 15 / 17})
    assert found["sensitivity"].low == pytest.approx(0.4902, abs=1e-4)  # Wilson's interval of 8 of 10
    assert found["sensitivity"].high == pytest.approx(0.9433, abs=1e-4)


def test_without_a_call_there_is_no_ppv_and_without_negatives_no_specificity():
    found = proportions(np.array([True, True]), np.array([False, False]))
    assert math.isnan(found["ppv"].value)
    assert math.isnan(found["specificity"].value)
    assert found["npv"].value == 0


def test_predictive_values_at_the_share_of_the_data_are_those_of_the_data():
    ppv, npv = predictive_values(0.8, 0.75, 1 / 3)
    assert (ppv, npv) == pytest.approx((8 / 13, 15 / 17))
    assert math.isnan(predictive_values(0, 1, 0.1)[0])
    assert math.isnan(predictive_values(1, 0, 0.1)[1])


def test_a_ppv_falls_where_positives_are_rarer_and_its_interval_is_never_a_point():
    positive, predicted_positive = np.arange(100) < 40, np.arange(100) < 40
    dice = np.where(positive, 0.8, 1.0)
    rare, common = at_prevalences(positive, predicted_positive, dice, np.arange(100), [0.02, 0.2215])
    assert rare["ppv"].value == common["ppv"].value == 1
    assert rare["ppv"].low < common["ppv"].low < 1
    assert rare["siim_dice"].value == pytest.approx(0.02 * 0.8 + 0.98)
    for estimate in (*rare.values(), *common.values()):
        assert estimate.low <= estimate.value <= estimate.high
        assert estimate.low < estimate.high


def test_another_mixture_cannot_be_told_from_one_class():
    ones = np.ones(4, dtype=bool)
    (found,) = at_prevalences(ones, ones, np.ones(4), np.arange(4), [0.05])
    assert all(math.isnan(each.value) for each in found.values())


@pytest.mark.slow
def test_the_interval_of_a_ppv_elsewhere_covers_the_truth_as_often_as_it_says():
    generator, covered, runs = np.random.default_rng(3), 0, 300
    truth = predictive_values(0.8, 0.9, 0.05)[0]
    positive = np.arange(200) < 80
    for run in range(runs):
        predicted_positive = generator.random(200) < np.where(positive, 0.8, 0.1)
        (found,) = at_prevalences(positive, predicted_positive, np.ones(200), np.arange(200), [0.05], seed=run)
        covered += found["ppv"].low <= truth <= found["ppv"].high
    assert covered / runs == pytest.approx(0.95, abs=0.04)


def test_the_mean_of_a_group_is_that_of_its_members_and_of_an_empty_one_nan():
    values = np.array([1.0, 2.0, 3.0, np.nan])
    groups = {"first": np.array([1, 1, 0, 1], dtype=bool), "none": np.zeros(4, dtype=bool)}
    found = group_means(groups, values, np.arange(4), 100)
    assert found["first"].value == 1.5
    assert 1 <= found["first"].low <= 1.5 <= found["first"].high <= 2
    assert math.isnan(found["none"].value)
    assert math.isnan(found["none"].low)
    assert group_means({}, values, np.arange(4)) == {}


@pytest.mark.slow
def test_the_interval_of_a_groups_mean_covers_the_truth_as_often_as_it_says():
    generator, covered, runs = np.random.default_rng(4), 0, 200
    for _ in range(runs):
        found = group_means({"all": np.ones(60, dtype=bool)}, generator.normal(size=60), np.arange(60), 300)["all"]
        covered += found.low <= 0 <= found.high
    assert covered / runs == pytest.approx(0.94, abs=0.045)


def test_several_mixtures_come_from_the_same_draws_as_one():
    positive, predicted_positive = np.arange(40) < 12, np.arange(40) % 3 > 0
    cases = (positive, predicted_positive, np.linspace(0, 1, 40), np.arange(40))
    assert at_prevalences(*cases, [0.02, 0.3]) == [
        *at_prevalences(*cases, [0.02]),
        *at_prevalences(*cases, [0.3]),
    ]
