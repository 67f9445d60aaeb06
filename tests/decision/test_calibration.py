"""Probabilities that mean what they say, and a threshold that misses as few as it promises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from scipy.stats import beta
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss

from pleura.decision.calibration import (
    Calibration,
    RuleOut,
    brier,
    conformal,
    ece,
    fit_scores,
    level_logits,
    logit,
    pixel_cases,
    pixel_counts,
    positives_needed,
    reliability,
    temperature,
)


def drawn(n: int, seed: int = 0, slope: float = 1.0, intercept: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Scores in (0, 1) and labels of the probability expit(slope * logit + intercept)."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 2, n)
    return expit(logits), generator.random(n) < expit(slope * logits + intercept)


# --- ECE, Brier, reliability


def test_a_calibration_curve_is_the_mean_and_the_share_of_each_bin():
    curve = reliability(np.array([0, 1, 1, 1]), np.array([0.05, 0.15, 0.92, 0.98]), bins=5)
    assert curve.predicted.tolist() == pytest.approx([0.1, 0.95])
    assert curve.observed.tolist() == [0.5, 1.0]
    assert curve.counts.tolist() == [2, 2]
    assert ece(np.array([0, 1, 1, 1]), np.array([0.05, 0.15, 0.92, 0.98]), bins=5) == pytest.approx(0.225)


@settings(max_examples=40)
@given(st.integers(0, 999), st.integers(1, 60))
def test_the_brier_score_agrees_with_scikit_learn(seed: int, n: int):
    scores, positive = drawn(n, seed)
    assert brier(positive, scores) == pytest.approx(brier_score_loss(positive, scores))


@settings(max_examples=40)
@given(st.integers(0, 999))
def test_weights_are_as_good_as_repeats(seed: int):
    scores, positive = drawn(30, seed)
    times = np.random.default_rng(seed).integers(1, 5, 30)
    repeated = np.repeat(positive, times), np.repeat(scores, times)
    assert ece(positive, scores, times.astype(float)) == pytest.approx(ece(*repeated))
    assert brier(positive, scores, times.astype(float)) == pytest.approx(brier(*repeated))


def test_a_probability_of_one_has_a_bin_and_no_case_is_refused():
    assert ece(np.array([1, 0]), np.array([1.0, 0.0])) == 0
    with pytest.raises(ValueError, match="at least one case"):
        reliability(np.array([]), np.array([]))


# --- pixels


@pytest.mark.parametrize("true", [0.5, 1.0, 2.5])
def test_the_temperature_that_was_put_in_is_found(true: float):
    generator = np.random.default_rng(3)
    logits = generator.normal(-2, 2, (4, 200, 200))
    masks = (generator.random(logits.shape) < expit(logits)).astype(np.uint8)
    counts = pixel_counts(expit(logits * true).astype(np.float32), masks)
    assert temperature(counts) == pytest.approx(true, rel=0.03)
    assert brier(*pixel_cases(counts, temperature(counts))) <= brier(*pixel_cases(counts)) + 1e-6
    assert ece(*pixel_cases(counts, temperature(counts))) < 0.005


def test_every_pixel_is_counted_once_and_at_its_level():
    probabilities = np.array([[[0.0, 1e-9, 0.5, 0.9], [1.0, 0.5, 0.2, 0.01]]], dtype=np.float32)
    masks = np.array([[[0, 1, 0, 1], [1, 1, 0, 0]]], dtype=np.uint8)
    counts = pixel_counts(probabilities, masks)
    assert counts.shape == (1, 128, 2)
    assert counts.sum(axis=(0, 1)).tolist() == [4, 4]
    assert counts[0, 0].tolist() == [1, 1]  # 0 and nearly 0
    assert counts[0, -1].tolist() == [0, 1]  # 1
    half_a_level = (level_logits()[1] - level_logits()[0]) / 2
    at = int(np.flatnonzero(counts[0, :, 1])[-2])
    assert abs(level_logits()[at] - logit(np.array([0.9]))[0]) <= half_a_level + 1e-6


def test_pixels_of_one_kind_leave_the_temperature_alone():
    probabilities = np.full((1, 3, 3), 0.7, dtype=np.float32)
    assert temperature(pixel_counts(probabilities, np.zeros((1, 3, 3), dtype=np.uint8))) == 1.0


# --- image scores


def test_platt_scaling_is_the_logistic_regression_of_the_logit():
    scores, positive = drawn(400, 5, slope=0.5, intercept=-1)
    n = positive.sum()
    targets = np.where(positive, (n + 1) / (n + 2), 1 / (400 - n + 2))
    both = np.concatenate([logit(scores), logit(scores)])[:, None]
    theirs = LogisticRegression(C=1e9, tol=1e-10).fit(
        both, np.repeat([1, 0], 400), sample_weight=np.concatenate([targets, 1 - targets])
    )
    slope, same, intercept = fit_scores(scores, positive)
    assert slope == same == pytest.approx(theirs.coef_[0, 0], rel=1e-3)
    assert intercept == pytest.approx(theirs.intercept_[0], rel=1e-3)


@pytest.mark.parametrize("method", ["platt", "beta"])
def test_scaling_mends_scores_that_are_too_sure(method):
    scores, positive = drawn(3000, 1, slope=0.4, intercept=-1.5)
    made = Calibration(image=fit_scores(scores, positive, method))
    fresh, truth = drawn(3000, 2, slope=0.4, intercept=-1.5)
    assert ece(truth, fresh) > 0.15
    assert ece(truth, made.images(fresh)) < 0.04
    assert brier(truth, made.images(fresh)) < brier(truth, fresh)


@settings(max_examples=60)
@given(st.integers(0, 9999), st.integers(2, 40), st.sampled_from(["platt", "beta"]), st.booleans())
def test_scaling_keeps_the_order_of_images_whatever_the_data(seed: int, n: int, method, separable: bool):
    scores, positive = drawn(n, seed)
    positive = scores > 0.5 if separable else positive
    made = Calibration(image=fit_scores(scores, positive, method))
    assert np.isfinite(made.image).all()
    probabilities = made.images(np.sort(scores))
    assert (np.diff(probabilities) >= -1e-12).all()
    assert ((probabilities >= 0) & (probabilities <= 1)).all()


def test_scores_that_point_the_wrong_way_become_the_share_of_positives():
    scores, positive = drawn(200, 3)
    for method in ("platt", "beta"):
        made = Calibration(image=fit_scores(scores, ~positive, method)).images(scores)
        assert np.ptp(made) < 0.2
    assert Calibration(image=fit_scores(scores, ~positive)).images(0.3) == pytest.approx((~positive).mean(), abs=0.01)


# --- the threshold of few misses


@settings(max_examples=60)
@given(st.integers(1, 300), st.sampled_from([0.02, 0.05, 0.1, 0.3]), st.sampled_from([0.8, 0.95]))
def test_the_threshold_is_the_highest_that_clopper_and_pearson_allow(n: int, alpha: float, confidence: float):
    scores = np.random.default_rng(n).random(n)
    found = conformal(scores, np.ones(n, dtype=bool), np.arange(n), alpha, confidence)
    bounds = [beta.ppf(confidence, misses + 1, n - misses) for misses in range(n)]
    allowed = [misses for misses in range(n) if bounds[misses] <= alpha + 1e-12]
    if not allowed:
        assert found is None
        assert n < positives_needed(alpha, confidence)
    else:
        assert found is not None
        assert (scores < found.threshold).sum() == max(allowed)
        assert n >= positives_needed(alpha, confidence)


def test_fifty_nine_positives_are_the_least_for_five_per_cent():
    assert positives_needed(0.05, 0.95) == 59


@pytest.mark.parametrize(
    ("threshold", "said"), [(3.651209e-05, "0.00003651"), (0.3125, "0.3125"), (0.07812345, "0.07812"), (0.0, "0")]
)
def test_a_threshold_far_below_one_is_said_in_digits_that_count(threshold: float, said: str):
    assert RuleOut(threshold, 0.05, 0.95, 80).score == said


def test_the_conformal_threshold_holds_as_often_as_stated():
    generator, kept = np.random.default_rng(8), 0
    for _ in range(1000):
        found = conformal(generator.random(100), np.ones(100, dtype=bool), np.arange(100), 0.1, 0.9)
        assert found is not None
        kept += found.threshold <= 0.1  # of uniform scores, the share below a threshold is the threshold
    assert 0.9 - 0.03 <= kept / 1000 <= 0.97


def test_a_patient_counts_once_by_the_lowest_score_and_negatives_not_at_all():
    scores = np.concatenate([np.linspace(0.5, 0.9, 60), np.linspace(0.4, 0.8, 60), np.zeros(9)])
    positive = np.array([True] * 120 + [False] * 9)
    patients = np.concatenate([np.arange(60), np.arange(60), np.arange(9)])
    found = conformal(scores, positive, patients, 0.05, 0.95)
    assert found is not None
    assert (found.patients, found.threshold) == (60, 0.4)


# --- as a checkpoint keeps it


def test_a_calibration_survives_json():
    import json

    made = Calibration(1.7, (0.5, 0.25, -1.0), "beta", RuleOut(0.2, 0.05, 0.95, 80))
    assert Calibration.of(json.loads(json.dumps(made.header()))) == made
    assert Calibration.of({**Calibration().header(), "quality": {}}) == Calibration()


@pytest.mark.parametrize(
    "change", [{"temperature": 0}, {"temperature": None}, {"image": [1, 2]}, {"image": [1, 1, float("nan")]}]
)
def test_a_damaged_calibration_is_refused(change: dict):
    with pytest.raises(ValueError, match=r"calibration|unpack"):
        Calibration.of({**Calibration().header(), **change})


def test_a_calibration_that_does_nothing_changes_nothing():
    scores = np.linspace(0, 1, 50)
    np.testing.assert_allclose(Calibration().images(scores), scores, atol=1e-6)
    np.testing.assert_allclose(Calibration().pixels(scores.astype(np.float32)), scores, atol=1e-6)
