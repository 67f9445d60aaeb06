"""The one sentence on how a model stands to the predictor that finds nothing."""

import numpy as np

from pleura.evaluation.metrics.bootstrap import bootstrap
from pleura.evaluation.metrics.siim import CaseResults
from pleura.evaluation.summary import against_empty


def said(dice, positive, predicted_positive, in_sample=False):
    positive, predicted_positive = np.array(positive), np.array(predicted_positive)
    results = CaseResults(positive, predicted_positive, np.array(dice, dtype=float), np.zeros(len(positive)))
    estimates = bootstrap(results.summary, np.arange(len(positive)), 200)
    return against_empty(results, estimates, float((~positive).mean()), in_sample)


POSITIVE = [True] * 20 + [False] * 20


def test_a_model_that_finds_nothing_is_called_the_empty_predictor():
    assert said([0.0] * 20 + [1.0] * 20, POSITIVE, [False] * 40).startswith("This is the empty predictor")


def test_a_model_that_finds_much_beats_the_empty_predictor():
    assert said([0.8] * 20 + [1.0] * 20, POSITIVE, POSITIVE).startswith("It beats the empty predictor")


def test_a_model_of_false_alarms_alone_is_called_worse_than_the_empty_predictor():
    assert said([0.0] * 40, POSITIVE, [True] * 40).startswith("It is worse than the empty predictor")


def test_a_model_that_gains_what_it_loses_cannot_be_told_from_the_empty_predictor():
    assert "cannot be told" in said([1.0, *[0.0] * 19, 0.0, *[1.0] * 19], POSITIVE, [True, *[False] * 19] * 2)


def test_a_rule_tuned_on_the_same_cases_is_said_to_be():
    assert "tuned on these very cases" in said([0.8] * 20 + [1.0] * 20, POSITIVE, POSITIVE, in_sample=True)


def test_negatives_alone_tell_nothing_of_how_well_a_pneumothorax_is_found():
    assert "only the false alarms" in said([1.0] * 20, [False] * 20, [False] * 20)
