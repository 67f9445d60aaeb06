"""Each objective's search against trying every rule, and the scores it stands for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pleura.decision.objectives import OBJECTIVES, Objective
from pleura.decision.search import Histograms, search_gains
from pleura.decision.triplet import LEVELS, REFERENCE_AREA_PX, Triplet
from pleura.errors import InputError
from pleura.evaluation.metrics.siim import CaseResults

SIDE_PX = 6


@st.composite
def cases(draw: st.DrawFn) -> Histograms:
    """A few images of a few levels, at least one with a mask and one without."""
    n = draw(st.integers(3, 6))
    generator = np.random.default_rng(draw(st.integers(0, 2**31)))
    masks = (generator.random((n, SIDE_PX, SIDE_PX)) < generator.choice([0.1, 0.4], (n, 1, 1))).astype(np.uint8)
    masks[0], masks[1, 0, 0] = 0, 1
    masks[2:] *= generator.integers(0, 2, (n - 2, 1, 1), dtype=np.uint8)
    levels = np.sort(np.array(draw(st.lists(st.integers(0, 254), min_size=2, max_size=5, unique=True))))
    informed = generator.random(masks.shape) + draw(st.floats(0, 1)) * masks + generator.random((n, 1, 1))
    chosen = np.digitize(informed, np.quantile(informed, np.linspace(0, 1, len(levels) + 1)[1:-1]))
    return Histograms.of((levels[chosen] / LEVELS).astype(np.float32), masks)


def every_rule(histograms: Histograms) -> list[Triplet]:
    """A rule for each answer that is possible: every pair of levels in use, and every area that occurs."""
    used = np.flatnonzero(histograms.counts.sum(axis=(0, 2)))
    scale, rules = REFERENCE_AREA_PX / histograms.area_px, [Triplet(1.0, REFERENCE_AREA_PX + 1, 1.0)]
    for top in used:
        for area in np.unique(histograms.areas()[:, top]):
            for bottom in used[used <= top]:
                rules.append(Triplet(top / LEVELS, int(max(area, 1) * scale), bottom / LEVELS))
    return rules


def by_definition(objective: Objective, positive, predicted_positive, dice, repeats) -> float:
    """The score in the plainest words, each image written out as often as it counts."""
    positive, predicted_positive, dice = (
        np.repeat(values, repeats.astype(int)) for values in (positive, predicted_positive, dice)
    )
    sensitivity, specificity = predicted_positive[positive].mean(), (~predicted_positive[~positive]).mean()
    share = positive.mean() if objective.prevalence is None else objective.prevalence
    if objective.name == "siim_dice":
        return share * dice[positive].mean() + (1 - share) * dice[~positive].mean()
    if objective.name == "dice_on_positives":
        return dice[positive].mean() if specificity >= objective.specificity - 1e-9 else -np.inf
    if objective.name == "youden":
        return sensitivity + specificity - 1
    return -objective.miss_cost * share * (1 - sensitivity) - (1 - share) * (1 - specificity)


objectives = st.builds(
    Objective,
    st.sampled_from(sorted(OBJECTIVES)),
    st.none() | st.floats(0.05, 0.95),
    st.sampled_from([0.0, 0.4, 0.5, 0.9, 1.0]),
    st.floats(0.2, 20),
)


@settings(max_examples=150)
@given(cases(), objectives, st.integers(0, 99))
def test_the_search_finds_what_trying_every_rule_finds(histograms: Histograms, objective: Objective, seed: int):
    repeats = np.random.default_rng(seed).integers(1, 4, len(histograms)).astype(np.float64)
    found = search_gains(histograms, objective.gains(histograms, repeats))
    answers = {rule: histograms.decided(rule) for rule in [*every_rule(histograms), found.triplet]}
    scores = {rule: by_definition(objective, histograms.positive, *answer, repeats) for rule, answer in answers.items()}
    assert found.score == pytest.approx(max(scores.values()), abs=1e-9)
    assert scores[found.triplet] == pytest.approx(found.score, abs=1e-9)


@settings(max_examples=60)
@given(cases(), st.sampled_from(["youden", "expected_cost"]))
def test_best_dice_decides_among_rules_that_find_presence_as_well(histograms: Histograms, name: str):
    objective, ones = Objective(name, None), np.ones(len(histograms))
    found = objective.search(histograms)
    answers = [histograms.decided(rule) for rule in every_rule(histograms)]
    scores = [by_definition(objective, histograms.positive, *answer, ones) for answer in answers]
    equal = [answer[1].mean() for answer, score in zip(answers, scores, strict=True) if score > found.score - 1e-9]
    assert histograms.decided(found.triplet)[1].mean() == pytest.approx(max(equal), abs=1e-9)


@settings(max_examples=60)
@given(cases(), objectives)
def test_the_score_of_decisions_is_the_sum_of_the_search(histograms: Histograms, objective: Objective):
    found = objective.search(histograms)
    assert objective.score(histograms.positive, *histograms.decided(found.triplet)) == pytest.approx(found.score)


def test_the_weighted_dice_is_the_metric_of_the_report():
    generator = np.random.default_rng(1)
    positive = generator.random(50) < 0.4
    predicted_positive, dice = generator.random(50) < 0.5, generator.random(50)
    expected = CaseResults(positive, predicted_positive, dice, dice).summary()
    assert Objective().score(positive, predicted_positive, dice) == pytest.approx(
        expected["siim_dice_at_siim_prevalence"]
    )
    assert Objective(prevalence=None).score(positive, predicted_positive, dice) == pytest.approx(expected["siim_dice"])


def test_a_dearer_miss_never_makes_the_rule_find_less():
    generator = np.random.default_rng(4)
    masks = np.zeros((30, SIDE_PX, SIDE_PX), dtype=np.uint8)
    masks[:10, :2] = 1
    raw = np.clip(generator.normal(0.4, 0.2, masks.shape) + 0.15 * masks, 0, 1).astype(np.float32)
    histograms = Histograms.of(raw, masks)
    found = [
        histograms.decided(Objective("expected_cost", miss_cost=cost).search(histograms).triplet)[0][:10].sum()
        for cost in (0.01, 1, 10, 1000)
    ]
    assert found == sorted(found)
    assert found[-1] == 10


def test_the_score_of_a_class_that_is_missing_is_not_a_number():
    nothing = np.zeros(3, dtype=bool)
    assert np.isnan(Objective("youden").score(nothing, nothing, np.ones(3)))
    assert np.isnan(Objective("dice_on_positives").score(nothing, nothing, np.ones(3)))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"name": "accuracy"}, "none of siim_dice"),
        ({"prevalence": 0.0}, "--prevalence"),
        ({"specificity": 1.2}, "--specificity"),
        ({"miss_cost": -1.0}, "--miss-cost"),
    ],
)
def test_an_objective_out_of_range_is_refused(wrong: dict, said: str):
    with pytest.raises(InputError, match=said):
        Objective(**wrong)
