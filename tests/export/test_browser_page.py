"""The whole way of a radiograph through a page, by node: the results of a Predictor on the same exported model."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser_cases import dicom, png_bytes
from browsers import FACTS, in_browser, needs_node

from pleura.data.phantoms.radiographs import make_phantom
from pleura.decision.levels import levels_of
from pleura.export.comparison import DIFFERENCE
from pleura.export.html import page_facts
from pleura.inference.predictor import Predictor
from pleura.models.default import default_export
from pleura.models.exported import load_exported
from pleura.serve.answers import result_document

pytestmark = needs_node
EXACT = ("image_id", "is_positive", "side", "rows", "columns", "sop_instance_uid", "series_instance_uid",
         "study_instance_uid", "prevalence", "ruled_out")  # fmt: skip


def radiographs() -> dict[str, bytes]:
    """A portrait and a landscape, of two formats and depths, and one without a finding of the model."""
    deep = np.rint(make_phantom(101, 600, True).image * 4095).astype(np.uint16)[:, 60:-41]
    wide = np.rint(make_phantom(102, 500, True).image * 255).astype(np.uint8)[71:-60]
    attributes = {"PhotometricInterpretation": "MONOCHROME1", "PixelSpacing": [0.4, 0.4], "BitsStored": 12}
    attributes |= {
        "WindowCenter": 1900,
        "WindowWidth": 3500,
        "PatientOrientation": ["R", "F"],
        "StudyInstanceUID": "1.7",
    }
    flat = np.tile(np.arange(200, dtype=np.uint8), (150, 1))
    return {"deep.dcm": dicom(4095 - deep, **attributes), "wide.png": png_bytes(wide), "flat.png": png_bytes(flat)}


@pytest.mark.slow
def test_a_page_gives_the_results_of_a_predictor_on_the_model_that_comes_with_pleura(tmp_path: Path):
    exported = load_exported(default_export())
    predictor, page, graph = Predictor([exported]), page_facts(exported), tmp_path / "graph.gz"
    graph.write_bytes(gzip.compress(exported.path.read_bytes(), 1))
    files = [tmp_path / name for name in radiographs()]
    for file, content in zip(files, radiographs().values(), strict=True):
        file.write_bytes(content)
    tasks = [
        {"kind": "analyse", "path": str(file), "name": file.stem, "page": page, "graph": str(graph)} for file in files
    ]
    for file, answer in zip(files, in_browser(tasks, tmp_path), strict=True):
        prediction = predictor.predict(file)
        found: dict[str, Any] = answer["found"]["result"]
        wanted = result_document(prediction)
        assert {key: found[key] for key in EXACT} == {key: wanted[key] for key in EXACT}, file.name
        assert found["notes"][: len(wanted["notes"])] == wanted["notes"]
        assert found["score"] == pytest.approx(wanted["score"], abs=DIFFERENCE)
        assert found["probability"] == pytest.approx(wanted["probability"], abs=DIFFERENCE)
        assert found["found"].split(",")[:2] == wanted["found"].split(",")[:2]
        levels = np.fromfile(f"{file}.levels", np.uint8).reshape(prediction.probabilities.shape)
        ours = levels_of(prediction.probabilities)
        assert np.abs(levels.astype(int) - ours).max() <= 1  # a probability at the edge of two levels
        assert (levels != ours).mean() < 0.005
        geometry = (answer["found"]["squareArea"], found["area_px"])
        assert geometry == (
            max(prediction.probabilities.shape) ** 2,
            pytest.approx(wanted["area_px"], rel=0.002, abs=5),
        )
        assert (found["area_mm2"] is None) == (wanted["area_mm2"] is None)
        if found["area_mm2"] is not None:
            assert found["area_mm2"] == pytest.approx(found["area_px"] * 0.16)


def test_a_radiograph_that_is_shown_again_is_the_same_without_its_model_being_run(tmp_path: Path):
    rows, columns = np.mgrid[:64, :64]
    probabilities = np.clip(1.2 - np.hypot(rows - 20, columns - 24) / 30, 0, 1).astype(np.float32)
    radiograph, floats = tmp_path / "deep.dcm", tmp_path / "probabilities"
    radiograph.write_bytes(radiographs()["deep.dcm"])
    floats.write_bytes(probabilities.tobytes())
    rule = {"topThreshold": 0.5, "minPixels": 1, "bottomThreshold": 0.3}
    model = {"preparedPx": 128, "sizePx": 64, "triplet": rule, "calibration": None, "prevalence": None, "doubts": []}
    task = {"path": str(radiograph), "name": "deep", "facts": FACTS, "model": model, "probabilities": str(floats)}
    [answer] = in_browser([{"kind": "again", **task}], tmp_path)
    found = answer["found"]
    assert found["isSame"] is True
    assert found["area"] > 1000
    assert found["bytes"] < 600 * 499 / 6  # its probabilities have a byte for each pixel
    assert found["other"] is not None  # of another file: an error, or the model runs
