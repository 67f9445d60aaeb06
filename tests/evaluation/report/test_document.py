"""The numbers beside the score, against independent ones, and with nothing to count."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from accounts import measured
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from pleura.decision.calibration import pixel_counts
from pleura.evaluation.report.document import PREVALENCES, account
from pleura.files import as_json

MIXED = [True] * 12 + [False] * 20


def test_areas_and_brier_are_those_of_scikit_learn():
    given = measured(MIXED)
    found = account(given, 20)
    positive, scores = given.outcomes.positive, given.outcomes.scores
    assert found["curves"]["roc"]["area"]["value"] == pytest.approx(roc_auc_score(positive, scores))
    assert found["curves"]["pr"]["area"]["value"] == pytest.approx(average_precision_score(positive, scores))
    assert found["calibration"]["image"]["brier"] == pytest.approx(brier_score_loss(positive, scores))


def test_missed_positives_are_left_out_of_hd95_by_number_and_count_zero_in_the_surface_dice():
    found = account(measured(MIXED, [True] * 9 + [False] * 23), 20)["surface"]
    assert (found["hd95_cases"], found["hd95_left_out"]) == (9, 3)
    assert found["hd95"]["value"] == found["hd95_median"] == 5
    assert found["surface_dice"]["value"] == pytest.approx(0.7 * 9 / 12)


def test_the_four_counts_add_up_and_every_prevalence_has_its_floor():
    found = account(measured(MIXED, [True] * 9 + [False] * 18 + [True] * 5), 20)
    counts = [
        found["decisions"][name] for name in ("true_positives", "false_negatives", "false_positives", "true_negatives")
    ]
    assert counts == [9, 3, 5, 15]
    assert [row["prevalence"] for row in found["prevalence"]["rows"]] == list(PREVALENCES)
    assert all(row["floor"] == 1 - row["prevalence"] for row in found["prevalence"]["rows"])


def test_masks_alone_have_no_curves_and_no_calibration():
    assert not {"curves", "calibration"} & account(measured(MIXED, has_scores=False), 20).keys()


def test_calibrated_scores_and_pixels_stand_beside_those_before():
    probabilities = np.random.default_rng(1).random((1, 32, 32)).astype(np.float32)
    counts = pixel_counts(probabilities, (probabilities > 0.8).astype(np.uint8)).sum(axis=0)
    calibrated = {"scores": np.array(MIXED, dtype=float), "temperature": 0.5}
    found = account(measured(MIXED, pixel_counts=counts, calibrated=calibrated), 20)["calibration"]
    assert set(found) == {"image", "image_calibrated", "pixels", "pixels_calibrated"}
    assert found["image_calibrated"]["brier"] == found["image_calibrated"]["ece"] == 0
    assert found["pixels"]["ece"] != found["pixels_calibrated"]["ece"]


@pytest.mark.parametrize("positive", [[True] * 5, [False] * 5, [True], [False]])
def test_one_class_alone_is_told_with_null_and_never_with_a_number(positive):
    found = account(measured(positive), 10)
    assert math.isnan(found["curves"]["roc"]["area"]["value"])
    assert all(math.isnan(row["ppv"]["value"]) for row in found["prevalence"]["rows"])
    assert json.loads(as_json(found))["curves"]["pr"]["area"]["value"] is None
