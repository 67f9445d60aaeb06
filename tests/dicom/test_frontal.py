"""What a header says against a frontal chest radiograph becomes a note, and nothing else does."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom import uid
from pydicom.dataset import Dataset

from pleura.dicom.read import read_dicom

ROWS, COLUMNS = np.mgrid[:24, :16]
RAMP_8 = (ROWS * 10 + COLUMNS).astype(np.uint8)


def coded(value: str, meaning: str, scheme: str = "SCT") -> list[Dataset]:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return [item]


LATERAL = coded("399173006", "left lateral")


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"Modality": "", "BodyPartExamined": "", "ViewPosition": "", "PatientOrientation": ""},
        {"Modality": "CR", "BodyPartExamined": "CHEST", "ViewPosition": "AP", "ConversionType": "WSD"},
        {"Modality": "DX", "BodyPartExamined": "PORT CHEST", "ViewPosition": "AP SUPINE"},
        {"Modality": "DX", "BodyPartExamined": "Thorax", "ViewPosition": "pa", "PatientOrientation": ["L", "F"]},
        {"SOPClassUID": uid.SecondaryCaptureImageStorage, "BodyPartExamined": "UNKNOWN", "ViewPosition": "ERECT"},
        {"SOPClassUID": "1.2.3.4.5", "PresentationIntentType": "FOR PRESENTATION"},
        {"AnatomicRegionSequence": coded("T-D3000", "Thorax", "SRT"), "ViewCodeSequence": coded("R-10206", "AP")},
        {"AnatomicRegionSequence": coded("51185008", ""), "ViewCodeSequence": coded("", "postero-anterior")},
    ],
)
def test_header_that_says_nothing_against_it_gives_no_note(write_dicom, attributes):
    assert read_dicom(write_dicom(RAMP_8, **attributes)).notes == ()


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({"Modality": "CT"}, "Modality is CT"),
        ({"Modality": "MG", "SOPClassUID": uid.DigitalMammographyXRayImageStorageForPresentation}, "Modality is MG"),
        ({"SOPClassUID": uid.CTImageStorage}, "SOP Class is CT Image Storage"),
        ({"BodyPartExamined": "FOOT"}, "Body Part Examined is FOOT"),
        ({"BodyPartExamined": "TSPINE"}, "Body Part Examined is TSPINE"),
        ({"BodyPartExamined": "CHESTABDOMEN"}, "Body Part Examined is CHESTABDOMEN"),
        ({"BodyPartExamined": "A" * 90}, "Body Part Examined is " + "A" * 61 + "..."),
        ({"AnatomicRegionSequence": coded("56459004", "Foot")}, "Anatomic Region is Foot"),
        ({"AnatomicRegionSequence": coded("122495006", "Thoracic spine")}, "Anatomic Region is Thoracic spine"),
        ({"BodyPartExamined": "CHEST", "AnatomicRegionSequence": coded("T-D4000", "")}, "Anatomic Region is T-D4000"),
        ({"ViewPosition": "LL"}, "View Position is LL"),
        ({"ViewPosition": "LATERAL"}, "View Position is LATERAL"),
        ({"ViewPosition": "PA OBLIQUE"}, "View Position is PA OBLIQUE"),
        ({"ViewPosition": "RLD"}, "View Position is RLD"),
        ({"ViewCodeSequence": LATERAL}, "View is left lateral"),
        ({"ViewPosition": "PA", "ViewCodeSequence": coded("399312000", "")}, "View is 399312000"),
        ({"PatientOrientation": ["A", "F"]}, "Patient Orientation is A,F"),
    ],
)
def test_each_attribute_that_contradicts_it_gives_one_note(write_dicom, attributes, said):
    notes = read_dicom(write_dicom(RAMP_8, **attributes)).notes
    assert notes == (f"{said}: not the frontal chest radiograph that the model is made for",)


@pytest.mark.parametrize(
    "attributes",
    [
        {"PresentationIntentType": "FOR PROCESSING", "PixelIntensityRelationship": "LIN"},
        {"SOPClassUID": uid.DigitalXRayImageStorageForProcessing},
    ],
)
def test_raw_detector_values_give_a_note(write_dicom, attributes):
    (note,) = read_dicom(write_dicom(RAMP_8, **attributes)).notes
    assert note.startswith("Presentation Intent Type is FOR PROCESSING")


def test_several_contradictions_give_a_note_each(write_dicom):
    attributes = {"Modality": "DX", "BodyPartExamined": "KNEE", "ViewPosition": "LL"}
    notes = read_dicom(write_dicom(RAMP_8, PresentationIntentType="FOR PROCESSING", **attributes)).notes
    assert [note.split(":")[0] for note in notes] == [
        "Body Part Examined is KNEE",
        "View Position is LL",
        "Presentation Intent Type is FOR PROCESSING",
    ]
