"""A report is what its JSON says: round trips, earlier formats, and refusals in one line."""

from __future__ import annotations

import json

import numpy as np
import pytest
from reports import measured, report_of

from pleura.decision.calibration import Calibration, pixel_counts
from pleura.errors import InputError
from pleura.evaluation.report.card_scores import kept
from pleura.evaluation.report.document import FORMAT, EvaluationReport
from pleura.files import as_json

MIXED = [True] * 12 + [False] * 20


def written(report: EvaluationReport) -> dict:
    return json.loads(as_json(report.to_json()), parse_constant=pytest.fail)


@pytest.mark.parametrize("positive", [MIXED, [True] * 5, [False] * 5, [True]])
def test_report_is_the_same_after_a_round_trip(positive):
    counts = pixel_counts(np.full((1, 8, 8), 0.5, dtype=np.float32), np.eye(8, dtype=np.uint8)[None]).sum(axis=0)
    document = written(report_of(measured(positive), pixel_counts=counts, calibration=Calibration(2.0)))
    assert written(EvaluationReport.from_json(document)) == document


def test_report_has_its_format_and_the_keys_of_earlier_versions():
    document = written(report_of(measured(MIXED)))
    assert document["format"] == FORMAT
    assert {"verdict", "strata", "triplet_tuned_on_these_cases"} <= document.keys()
    assert {"called", "siim_dice"} <= document["cases"][0].keys()
    assert document["tuned"]["cross_fitted"] is None
    assert set(document["calibration"]) == {"image"}


def test_report_without_a_format_is_read_as_the_same_shape():
    document = written(report_of(measured(MIXED)))
    assert EvaluationReport.from_json({key: document[key] for key in document if key != "format"}).positives == 12


def test_report_of_a_header_lacks_cases_and_points_alone():
    whole = EvaluationReport.from_json(written(report_of(measured(MIXED))))
    part = EvaluationReport.from_json(json.loads(as_json(kept(whole))))
    assert part.cases == part.curves.roc.x == part.calibration.image.bins == ()
    assert (part.metrics, part.curves.roc.area) == (whole.metrics, whole.curves.roc.area)
    assert kept(part) == kept(whole)


def test_report_of_a_newer_format_is_refused():
    with pytest.raises(InputError, match=rf"^has the format {FORMAT + 1}, .* reads up to {FORMAT}$"):
        EvaluationReport.from_json(written(report_of(measured(MIXED))) | {"format": FORMAT + 1})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positives": "12"}, "^positives is '12', which is of another type$"),
        ({"metrics": {"siim_dice": {"value": 1}}}, r"^has no metrics\.siim_dice\.low$"),
        ({"findings": [{"severity": "fatal", "what": "", "way_out": ""}]}, r"^findings\[0\]\.severity is 'fatal'"),
        ({"strata": 3}, "^strata is 3"),
    ],
)
def test_report_with_a_wrong_value_is_refused_by_its_key(change, message):
    with pytest.raises(InputError, match=message):
        EvaluationReport.from_json(written(report_of(measured(MIXED))) | change)
