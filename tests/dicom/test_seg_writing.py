"""A segmentation written: the mask comes back bit for bit, and whose it is comes from the radiograph alone."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from conftest import WriteDicom
from dicom_objects import ALGORITHM, FILED, f_shape, faults, prediction_of, ramp
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset

from pleura.data.phantoms.dicom_files import write_phantom_dataset
from pleura.dicom.instance import bytes_of
from pleura.dicom.seg_reading import read_segmentation, segmentation_pixels
from pleura.dicom.seg_writing import SEG_TYPES
from pleura.errors import InputError
from pleura.inference.prediction import Prediction

LOSSY = {"LossyImageCompression": "01", "LossyImageCompressionMethod": "ISO_15444_1"}
REAL = Path(__file__).parents[3] / "shared" / "data" / "dicom"


def written(made: Dataset) -> Dataset:
    """As another program reads it from the file."""
    return pydicom.dcmread(io.BytesIO(bytes_of(made)))


@pytest.fixture
def prediction(write_dicom: WriteDicom) -> Prediction:
    return prediction_of(write_dicom(ramp(41, 30), **FILED))


@pytest.mark.parametrize("shape", [(16, 16), (17, 13), (9, 23), (64, 31), (7, 1)])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_mask_comes_back_bit_for_bit(write_dicom: WriteDicom, tmp_path: Path, shape, photometric):
    source = write_dicom(ramp(*shape), PhotometricInterpretation=photometric, **FILED)
    made = prediction_of(source).to_seg()
    assert np.array_equal(written(made).pixel_array, f_shape(*shape))
    path = tmp_path / "seg.dcm"
    path.write_bytes(bytes_of(made))
    found = read_segmentation(path)
    assert found.frames == {"1.2.3.4": {1: (0,)}}
    assert [segment.is_pneumothorax for segment in found.segments] == [True]
    assert np.array_equal(segmentation_pixels(path)[0], f_shape(*shape))


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Prediction:
    folder = tmp_path_factory.mktemp("phantom")
    write_phantom_dataset(folder, n_patients=1, seed=1, size_px=32)
    return prediction_of(next((folder / "dicom").iterdir()))


@given(st.data())
def test_any_mask_comes_back(phantom: Prediction, data: st.DataObject):
    rows, columns = data.draw(st.integers(1, 12)), data.draw(st.integers(2, 12))
    bits = data.draw(st.lists(st.integers(0, 1), min_size=rows * columns, max_size=rows * columns))
    mask = np.array(bits, dtype=np.uint8).reshape(rows, columns)
    assert np.array_equal(written(replace(phantom, predicted_mask=mask).to_seg()).pixel_array, mask)


def test_probabilities_come_back_in_steps_of_a_255th(prediction: Prediction):
    seg = written(prediction.to_seg("fractional"))
    assert (seg.SegmentationType, seg.SegmentationFractionalType) == ("FRACTIONAL", "PROBABILITY")
    values = seg.pixel_array / seg.MaximumFractionalValue
    assert np.abs(values - prediction.probabilities).max() <= 0.5 / 255 + 1e-6


def test_occupancy_is_the_mask_in_bytes(prediction: Prediction):
    seg = written(prediction.to_seg("occupancy"))
    assert (seg.SegmentationType, seg.SegmentationFractionalType) == ("FRACTIONAL", "OCCUPANCY")
    assert np.array_equal(seg.pixel_array, prediction.predicted_mask * 255)


def test_empty_mask_is_one_empty_frame(prediction: Prediction):
    mask = np.zeros_like(prediction.predicted_mask)
    nothing = replace(prediction, predicted_mask=mask, is_positive=False, area_px=0, area_mm2=None, side=None)
    seg = written(nothing.to_seg())
    assert (seg.NumberOfFrames, seg.pixel_array.any()) == (1, False)


def test_second_run_replaces_and_another_model_rule_or_kind_does_not(prediction: Prediction):
    again = prediction.to_seg()
    others = [
        replace(prediction, algorithm=replace(ALGORITHM, weights_sha256="f" * 64)).to_seg(),
        replace(prediction, algorithm=replace(ALGORITHM, settings=(("decision rule", "another"),))).to_seg(),
        prediction.to_seg("fractional"),
        prediction.to_seg("occupancy"),
    ]
    first = prediction.to_seg()
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID"):
        assert first[keyword].value == again[keyword].value
        uids = [first[keyword].value, *(other[keyword].value for other in others)]
        assert len(set(uids)) == 5
        assert all(uid.startswith("2.25.") and len(uid) <= 64 for uid in uids)


def test_patient_and_study_are_those_of_the_source(write_dicom: WriteDicom):
    path = write_dicom(
        ramp(41, 30),
        **FILED,
        SpecificCharacterSet="ISO_IR 100",
        StudyDate="20200229",
        AccessionNumber="A7",
        StudyDescription="Röntgen Thorax",
        PatientAge="038Y",
        PatientWeight="70",
        OperatorsName="Not^Copied",
    )
    seg = written(prediction_of(path).to_seg())
    source = pydicom.dcmread(path)
    for keyword in ("PatientName", "PatientID", "StudyInstanceUID", "StudyDate", "AccessionNumber", "PatientAge",
                    "StudyDescription", "PatientWeight"):  # fmt: skip
        assert seg[keyword].value == source[keyword].value, keyword
    assert (seg.PatientBirthDate or "", seg.PatientSex, seg.StudyID, seg.ReferringPhysicianName) == ("", "", "", "")
    assert "OperatorsName" not in seg
    assert "FrameOfReferenceUID" not in seg


def test_name_in_another_character_set_reads_the_same(write_dicom: WriteDicom):
    name = "Yamada^Tarou=山田^太郎"
    path = write_dicom(ramp(41, 30), **FILED | {"PatientName": name, "SpecificCharacterSet": ["", "ISO 2022 IR 87"]})
    assert str(written(prediction_of(path).to_seg()).PatientName) == name


def test_what_is_not_valid_in_the_source_is_left_out_unless_an_archive_files_by_it(write_dicom: WriteDicom):
    path = write_dicom(ramp(41, 30), **FILED | {"PatientAge": "38", "StudyDate": "yesterday"})
    seg = written(prediction_of(path).to_seg())
    assert "PatientAge" not in seg
    assert seg.StudyDate == "yesterday"


@pytest.mark.parametrize(
    ("attributes", "named"),
    [
        ({"StudyInstanceUID": None}, r"Study Instance UID \(0020,000D\)"),
        ({"SeriesInstanceUID": ""}, r"Series Instance UID \(0020,000E\)"),
        ({"StudyInstanceUID": "one.two"}, r"an invalid Study Instance UID"),
        ({"PatientID": None, "PatientName": None}, r"Patient ID \(0010,0020\)"),
    ],
)
def test_radiograph_that_no_archive_could_file_is_refused_by_the_tag(write_dicom: WriteDicom, attributes, named):
    found = prediction_of(write_dicom(ramp(41, 30), **FILED | attributes))
    with pytest.raises(InputError, match=named):
        found.to_seg()


def test_picture_and_prediction_without_a_model_are_refused(prediction: Prediction, tmp_path: Path):
    Image.fromarray(ramp(41, 30)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="not a DICOM file"):
        prediction_of(tmp_path / "a.png").to_seg()
    with pytest.raises(InputError, match="names no model"):
        replace(prediction, algorithm=None).to_seg()
    with pytest.raises(InputError, match="binary, occupancy, fractional"):
        prediction.to_seg("label map")  # type: ignore[arg-type]


def test_it_says_what_made_it(prediction: Prediction):
    seg = written(prediction.to_seg())
    (equipment,) = seg.ContributingEquipmentSequence
    (purpose,) = equipment.PurposeOfReferenceCodeSequence
    assert (purpose.CodeValue, purpose.CodingSchemeDesignator) == ("Newcode1", "99IHE")  # as IHE's AI Results says it
    assert [scheme.CodingSchemeDesignator for scheme in seg.CodingSchemeIdentificationSequence] == ["99IHE"]
    assert equipment.DeviceUID == ALGORITHM.device_uid
    assert (equipment.Manufacturer, equipment.ManufacturerModelName) == ("pleura", "pleura tests")
    parameters = seg.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0].AlgorithmParameters
    assert ALGORITHM.weights_sha256 in parameters
    assert "one that tests have" in parameters
    assert "not for diagnosis" in seg.SeriesDescription


@pytest.mark.parametrize(
    ("orientation", "code"),
    [(None, None), (["L", "F"], "24028007"), (["R", "F"], "7771000"), (["F", "L"], "24028007"), (["A", "F"], None)],
)
def test_side_is_coded_where_the_header_knows_it(write_dicom: WriteDicom, orientation, code):
    mask = np.zeros((40, 40), dtype=np.uint8)
    mask[3:9, 4:9] = 1  # the upper left: either way the half where rows and columns begin
    seg = prediction_of(write_dicom(ramp(40, 40), **FILED, PatientOrientation=orientation), mask).to_seg()
    (region,) = seg.SegmentSequence[0].AnatomicRegionSequence
    sides = region.get("AnatomicRegionModifierSequence") or []
    assert [side.CodeValue for side in sides] == ([code] if code else [])
    assert list(seg.PatientOrientation or ()) == (orientation or [])


@pytest.mark.parametrize(
    ("attributes", "spacing", "says"),
    [
        ({}, None, ""),
        ({"PixelSpacing": ["0.2", "0.2"]}, [0.2, 0.2], "calibration not known"),
        ({"ImagerPixelSpacing": ["0.2", "0.1"]}, [0.2, 0.1], "at the detector, not corrected"),
        ({"ImagerPixelSpacing": ["0.2", "0.2"], "PixelSpacing": ["0.2", "0.2"]}, [0.2, 0.2], "at the detector"),
        (
            {"PixelSpacing": ["0.1", "0.1"], "PixelSpacingCalibrationType": "FIDUCIAL"},
            [0.1, 0.1],
            "object of known size",
        ),
        (
            {"ImagerPixelSpacing": ["0.2", "0.2"], "EstimatedRadiographicMagnificationFactor": "1.25"},
            [0.16, 0.16],
            "estimated magnification",
        ),
        ({"NominalScannedPixelSpacing": ["0.2", "0.2"]}, [0.2, 0.2], "scanned film"),
    ],
)
def test_spacing_is_taken_over_and_said_where_it_was_measured(write_dicom: WriteDicom, attributes, spacing, says):
    seg = written(prediction_of(write_dicom(ramp(41, 30), **FILED, **attributes)).to_seg())
    shared = seg.SharedFunctionalGroupsSequence[0]
    if spacing is None:
        assert "PixelMeasuresSequence" not in shared
        assert "spacing" not in seg.SegmentSequence[0].SegmentDescription
    else:
        assert shared.PixelMeasuresSequence[0].PixelSpacing == pytest.approx(spacing)
        assert says in seg.SegmentSequence[0].SegmentDescription


@pytest.mark.parametrize(
    ("attributes", "syntax", "said"),
    [
        ({}, uid.ExplicitVRLittleEndian, ("00", None, None)),
        ({"LossyImageCompression": "00"}, uid.JPEGLSLossless, ("00", None, None)),
        ({}, uid.JPEGBaseline8Bit, ("01", "ISO_10918_1", None)),
        (LOSSY | {"LossyImageCompressionRatio": "9.5"}, uid.RLELossless, ("01", "ISO_15444_1", 9.5)),
        (LOSSY | {"LossyImageCompressionRatio": ["9", "2"]}, uid.ExplicitVRLittleEndian, ("01", "ISO_15444_1", None)),
    ],
)
def test_loss_of_the_source_is_said_of_what_is_made_of_it(write_dicom: WriteDicom, attributes, syntax, said):
    found = prediction_of(write_dicom(ramp(40, 48), syntax=syntax, **FILED, **attributes))
    for made in (found.to_seg(), found.to_sc()):
        keywords = ("LossyImageCompression", "LossyImageCompressionMethod", "LossyImageCompressionRatio")
        without = "00" if made.Modality == "SEG" else None  # only a segmentation has to say so
        assert tuple(made.get(keyword) for keyword in keywords) == (said if said[0] == "01" else (without, None, None))


def test_highdicom_reads_it(prediction: Prediction, tmp_path: Path):
    highdicom = pytest.importorskip("highdicom", reason="highdicom is not installed: the extra [dicom] has it")
    path = tmp_path / "seg.dcm"
    path.write_bytes(bytes_of(prediction.to_seg()))
    seg = highdicom.seg.segread(path)
    pixels = seg.get_pixels_by_source_instance(["1.2.3.4"], segment_numbers=[1])
    assert np.array_equal(pixels[0, ..., 0], prediction.predicted_mask)


@pytest.mark.parametrize("seg_type", SEG_TYPES)
def test_dciodvfy_finds_no_error_on_phantoms_of_every_kind(tmp_path: Path, seg_type):
    write_phantom_dataset(tmp_path, n_patients=6, seed=2, size_px=33)
    for path in sorted((tmp_path / "dicom").iterdir()):
        assert faults(prediction_of(path).to_seg(seg_type), tmp_path) == []


@pytest.mark.skipif(not REAL.is_dir(), reason="the real radiographs are not part of the project")
def test_dciodvfy_finds_no_error_in_any_object_of_the_real_radiographs(tmp_path: Path):
    for path in sorted(REAL.glob("*.dcm")):
        found = prediction_of(path)
        seg = found.to_seg()
        for made in (seg, found.to_sc(), found.to_gsps(), found.to_sr(seg)):
            assert faults(made, tmp_path) == [], path.name
