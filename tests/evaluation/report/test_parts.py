"""The numbers beside the score, against independent ones, and with nothing to count."""

from __future__ import annotations

import math

import numpy as np
import pytest
from reports import measured
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from pleura.decision.calibration import Calibration, pixel_counts
from pleura.evaluation.report.parts import (
    PREVALENCES,
    calibration_of,
    curves_of,
    decisions_of,
    prevalence_of,
    surface_of,
)

MIXED = [True] * 12 + [False] * 20


def test_areas_and_brier_are_those_of_scikit_learn():
    given = measured(MIXED)
    curves, calibration = curves_of(given, 20), calibration_of(given.results)
    positive, scores = given.results.positive, given.results.scores
    assert curves.roc.area.value == pytest.approx(roc_auc_score(positive, scores))
    assert curves.pr.area.value == pytest.approx(average_precision_score(positive, scores))
    assert calibration.image.brier == pytest.approx(brier_score_loss(positive, scores))


def test_missed_positives_are_left_out_of_hd95_by_number_and_count_zero_in_the_surface_dice():
    found = surface_of(measured(MIXED, [True] * 9 + [False] * 23), 20)
    assert (found.hd95_cases, found.hd95_left_out) == (9, 3)
    assert found.hd95.value == found.hd95_median == 5
    assert found.surface_dice.value == pytest.approx(0.7 * 9 / 12)


def test_decisions_add_up_and_every_prevalence_has_its_floor():
    given = measured(MIXED, [True] * 9 + [False] * 18 + [True] * 5)
    decisions, prevalence = decisions_of(given.results), prevalence_of(given.results, given.patients)
    assert (decisions.true_positives, decisions.false_negatives) == (9, 3)
    assert (decisions.false_positives, decisions.true_negatives) == (5, 15)
    assert [row.prevalence for row in prevalence.rows] == list(PREVALENCES)
    assert all(row.floor == 1 - row.prevalence for row in prevalence.rows)


def test_calibrated_scores_and_pixels_stand_beside_those_before():
    probabilities = np.random.default_rng(1).random((1, 32, 32)).astype(np.float32)
    counts = pixel_counts(probabilities, (probabilities > 0.8).astype(np.uint8)).sum(axis=0)
    results = measured(MIXED).results
    bare, found = calibration_of(results, counts), calibration_of(results, counts, Calibration(0.5, (3.0, 1.0, 0.0)))
    assert bare.image_calibrated is bare.pixels_calibrated is None
    assert found.image == bare.image
    assert found.image_calibrated.brier != found.image.brier
    assert found.pixels.ece != found.pixels_calibrated.ece


@pytest.mark.parametrize("positive", [[True] * 5, [False] * 5, [True], [False]])
def test_one_class_alone_has_no_number(positive):
    given = measured(positive)
    assert math.isnan(curves_of(given, 10).roc.area.value)
    assert all(math.isnan(row.ppv.value) for row in prevalence_of(given.results, given.patients).rows)
