"""Intervals: they cover, the seed decides, and a patient with many radiographs is still one patient."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pleura.evaluation.metrics.bootstrap import Estimate, Rows, bootstrap, wilson


def mean_of(values: np.ndarray, patients: np.ndarray | None = None, **options: int) -> Estimate:
    def statistics(rows: Rows) -> dict[str, float]:
        return {"mean": float(values[rows].mean())}

    who = np.arange(len(values)) if patients is None else patients
    return bootstrap(statistics, who, **options)["mean"]


def test_the_value_is_the_statistic_over_all_cases():
    values = np.array([3.0, 1.0, 4.0, 1.0])
    assert mean_of(values, n_resamples=50).value == 2.25


def test_the_value_lies_within_its_interval():
    estimate = mean_of(np.random.default_rng(0).normal(size=80))
    assert estimate.low < estimate.value < estimate.high


def test_an_interval_agrees_with_theory_where_there_is_one():
    values = np.random.default_rng(1).normal(size=400)
    estimate = mean_of(values)
    half_width = 1.96 * values.std() / math.sqrt(400)
    assert estimate.high - estimate.value == pytest.approx(half_width, rel=0.1)
    assert estimate.value - estimate.low == pytest.approx(half_width, rel=0.1)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    generator = np.random.default_rng(2)
    estimates = [mean_of(generator.normal(size=60), n_resamples=100) for _ in range(100)]
    covered = np.mean([estimate.low <= 0 <= estimate.high for estimate in estimates])
    assert 0.88 <= covered <= 0.99


def test_the_seed_decides():
    values = np.random.default_rng(3).normal(size=50)
    assert mean_of(values, seed=1, n_resamples=50) == mean_of(values, seed=1, n_resamples=50)
    assert mean_of(values, seed=1, n_resamples=50) != mean_of(values, seed=2, n_resamples=50)


def test_copies_of_a_case_do_not_narrow_the_interval_if_they_share_a_patient():
    once = np.random.default_rng(4).normal(size=60)
    copied, patients = np.repeat(once, 9), np.repeat(np.arange(60), 9)
    alone, together = mean_of(copied), mean_of(copied, patients)
    assert together.high - together.low > 2.5 * (alone.high - alone.low)
    single = mean_of(once)
    assert together.high - together.low == pytest.approx(single.high - single.low, rel=0.15)


def test_the_cases_of_a_patient_are_drawn_together_wherever_they_stand():
    patients = np.array([7, 2, 7, 5, 2, 7])

    def statistics(rows: Rows) -> dict[str, float]:
        counts = np.bincount(rows, minlength=6)
        return {"together": float(counts[0] == counts[2] == counts[5] and counts[1] == counts[4])}

    assert bootstrap(statistics, patients, 100)["together"] == Estimate(1.0, 1.0, 1.0)


def test_a_resample_without_a_number_is_skipped():
    values = np.array([1.0, 2.0, np.nan])
    skipping = bootstrap(lambda rows: {"x": float(values[rows].mean())}, np.arange(3), 200)["x"]
    assert math.isnan(skipping.value)
    assert 1 <= skipping.low <= skipping.high <= 2


def test_without_any_number_the_interval_is_not_a_number():
    estimate = bootstrap(lambda _: {"x": math.nan}, np.arange(3), 10)["x"]
    assert all(math.isnan(value) for value in (estimate.value, estimate.low, estimate.high))


def test_several_statistics_come_from_the_same_resamples():
    def statistics(rows: Rows) -> dict[str, float]:
        return {"sum": float(rows.sum()), "twice": 2.0 * rows.sum()}

    both = bootstrap(statistics, np.arange(10), 50)
    assert (both["twice"].low, both["twice"].high) == (2 * both["sum"].low, 2 * both["sum"].high)


def test_an_estimate_shows_its_interval():
    estimate = Estimate(0.84512, 0.8, 0.9)
    assert str(estimate) == f"{estimate}" == "0.8451 (95 % 0.8000 to 0.9000)"
    assert f"{estimate:+.1f}" == "+0.8 (95 % +0.8 to +0.9)"
    assert estimate.short(".2f") == "0.85 (0.80 to 0.90)"


def test_an_estimate_without_a_value_or_an_interval_says_so():
    assert Estimate(math.nan, math.nan, math.nan).short() == "no such cases"
    assert Estimate(0.5, math.nan, 1.0).short() == "0.500"


def test_wilson_knows_doubt_where_all_succeeded():
    estimate = wilson(20, 20)
    assert (estimate.value, estimate.high) == (1.0, 1.0)
    assert estimate.low == pytest.approx(0.8389, abs=1e-4)  # Brown, Cai & DasGupta 2001: n / (n + z^2)
    assert math.isnan(wilson(0, 0).value)
