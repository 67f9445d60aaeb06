"""The structured report: independent readers find in it what was found, by which model, and where."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import WriteDicom
from dicom_objects import ALGORITHM, FILED, faults, needs, prediction_of, ramp

from pleura.data.phantoms.dicom_files import write_phantom_dataset
from pleura.dicom.instance import bytes_of
from pleura.errors import InputError
from pleura.inference.prediction import Prediction

SPACED = {"ImagerPixelSpacing": ["0.2", "0.2"], "PatientOrientation": ["L", "F"]}


@pytest.fixture
def prediction(write_dicom: WriteDicom) -> Prediction:
    return prediction_of(write_dicom(ramp(60, 70), **FILED, **SPACED))


def read(made: Any, tmp_path: Path) -> Any:
    """The report by highdicom's templates."""
    highdicom = pytest.importorskip("highdicom", reason="highdicom is not installed: pleura[dev] has it")
    path = tmp_path / "report.dcm"
    path.write_bytes(bytes_of(made))
    return highdicom.sr.srread(path).content


def numbers(group: Any) -> dict[str, tuple[float, str]]:
    return {one.name.meaning: (float(one.value), one.unit.value) for one in group.get_measurements()}


def test_report_with_a_segmentation_refers_to_its_frame(prediction: Prediction, tmp_path: Path):
    seg = prediction.to_seg()
    (group,) = read(prediction.to_sr(seg), tmp_path).get_planar_roi_measurement_groups()
    assert group.finding_type.meaning == "Pneumothorax"
    assert [site.topographical_modifier for site in group.finding_sites] == [None]
    assert [site.laterality.meaning for site in group.finding_sites] == ["Right"]
    frame = group.referenced_segmentation_frame
    assert frame.referenced_sop_instance_uid == seg.SOPInstanceUID
    area = prediction.area_mm2
    assert numbers(group)["Area"] == (pytest.approx(area), "mm2")
    (presence,) = group.get_qualitative_evaluations()
    assert presence.value.meaning == "Present"


def test_probability_and_score_are_named_as_what_they_are(prediction: Prediction, tmp_path: Path):
    (group,) = read(prediction.to_sr(), tmp_path).get_image_measurement_groups()
    values = numbers(group)
    assert values["Probability of pneumothorax on the image, calibrated"] == (0.625, "1")
    assert values["Share of positives that the probability is for"] == (0.25, "1")
    assert values["Image score, no probability: it orders images"] == (0.75, "1")
    plain = replace(prediction, probability=None, prevalence=None)
    (group,) = read(plain.to_sr(), tmp_path).get_image_measurement_groups()
    assert set(numbers(group)) == {"Area", "Image score, no probability: it orders images"}


def test_probability_moved_to_another_prevalence_is_said_to_be_so(prediction: Prediction, tmp_path: Path):
    moved = prediction.at_prevalence(0.1)
    (group,) = read(moved.to_sr(), tmp_path).get_image_measurement_groups()
    values = numbers(group)
    odds = 0.625 / 0.375 * (0.1 / 0.9) / (0.25 / 0.75)
    probability, _ = values["Probability of pneumothorax on the image, calibrated"]
    assert probability == pytest.approx(odds / (1 + odds))
    assert values["Share of positives that the probability is for"] == (0.1, "1")
    assert values["Share of positives that the calibration was fitted on"] == (0.25, "1")
    assert moved.at_prevalence(0.25).probability == pytest.approx(0.625)
    uids = [one.to_sr().SOPInstanceUID for one in (prediction, moved, prediction.at_prevalence(0.2), moved)]
    assert (len({*uids}), uids[1]) == (3, uids[3])
    assert prediction.to_seg().SOPInstanceUID == moved.to_seg().SOPInstanceUID
    assert faults(moved.to_sr(), tmp_path) == []


def test_prevalence_that_cannot_be_or_moves_nothing_known_is_refused(prediction: Prediction):
    assert prediction.at_prevalence(None) is prediction
    for wanted in (0.0, 1.0, float("nan")):
        with pytest.raises(InputError, match="between 0 and 1"):
            prediction.at_prevalence(wanted)
    for unknown in ({"prevalence": None}, {"probability": None}):
        with pytest.raises(InputError, match="pleura tune"):
            replace(prediction, **unknown).at_prevalence(0.1)


def test_nothing_found_is_reported_as_absent_without_an_area(write_dicom: WriteDicom, tmp_path: Path):
    path = write_dicom(ramp(20, 20), **FILED, **SPACED)
    nothing = prediction_of(path, np.zeros((20, 20), dtype=np.uint8))
    (group,) = read(nothing.to_sr(nothing.to_seg()), tmp_path).get_image_measurement_groups()
    assert "Area" not in numbers(group)
    (presence,) = group.get_qualitative_evaluations()
    assert presence.value.meaning == "Absent"


def test_no_area_without_a_spacing_and_no_side_without_an_orientation(write_dicom: WriteDicom, tmp_path: Path):
    found = prediction_of(write_dicom(ramp(60, 70), **FILED))
    (group,) = read(found.to_sr(), tmp_path).get_image_measurement_groups()
    assert "Area" not in numbers(group)
    assert [site.laterality for site in group.finding_sites] == [None]


def test_dsr2html_reads_the_model_the_rule_and_how_the_area_was_measured(prediction: Prediction, tmp_path: Path):
    path, page = tmp_path / "report.dcm", tmp_path / "report.html"
    path.write_bytes(bytes_of(prediction.to_sr(prediction.to_seg())))
    subprocess.run([needs("dsr2html"), path, page], check=True, capture_output=True, timeout=60)
    text = page.read_text(encoding="utf-8", errors="replace")
    for words in (
        ALGORITHM.name,
        ALGORITHM.weights_sha256,
        ALGORITHM.device_uid,
        "one that tests have",
        "at the detector, not corrected for magnification",
        "not for diagnosis",
    ):
        assert words in text


def test_report_that_refers_to_a_segmentation_is_another_one_than_that_which_does_not(prediction: Prediction):
    uids = [prediction.to_sr(seg).SOPInstanceUID for seg in (None, prediction.to_seg(), prediction.to_seg())]
    assert uids[0] != uids[1] == uids[2]


def test_dciodvfy_finds_no_error_on_phantoms_of_every_kind(tmp_path: Path):
    write_phantom_dataset(tmp_path, n_patients=3, seed=2, size_px=33)
    for path in sorted((tmp_path / "dicom").iterdir()):
        found = prediction_of(path)
        nothing = prediction_of(path, np.zeros((33, 33), dtype=np.uint8))
        for one in (found, nothing):
            for seg in (None, one.to_seg()):
                assert faults(one.to_sr(seg), tmp_path) == []
