"""What one does with a prediction: it is short in a notebook, whole as JSON, and saved by its suffix."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pleura.data import rle
from pleura.dicom.read import Radiograph
from pleura.errors import OutputError
from pleura.inference.prediction import SAVES, Prediction

MASK = np.zeros((40, 30), dtype=np.uint8)
MASK[5:9, 3:7] = 1
FOUND = Prediction(
    image_id="1.2.3",
    radiograph=Radiograph(
        np.linspace(0, 1, 1200, dtype=np.float32).reshape(40, 30), "1.2.3", "A NAME", notes=("a note",)
    ),
    probabilities=MASK * np.float32(0.75),
    predicted_mask=MASK,
    is_positive=True,
    score=float(np.float32(0.75)),
    probability=0.5,
    ruled_out=False,
    area_px=16,
    area_mm2=40.0,
    side="R",
)
NOTHING = replace(
    FOUND, predicted_mask=MASK * 0, is_positive=False, area_px=0, area_mm2=None, side=None, ruled_out=None
)


def test_prediction_repr_is_one_line_without_pixels_and_names():
    words = "pneumothorax, right, 0.4 sq cm by its pixel spacing, score 0.75"
    assert repr(FOUND) == f"Prediction('1.2.3', 40 x 30, {words})"
    assert repr(NOTHING) == "Prediction('1.2.3', 40 x 30, no pneumothorax found, score 0.75)"
    assert len(repr(replace(FOUND, image_id="x" * 10_000))) < 200
    assert "NAME" not in repr(FOUND) + repr(FOUND.radiograph)


def test_predictions_can_be_compared_and_kept_in_sets():
    assert FOUND == FOUND
    assert FOUND != NOTHING
    assert len({FOUND, NOTHING}) == 2


@pytest.mark.parametrize("one", [FOUND, NOTHING, replace(FOUND, score=np.float32(0.5), area_px=np.int64(16))])
def test_prediction_is_json_and_its_mask_comes_back(one: Prediction):
    document = json.loads(json.dumps(one.to_dict(), allow_nan=False))
    assert np.array_equal(rle.decode(document["mask_rle"], (document["rows"], document["columns"])), one.predicted_mask)
    assert (document["is_positive"], document["area_px"], document["side"]) == (one.is_positive, one.area_px, one.side)
    assert document["notes"] == ["a note"]
    assert "NAME" not in json.dumps(document)


def test_overlay_is_a_picture_of_what_was_found():
    found, nothing = (np.asarray(one.overlay()).reshape(-1, 3).tolist() for one in (FOUND, NOTHING))
    assert FOUND.overlay().mode == "RGB"
    assert found.count([255, 64, 64]) > 0 == nothing.count([255, 64, 64])
    assert max(FOUND.overlay(longest_px=20).size) < max(FOUND.overlay().size)


def test_suffix_says_what_is_saved(tmp_path: Path):
    assert FOUND.save(tmp_path / "new" / "a.png") == tmp_path / "new" / "a.png"
    with Image.open(tmp_path / "new" / "a.png") as picture:
        assert np.array_equal(np.asarray(picture), MASK * 255)
    assert np.array_equal(np.load(FOUND.save(str(tmp_path / "a.npy"))), FOUND.probabilities)
    assert json.loads(FOUND.save(tmp_path / "a.JSON").read_text()) == FOUND.to_dict()
    with Image.open(FOUND.save(tmp_path / "a.jpg")) as picture:
        assert (picture.format, picture.size) == ("JPEG", FOUND.overlay().size)


@pytest.mark.parametrize("name", ["a", "a.dcm", "a.tiff", ".png"])
def test_another_suffix_is_refused_with_those_there_are(tmp_path: Path, name: str):
    with pytest.raises(OutputError) as caught:
        FOUND.save(tmp_path / name)
    assert all(suffix in str(caught.value) for suffix in SAVES)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_is_an_output_error(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"):
        FOUND.save(tmp_path / "file" / "a.png")
