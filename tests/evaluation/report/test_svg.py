"""Charts are SVG that can be read, with everything inside, and ticks are round."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pleura.evaluation.report.svg import MAX_DOTS, WIDTH, Chart, Series, svg, ticks

NUMBERS = st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=6)


@given(NUMBERS, st.sampled_from(["line", "dashed", "step", "dots"]), st.booleans(), st.booleans())
def test_any_numbers_make_a_drawing_that_stays_inside(numbers, style, log, alone):
    series = Series(numbers, numbers, "<a & b>", style=style, band=(numbers, numbers, numbers))
    root = ElementTree.fromstring(svg(Chart("t", "x", "y", [series], x_range=(0.1, 1.0), log_x=log), alone))
    height = float(root.attrib["viewBox"].split()[-1])
    for element in root.iter():
        if element.tag.endswith("circle"):
            assert 0 <= float(element.attrib["cx"]) <= WIDTH
            assert 0 <= float(element.attrib["cy"]) <= height
    assert not re.search("nan|inf", "".join(element.attrib.get("d", "") for element in root.iter()))


def test_a_file_has_a_namespace_and_a_ground_and_a_part_of_a_page_has_neither():
    chart = Chart("t", "x", "y", [Series((0, 1), (0, 1))])
    assert "xmlns" in svg(chart, alone=True)
    assert "http" not in svg(chart)


def test_a_chart_without_numbers_says_why():
    text = svg(Chart("t", "x", "y", [], missing="It takes both classes, and there are no negatives here."))
    assert "no negatives" in text
    assert "<path" not in text


def test_many_dots_are_thinned():
    numbers = [number / 5000 for number in range(5000)]
    assert svg(Chart("t", "x", "y", [Series(numbers, numbers, style="dots")])).count("<circle") <= MAX_DOTS


@pytest.mark.parametrize(
    ("low", "high", "texts"),
    [
        (0, 1, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (0, 0.25, ["0.00", "0.05", "0.10", "0.15", "0.20", "0.25"]),
        (0, 8, ["0", "2", "4", "6", "8"]),
    ],
)
def test_ticks_are_round(low, high, texts):
    assert [text for _, text in ticks(low, high)] == texts


@given(st.floats(0.01, 1000))
def test_ticks_lie_within_the_axis_and_are_not_too_many(high):
    values = [value for value, _ in ticks(0, high)]
    assert 2 <= len(values) <= 8
    assert values[0] == 0
    assert values[-1] <= high * (1 + 1e-6)
    assert all(math.isfinite(value) for value in values)
