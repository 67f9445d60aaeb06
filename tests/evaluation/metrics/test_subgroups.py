"""Groups of cases: every case in the group that its facts say, and nothing told of what is not known."""

from __future__ import annotations

import math

import numpy as np

from pleura.evaluation.metrics.siim import CaseResults
from pleura.evaluation.metrics.subgroups import UNKNOWN, Facts, subgroups

OUTCOMES = CaseResults(
    positive=np.array([True, True, True, False, False]),
    predicted_positive=np.array([True, False, True, False, True]),
    dice=np.array([0.5, 0.0, 0.9, 1.0, 0.0]),
    scores=np.zeros(5),
)
FACTS = Facts(
    area_share=[0.004, 0.005, 0.03, 0.0, 0.0],
    side=["R", "L", "R", None, None],
    view=["PA", "AP", "PA", "PA", None],
    sex=[None] * 5,
    age=[17.9, 18.0, 64.0, 65.0, None],
)


def rows(facts=FACTS, results=OUTCOMES):
    found = subgroups(facts, results, np.arange(len(results.positive)), 50)
    return {(row.by, row.group): row for row in found}


def test_each_group_has_its_cases_and_their_mean_dice():
    found = rows()
    assert found["side", "right"].dice.value == 0.7
    assert found["side", "left"].positives == 1
    assert (found["view", "PA"].positives, found["view", "PA"].negatives) == (2, 1)
    assert found["view", "PA"].specificity.value == 1
    assert found["view", UNKNOWN].specificity.value == 0


def test_limits_of_size_and_age_belong_to_the_group_above():
    found = rows()
    sizes = [group for by, group in found if by == "lesion size"]
    assert sizes == ["below 0.5 % of the image", "0.5 to 2 %", "2 % and more"]
    assert all(found["lesion size", group].positives == 1 for group in sizes)
    ages = {group: row.positives + row.negatives for (by, group), row in found.items() if by == "age"}
    assert ages == {"below 18": 1, "18 to 39": 1, "40 to 64": 1, "65 and above": 1, UNKNOWN: 1}


def test_what_nobody_knows_has_no_row():
    assert not any(by == "sex" for by, _ in rows())


def test_groups_by_size_and_side_hold_no_negatives_and_those_by_view_every_case():
    found = rows()
    assert all(row.negatives == 0 for (by, _), row in found.items() if by in ("lesion size", "side"))
    assert sum(row.positives + row.negatives for (by, _), row in found.items() if by == "view") == 5


def test_a_group_without_positives_has_no_dice():
    only = CaseResults(np.array([False]), np.array([False]), np.ones(1), np.zeros(1))
    found = rows(Facts([0.0], [None], ["AP"], [None], [None]), only)
    assert list(found) == [("view", "AP")]
    assert math.isnan(found["view", "AP"].dice.value)
