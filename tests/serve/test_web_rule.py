"""The decision rule in the browser: the same mask, pixel for pixel, as `pleura.decision.triplet` finds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from web_modules import call, needs_node

from pleura.decision.laterality import side_of
from pleura.decision.levels import levels_of, probabilities_of
from pleura.decision.triplet import NOTHING, Triplet
from pleura.evaluation.metrics.components import components

pytestmark = needs_node

SHAPES = ((96, 96), (120, 77), (1, 300), (61, 200))
TRIPLETS = (
    Triplet(0.5, 0, 0.5),
    Triplet(0.75, 2000, 0.3),
    Triplet(0.75, 30000, 0.3),
    Triplet(0.9, 100000, 0.2),
    Triplet(1 / 256, 1, 255 / 256),
    Triplet(0, 0, 0),
    NOTHING,
)


def levels(shape: tuple[int, int], seed: int) -> NDArray[np.uint8]:
    """Smooth blobs of every level."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.random((9, 8)).astype(np.float32))
    smooth = np.asarray(coarse.resize(shape[::-1], Image.Resampling.BICUBIC))
    return levels_of(np.clip(smooth * 1.2 - 0.1, 0, 1).astype(np.float32))


def in_js(triplet: Triplet) -> dict[str, Any]:
    return {
        "topThreshold": triplet.top_threshold,
        "minPixels": triplet.min_pixels,
        "bottomThreshold": triplet.bottom_threshold,
    }


CASES = [(shape, triplet) for shape in SHAPES for triplet in TRIPLETS]


def test_the_mask_is_that_of_the_rule_in_python_pixel_for_pixel() -> None:
    images = {shape: levels(shape, seed) for seed, shape in enumerate(SHAPES)}
    calls = [("maskOf", (images[shape].reshape(-1), in_js(triplet), max(shape) ** 2)) for shape, triplet in CASES]
    sizes = []
    for (shape, triplet), found in zip(CASES, call("rule.js", *calls), strict=True):
        expected = triplet.apply(probabilities_of(images[shape]), max(shape) ** 2)
        np.testing.assert_array_equal(found.reshape(shape), expected, err_msg=f"{shape} {triplet}")
        sizes.append(int(expected.sum()))
    assert sizes.count(0) >= len(SHAPES), "a rule that finds nothing is among them"
    assert len(set(sizes)) > 10, "and many that find something"


def test_one_pixel_decides_as_in_python() -> None:
    """At the very count of pixels, and one below it, on a grid to which min_pixels scales with a fraction."""
    image = np.zeros((100, 90), dtype=np.uint8)
    image[:3, :7] = 200
    rules = [Triplet(200 / 256, pixels, 0.1) for pixels in range(2190, 2215)]
    found = call("rule.js", *[("maskOf", (image.reshape(-1), in_js(rule), 100**2)) for rule in rules])
    expected = [rule.apply(probabilities_of(image), 100**2).sum() for rule in rules]
    assert [int(mask.sum()) for mask in found] == expected
    assert set(expected) == {0, 21}


def test_a_threshold_is_moved_to_the_grid_as_in_python() -> None:
    thresholds = [0.0, 1e-9, 0.001, 0.3, 0.7, 0.9999, 1.0, *(level / 256 for level in range(257))]
    found = call("rule.js", *[("levelOf", (threshold,)) for threshold in thresholds])
    assert found == [round(Triplet(threshold).top_threshold * 256) for threshold in thresholds]


@pytest.mark.parametrize("orientation", [None, ("L", "F"), ("R", "F"), ("A", "F"), ("F", "L"), ("P", "R"), ("H", "R")])
def test_the_side_is_that_of_python(orientation: tuple[str, str] | None) -> None:
    masks = [np.zeros((21, 33), dtype=np.uint8) for _ in range(5)]
    masks[0][3:9, 2:9] = 1
    masks[1][12:20, 20:30] = 1
    masks[2][:, 5:30] = 1
    masks[3][5, :] = 1
    given = None if orientation is None else list(orientation)
    found = call("rule.js", *[("sideOf", (mask.reshape(-1), 33, 21, given)) for mask in masks])
    assert found == [side_of(mask, orientation) for mask in masks]


def test_the_parts_of_a_mask_are_its_connected_components() -> None:
    for seed in range(6):
        mask = (levels((70, 81), seed) > 100 + 20 * seed).astype(np.uint8)
        if seed == 5:
            mask = (np.random.default_rng(1).random((70, 81)) < 0.4).astype(np.uint8)
        [parts] = call("rule.js", ("componentsOf", (mask.reshape(-1), 81, 70)))
        numbers, count = components(mask.astype(bool))
        expected = []
        for number in range(1, count + 1):
            rows, columns = np.nonzero(numbers == number)
            box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            expected.append((len(rows), *map(int, box)))
        assert sorted(
            tuple(part[key] for key in ("area", "left", "top", "right", "bottom")) for part in parts
        ) == sorted(expected)
        assert [part["area"] for part in parts] == sorted((part["area"] for part in parts), reverse=True)


def test_the_outline_lies_between_the_mask_and_all_else() -> None:
    mask = (levels((40, 57), 3) > 130).astype(np.uint8)
    mask[0, 5:9] = mask[30:, 56] = mask[39, 0] = 1
    [lines] = call("rule.js", ("outlineOf", (mask.reshape(-1), 57, 40)))
    framed = np.pad(mask, 1)
    across = {(row, column) for row, column in np.argwhere(np.diff(framed, axis=0)[:, 1:-1])}
    down = {(row, column) for row, column in np.argwhere(np.diff(framed, axis=1)[1:-1])}
    found_across, found_down = set(), set()
    for x0, y0, x1, y1 in lines.reshape(-1, 4).astype(int).tolist():
        found_across |= {(y0, column) for column in range(x0, x1)}
        found_down |= {(row, x0) for row in range(y0, y1)}
    assert (found_across, found_down) == (across, down)


def test_the_result_in_words_is_that_of_python(seen_words: list[tuple[dict[str, Any], str]]) -> None:
    found = call("words.js", *[("foundInWords", (given,)) for given, _ in seen_words])
    assert found == [expected for _, expected in seen_words]


@pytest.fixture
def seen_words(predictor, files) -> list[tuple[dict[str, Any], str]]:
    from dataclasses import replace

    prediction = predictor.predict(files["dicom"])
    pairs = []
    for area_px, area_mm2, side, score in [
        (0, 0.0, None, 0.125),
        (0, None, None, 0.0),
        (712, None, "R", 0.875),
        (5, 25.0, "L", 0.994999),
        (5, 75.0, "B", 1.0),
        (9, 1234.5678, None, 0.005),
        (9, 15.0, "L", 0.015),
    ]:
        one = replace(prediction, is_positive=area_px > 0, area_px=area_px, area_mm2=area_mm2, side=side, score=score)
        pairs.append(({"areaPx": area_px, "areaMm2": area_mm2, "side": side, "score": score}, one.found()))
    return pairs
