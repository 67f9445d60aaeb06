"""Comparisons: the same metrics as elsewhere, antisymmetric, honest about chance, and blind to nothing real."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pleura.evaluation.metrics.paired import Ratio, adjusted, compare, compare_scores, intervals, mask_metrics
from pleura.evaluation.metrics.siim import CaseResults, auroc


def results(seed: int, n: int = 80, skill: float = 0.8) -> CaseResults:
    """Cases whose truth is the same for every seed: what differs is the predictor."""
    generator = np.random.default_rng(seed)
    positive = np.arange(n) % 3 == 0
    predicted_positive = np.where(generator.random(n) < skill, positive, ~positive)
    dice = np.where(positive & predicted_positive, generator.random(n), (positive == predicted_positive).astype(float))
    return CaseResults(positive, predicted_positive, dice, generator.random(n) + skill * positive)


def test_the_metrics_are_those_of_the_summary() -> None:
    found = results(1)
    values = {name: estimate.value for name, estimate in intervals(mask_metrics(found), np.arange(80), 10).items()}
    summary = found.summary()
    for name in ("siim_dice", "siim_dice_at_siim_prevalence", "dice_on_positives", "sensitivity", "specificity"):
        assert values[name] == pytest.approx(summary[name])
    assert values["ppv"] == pytest.approx(found.positive[found.predicted_positive].mean())
    assert values["npv"] == pytest.approx((~found.positive)[~found.predicted_positive].mean())


def test_identical_predictors_differ_by_nothing_and_neither_is_better() -> None:
    metrics = mask_metrics(results(2))
    for each in compare(metrics, metrics, np.arange(80), 100):
        assert (each.difference.value, each.difference.low, each.difference.high) == (0, 0, 0)
        assert (each.p, each.better) == (1.0, None)


def test_exchanging_the_two_turns_the_sign_and_nothing_else() -> None:
    one, other, patients = results(3), results(4), np.arange(80) // 2
    there = compare(mask_metrics(one), mask_metrics(other), patients, 200)
    back = compare(mask_metrics(other), mask_metrics(one), patients, 200)
    there.append(compare_scores(one.positive, one.scores, other.scores, patients, 200))
    back.append(compare_scores(one.positive, other.scores, one.scores, patients, 200))
    for first, second in zip(there, back, strict=True):
        assert (first.first, first.second) == (second.second, second.first)
        assert first.difference.value == -second.difference.value
        assert first.difference.low == pytest.approx(-second.difference.high, abs=1e-12)
        assert first.p == second.p


def test_a_large_difference_is_told_and_says_which_is_better() -> None:
    good, bad = results(5, 300, 0.95), results(6, 300, 0.6)
    found = {each.name: each for each in compare(mask_metrics(good), mask_metrics(bad), np.arange(300), 300)}
    assert found["siim_dice"].better == "first"
    assert found["siim_dice"].p == pytest.approx(1 / 301)
    back = compare(mask_metrics(bad), mask_metrics(good), np.arange(300), 300)
    assert back[0].better == "second"
    assert compare_scores(good.positive, good.scores, -good.scores, np.arange(300), 100).better == "first"


def test_the_aurocs_are_those_of_the_scores_whatever_their_scale() -> None:
    one, other = results(7), results(8)
    found = compare_scores(one.positive, one.scores, 1000 * other.scores - 7, np.arange(80), 50)
    assert found.first == pytest.approx(auroc(one.positive, one.scores))
    assert found.second == pytest.approx(auroc(one.positive, other.scores))
    assert found == compare_scores(one.positive, one.scores, other.scores, np.arange(80), 50)


def test_copies_of_a_case_that_share_a_patient_are_no_more_evidence() -> None:
    one, other = results(9, 40), results(10, 40)
    rows = np.repeat(np.arange(40), 9)
    once = compare({"dice": Ratio.mean(one.dice)}, {"dice": Ratio.mean(other.dice)}, np.arange(40), 400)[0]
    copied = [{"dice": Ratio.mean(each.dice[rows])} for each in (one, other)]
    together, alone = (compare(*copied, who, 400)[0] for who in (rows, np.arange(360)))
    assert together.p == once.p
    assert together.difference.high == pytest.approx(once.difference.high)
    assert alone.difference.high - alone.difference.low < 0.6 * (once.difference.high - once.difference.low)


def test_a_class_that_is_missing_leaves_no_number_and_no_verdict() -> None:
    n = 12
    none = CaseResults(np.zeros(n, bool), np.arange(n) < 3, np.ones(n), np.zeros(n))
    other = CaseResults(np.zeros(n, bool), np.zeros(n, bool), np.ones(n), np.zeros(n))
    found = {each.name: each for each in compare(mask_metrics(none), mask_metrics(other), np.arange(n), 50)}
    assert math.isnan(found["sensitivity"].p)
    assert found["sensitivity"].better is None
    assert math.isfinite(found["specificity"].p)


def test_holms_correction_is_that_of_a_case_worked_out_by_hand() -> None:
    from dataclasses import replace

    some = compare_scores(results(1).positive, results(1).scores, results(2).scores, np.arange(80), 10)
    found = adjusted([replace(some, p=p) for p in (0.01, 0.04, 0.03, math.nan)])
    assert [each.p_adjusted for each in found[:3]] == pytest.approx([0.03, 0.06, 0.06])


@pytest.mark.slow
def test_chance_alone_is_called_a_difference_about_as_often_as_it_should_be() -> None:
    """400 pairs of equally good predictors, 60 patients of 2 cases: 5 % within three standard errors (3.3 %)."""
    generator, patients = np.random.default_rng(11), np.repeat(np.arange(60), 2)
    false, covered = 0, 0
    for _ in range(400):
        case = generator.random(120) + np.repeat(generator.normal(size=60), 2)
        both = [{"dice": Ratio.mean(case + np.repeat(generator.normal(size=60), 2))} for _ in range(2)]
        found = compare(*both, patients, 199, int(generator.integers(1 << 30)))[0]
        false += found.p < 0.05
        covered += found.difference.low <= 0 <= found.difference.high
    assert 0.017 <= false / 400 <= 0.083
    assert 0.90 <= covered / 400 <= 0.98  # percentile intervals of 60 patients are a little narrow
