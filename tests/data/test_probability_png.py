"""Maps of probabilities on disk: any reader gets the levels, ours the rule's mask, and no reader of masks takes one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pleura
from pleura.data.mask_png import read_mask_png
from pleura.data.png import png_bytes
from pleura.data.probability_png import probability_png
from pleura.decision.levels import levels_of
from pleura.decision.triplet import Triplet
from pleura.errors import InputError

PROBABILITIES = np.linspace(0, 1, 12 * 8, dtype=np.float32).reshape(12, 8)


def put(folder: Path, content: bytes) -> Path:
    (folder / "a.png").write_bytes(content)
    return folder / "a.png"


def test_every_reader_gets_the_levels_and_what_they_mean(tmp_path):
    path = put(tmp_path, probability_png(PROBABILITIES, 144, "pleura"))
    with Image.open(path) as picture:
        assert picture.mode == "L"
        np.testing.assert_array_equal(np.asarray(picture), levels_of(PROBABILITIES))
        assert picture.text["Description"].startswith("probability of a pneumothorax: value / 256")
        assert picture.text["Software"] == "pleura"


def test_our_reader_cuts_by_any_rule_on_the_square_of_the_radiograph(tmp_path):
    found = pleura.read_probabilities(put(tmp_path, probability_png(PROBABILITIES, 144, "pleura")))
    assert found.square_area_px == 144
    np.testing.assert_allclose(found.probabilities, PROBABILITIES, atol=1 / 256)
    for triplet in (Triplet(0.75, 1024 * 1024 // 8, 0.25), Triplet(0.75, 1024 * 1024 // 4, 0.25)):
        np.testing.assert_array_equal(found.mask(triplet), triplet.apply(PROBABILITIES, 144))
    with pytest.raises(InputError, match="do not tell 1 from 255/256"):
        found.mask(Triplet(1.0, 0, 0.5))


@pytest.mark.parametrize("highest", [0.0, 0.0039, 1.0])
def test_map_is_never_taken_for_a_mask_although_a_low_one_looks_like_one(tmp_path, highest):
    path = put(tmp_path, probability_png(PROBABILITIES * np.float32(highest), 144, "pleura"))
    with pytest.raises(InputError, match="holds probabilities that pleura predict wrote"):
        read_mask_png(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (png_bytes(np.zeros((4, 4), np.uint8), "pleura"), "is no map of probabilities"),
        (png_bytes(np.zeros((4, 4), np.uint8), "pleura", {"square_area_px": "many"}), "is no map"),
        (png_bytes(np.zeros((4, 4), np.uint8), "pleura", {"square_area_px": "15"}), "is no map"),
        (png_bytes(np.zeros((4, 4, 3), np.uint8), "pleura", {"square_area_px": "16"}), "is no map"),
        (probability_png(PROBABILITIES, 144, "pleura")[:-40], "cannot be read as a map"),
    ],
)
def test_what_is_no_map_is_refused(tmp_path, content, reason):
    path = put(tmp_path, content)
    with pytest.raises(InputError, match=reason) as caught:
        pleura.read_probabilities(path)
    assert str(caught.value).startswith(str(path))
