"""What is left of a tuned triplet on other patients."""

from __future__ import annotations

import numpy as np
import pytest

from pleura.decision.objectives import Objective
from pleura.decision.search import Histograms
from pleura.decision.triplet import LEVELS, NOTHING, Triplet
from pleura.evaluation.nested import landscape, nested, spread

SIDE_PX = 16


def histograms_of(n: int, signal: float, seed: int = 0) -> Histograms:
    generator = np.random.default_rng(seed)
    masks = np.zeros((n, SIDE_PX, SIDE_PX), dtype=np.uint8)
    for mask in masks[: n // 2]:
        top, left = generator.integers(0, 10, 2)
        mask[top : top + 5, left : left + 5] = 1
    noise = generator.normal(0, 0.08, masks.shape) + generator.normal(0, 0.08, (n, 1, 1))
    return Histograms.of(np.clip(0.3 + signal * masks + noise, 0, 1).astype(np.float32), masks)


def five_folds(n: int) -> np.ndarray:
    return np.arange(n) % 5


def test_the_nested_score_is_that_of_rules_tuned_without_the_fold():
    histograms, objective = histograms_of(40, 0.3), Objective()
    found = nested(histograms, np.arange(40), five_folds(40), objective, resamples=20)
    for fold in range(5):
        outside, inside = np.flatnonzero(five_folds(40) != fold), np.flatnonzero(five_folds(40) == fold)
        assert found.triplets[fold] == objective.search(histograms.take(outside)).triplet
        assert np.array_equal(found.dice[inside], histograms.take(inside).decided(found.triplets[fold])[1])
    assert found.score.value == pytest.approx(
        objective.score(histograms.positive, found.predicted_positive, found.dice)
    )
    assert found.score.low <= found.score.value <= found.score.high


def test_tuning_on_noise_flatters_in_sample_and_not_when_nested():
    objective, gaps, honest = Objective(prevalence=None), [], []
    for seed in range(12):
        histograms = histograms_of(24, 0.0, seed)
        score = nested(histograms, np.arange(24), five_folds(24), objective, resamples=1).score.value
        gaps.append(objective.search(histograms).score - score)
        honest.append(score)
    assert np.mean(gaps) > 0.02
    assert np.mean(honest) < 0.55  # nothing found on any image has 0.5


def test_the_nested_estimate_is_near_the_score_on_new_cases():
    objective, promised, kept = Objective(prevalence=None), [], []
    new = histograms_of(400, 0.25, 999)
    for seed in range(12):
        histograms = histograms_of(40, 0.25, seed)
        promised.append(nested(histograms, np.arange(40), five_folds(40), objective, resamples=1).score.value)
        kept.append(new.decided(objective.search(histograms).triplet)[1].mean())
    assert np.mean(promised) == pytest.approx(np.mean(kept), abs=0.04)


def test_a_choice_of_ones_own_is_nested_too():
    histograms, rule = histograms_of(20, 0.3), Triplet(0.5, 1000, 0.4)
    found = nested(histograms, np.arange(20), five_folds(20), Objective(), lambda rows: rule, resamples=1)
    assert found.triplets == [rule] * 5
    assert np.array_equal(found.dice, histograms.decided(rule)[1])


def test_the_choice_wavers_less_the_clearer_the_signal():
    objective = Objective(prevalence=None)
    clear, vague = (spread(histograms_of(30, signal), np.arange(30), objective, range(15)) for signal in (0.6, 0.15))
    assert len(clear.triplets) == 15
    for part in ("top_threshold", "min_pixels"):
        widths = [np.ptp(each.interval(part) or (0, 1)) for each in (clear, vague)]
        assert widths[0] < widths[1], part


def test_patients_are_resampled_with_all_their_cases():
    histograms = histograms_of(20, 0.4)
    one = spread(histograms, np.zeros(20, dtype=np.int64), Objective(), range(3))
    assert set(one.triplets) == {Objective().search(histograms).triplet}


def test_a_spread_of_nothing_has_no_interval():
    masks = np.zeros((4, 4, 4), dtype=np.uint8)
    found = spread(Histograms.of(masks.astype(np.float32), masks), np.arange(4), Objective(), range(3))
    assert found.triplets == [NOTHING] * 3
    assert found.interval("top_threshold") is None


@pytest.mark.parametrize("name", ["siim_dice", "youden", "dice_on_positives"])
def test_the_landscape_holds_the_scores_of_its_rules(name: str):
    histograms, objective = histograms_of(20, 0.3), Objective(name, specificity=0.6)
    best = objective.search(histograms)
    around = landscape(histograms, objective, best.triplet, steps=9)
    top, bottom = round(best.triplet.top_threshold * LEVELS), round(best.triplet.bottom_threshold * LEVELS)
    assert around.thresholds[top, bottom] == pytest.approx(best.score)
    assert np.nanmax(around.thresholds) <= best.score + 1e-9
    assert np.isnan(around.thresholds[3, 4])
    for at, needed in enumerate(around.min_pixels):
        rule = Triplet(top / LEVELS, int(needed), bottom / LEVELS)
        score = objective.score(histograms.positive, *histograms.decided(rule))
        assert np.isnan(around.areas[top, at]) or around.areas[top, at] == pytest.approx(score)
