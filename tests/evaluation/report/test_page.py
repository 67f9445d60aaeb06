"""The page of a report and its figures: whole for every kind of data, without network, and nothing unescaped."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from reports import measured, report_of

from pleura.data.problems import Finding
from pleura.decision.calibration import Calibration, pixel_counts
from pleura.evaluation.report.figures import figures
from pleura.evaluation.report.page import Picture, gallery, page, render
from pleura.evaluation.report.sections import findings, groups, outlines, prevalence
from pleura.evaluation.report.svg import svg

MIXED = [True] * 12 + [False] * 20
KINDS = {
    "mixed": (MIXED, None),
    "all positive": ([True] * 5, None),
    "all negative": ([False] * 5, None),
    "nothing found": (MIXED, [False] * 32),
    "all found": (MIXED, [True] * 32),
    "one case": ([True], None),
}
CLOSED = {
    "table",
    "div",
    "ul",
    "button",
    "figure",
    "svg",
    "h1",
    "h2",
    "label",
    "output",
    "span",
    "b",
    "style",
    "script",
}


class Balance(HTMLParser):
    """Which of the tags that need an end have none."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.open += [tag] if tag in CLOSED else []

    def handle_endtag(self, tag):
        if tag in CLOSED:
            assert self.open.pop() == tag


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_is_whole_for_every_kind_of_data(kind):
    made = report_of(measured(*KINDS[kind]))
    text = render(made, {"The worst": [Picture("data:image/jpeg;base64,AA", "missed", "id")]})
    reader = Balance()
    reader.feed(text)
    assert reader.open == []
    assert "http" not in text
    assert "nan" not in text.replace("nance", "")
    assert "<cases>" not in text
    assert "<flipped>" not in text


@pytest.mark.parametrize("kind", KINDS)
def test_every_figure_can_be_read_as_a_file(kind):
    drawn = figures(report_of(measured(*KINDS[kind])))
    assert set(drawn) == {"dice", "roc", "pr", "froc", "calibration", "prevalence"}
    for chart in drawn.values():
        ElementTree.fromstring(svg(chart, alone=True))


def test_the_curves_of_the_figures_are_those_of_the_report():
    made = report_of(measured(MIXED))
    series = figures(made)["roc"].series[1]
    assert list(series.x) == list(made.curves.roc.x)
    assert "AUROC" in series.name


def test_a_class_that_is_missing_is_named_in_the_place_of_its_curve():
    drawn = figures(report_of(measured([True] * 5)))
    assert "no negatives" in drawn["roc"].missing
    assert drawn["roc"].series == drawn["pr"].series == []
    assert "no lesion" in figures(report_of(measured([False] * 5)))["froc"].missing


def test_calibrated_curves_are_drawn_beside_those_before():
    probabilities = np.random.default_rng(1).random((1, 32, 32)).astype(np.float32)
    counts = pixel_counts(probabilities, (probabilities > 0.8).astype(np.uint8)).sum(axis=0)
    drawn = figures(report_of(measured(MIXED), pixel_counts=counts, calibration=Calibration(0.5)))["calibration"]
    names = [series.name.split(":")[0] for series in drawn.series if series.name]
    assert names == ["image score", "image score, calibrated", "pixels", "pixels, calibrated"]


def test_the_worst_finding_comes_first_and_silence_takes_no_room():
    made, severities = report_of(measured(MIXED)), ("note", "error", "warning")
    text = findings(replace(made, findings=tuple(Finding(each, each, "do") for each in severities)))
    assert text.index("Error.") < text.index("Warning.") < text.index("Note.")
    assert findings(replace(made, findings=())) == ""


def test_the_slider_starts_from_the_numbers_of_the_table():
    made = report_of(measured(MIXED, [True] * 9 + [False] * 18 + [True] * 5))
    text = prevalence(made)
    assert "data-sensitivity='0.750000' data-specificity='0.750000'" in text
    assert all(f"<td class=n>{share} %" in text for share in ("2", "5", "22.15"))
    assert "no negatives" in prevalence(report_of(measured([True] * 3)))


def test_small_groups_are_marked_and_what_is_not_known_is_told():
    text = groups(report_of(measured([True] * 3 + [False] * 3)))
    assert "few" in text
    assert "view or the sex or the age" in text


def test_positives_without_a_distance_are_counted_in_words():
    assert "3 of 12 have none" in outlines(report_of(measured(MIXED, [True] * 9 + [False] * 23)))
    assert "no outlines to compare" in outlines(report_of(measured([False] * 3)))


def test_pictures_open_by_a_button_and_hold_their_bytes_once():
    text = page("t", gallery("Some", [Picture("data:image/jpeg;base64,XYZXYZ", "a <b>", "id")]))
    assert text.count("XYZXYZ") == 1
    assert "<button class=zoom>" in text
    assert "a &lt;b&gt;" in text
    assert "showModal" in text
