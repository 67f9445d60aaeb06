"""The way to the square of a model and back, and numbers: in a page the same as in Python, to the last bit."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import PIL
import pytest
from browsers import in_browser, needs_node

from pleura.data.geometry import SquareGeometry
from pleura.decision.calibration import Calibration
from pleura.decision.triplet import image_score
from pleura.errors import excerpt

pytestmark = needs_node
SIZES = [(1, 1), (1, 7), (7, 1), (5, 3), (33, 64), (64, 33), (64, 64), (63, 65), (200, 170), (301, 499), (511, 513)]
SIZES += [(1024, 777), (777, 1024), (129, 1000), (53, 61)]
GRIDS, ASPECTS = (32, 57, 512), (1.0, 0.5, 1.7)
IS_EXACT = platform.machine() == "x86_64" and PIL.__version__.startswith("13.")
"""Another Pillow, or one that multiplies and adds in one step, differs in the last bit of a float32."""
NUMBERS = [
    0.5,
    1.5,
    2.5,
    -0.5,
    -1.5,
    0.0,
    1.0,
    1e-5,
    1234567.0,
    0.1,
    1 / 3,
    1e20,
    100000.0,
    999999.5,
    12.0,
    -0.25,
    123.4,
]


@pytest.mark.parametrize("size", GRIDS)
def test_squares_and_probabilities_are_equal_bit_for_bit_at_any_size(tmp_path: Path, size: int):
    tasks, wanted, rng = [], [], np.random.default_rng(size)
    for number, (rows, columns) in enumerate(SIZES):
        for aspect in ASPECTS if size == GRIDS[0] else ASPECTS[:1]:
            geometry = SquareGeometry(rows, columns, size, aspect)
            image, probabilities = (
                rng.random(shape, dtype=np.float32) for shape in (geometry.image_shape, (size, size))
            )
            files = [tmp_path / f"{number}-{aspect}.{kind}" for kind in ("image", "probabilities")]
            for file, array in zip(files, (image, probabilities), strict=True):
                array.tofile(file)
            tasks.append({"kind": "geometry", "rows": rows, "columns": columns, "size": size, "aspect": aspect}
                         | dict(zip(("image", "probabilities"), map(str, files), strict=True)))  # fmt: skip
            wanted.append(
                (geometry, geometry.image_to_square(image), geometry.probabilities_to_original(probabilities))
            )
    answers = in_browser(tasks, tmp_path)
    for task, (geometry, square, original), answer in zip(tasks, wanted, answers, strict=True):
        assert answer["found"] == {"whole": geometry.whole_area_px, "shape": list(geometry.image_shape)}
        found = np.fromfile(f"{task['image']}.square", np.uint8).reshape(square.shape)
        back = np.fromfile(f"{task['probabilities']}.original", np.float32).reshape(original.shape)
        if IS_EXACT:
            assert np.array_equal(found, square), task
            assert np.array_equal(back, original), task
        assert np.abs(found.astype(int) - square).max() <= 1
        assert np.abs(back - original).max() <= 2**-23


def test_numbers_are_rounded_and_printed_as_python_does(tmp_path: Path):
    texts = ["a\nb\t c", "x" * 70, "é\u2028\x00ü", "", "  two  words "]
    tasks = [{"kind": "numbers", "values": NUMBERS}, *({"kind": "excerpt", "text": text} for text in texts)]
    numbers, *quoted = [answer["found"] for answer in in_browser(tasks, tmp_path)]
    assert numbers["general"] == [f"{value:g}" for value in NUMBERS]
    assert numbers["rounded"] == [round(value) for value in NUMBERS]
    assert quoted == [excerpt(text) for text in texts]


def test_score_and_probability_are_those_of_python_but_for_rounding(tmp_path: Path):
    rng, coefficients = np.random.default_rng(1), (0.35, 0.4, 1.5)
    arrays = [rng.random(512**2, dtype=np.float32) ** power for power in (1, 8, 60)]
    arrays += [np.zeros(512**2, np.float32), np.ones(32**2, np.float32), rng.random(7, dtype=np.float32)]
    tasks = []
    for number, array in enumerate(arrays):
        array.tofile(tmp_path / str(number))
        tasks.append({"kind": "score", "probabilities": str(tmp_path / str(number)), "coefficients": coefficients})
    for array, answer in zip(arrays, in_browser(tasks, tmp_path), strict=True):
        score = image_score(array)
        # numpy adds in float32, in an order of its own.
        assert answer["found"]["score"] == pytest.approx(score, rel=1e-6)
        wanted = float(Calibration(image=coefficients, method="beta").images(score))
        assert answer["found"]["probability"] == pytest.approx(wanted, rel=1e-6)
