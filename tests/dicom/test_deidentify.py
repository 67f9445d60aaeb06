"""A DICOM dataset without its patient: no text survives, ids follow from the secret, and what is left is valid."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pydicom
import pytest
from dicom_files import make_dicom
from hypothesis import given
from hypothesis import strategies as st
from pydicom.datadict import DicomDictionary
from pydicom.dataset import Dataset
from pydicom.uid import UID

from pleura.dicom.confidentiality import ACTIONS, KEPT_TEXTS
from pleura.dicom.deidentify import SECRET_VARIABLE, Secret, deidentified, load_secret
from pleura.dicom.parse import valid_uid
from pleura.errors import InputError

MINE, OTHER = Secret(b"a secret of sixteen"), Secret(b"another secret of mine")
TEXTS = ("LO", "SH", "LT", "ST", "UT", "UC", "UR", "PN", "AE")
CODES = st.lists(st.integers(1, 2**40), min_size=1, max_size=4).map(lambda parts: ".".join(["1", *map(str, parts)]))


def every_text() -> list[tuple[str, str]]:
    """(keyword, VR) of every text of the standard that a dataset can hold."""
    return [
        (keyword, vr)
        for tag, (vr, _, _, _, keyword) in DicomDictionary.items()
        if vr in TEXTS and tag > 0x00080000 and keyword not in KEPT_TEXTS
    ]


def full_of_secrets() -> Dataset:
    """A radiograph with a secret of its own in each text, at the top, in items of items, and in private ones."""
    dataset = make_dicom(np.arange(64, dtype=np.uint8).reshape(8, 8))
    with pydicom.config.disable_value_validation():
        inner, item = Dataset(), Dataset()
        for at in (dataset, item, inner):
            for number, (keyword, _) in enumerate(every_text()):
                setattr(at, keyword, f"SECRET{number}")
        item.AnatomicRegionModifierSequence, dataset.AnatomicRegionSequence = [inner], [item]
        dataset.private_block(0x0029, "SECRET creator", create=True).add_new(1, "LO", "SECRET private")
        dataset.add_new(0x60000010, "US", 8)
        dataset.add_new(0x60001500, "LO", "SECRET overlay")
        dataset.add_new(0x00189999, "UN", b"SECRET unknown")
    dataset.PatientBirthDate, dataset.StudyDate, dataset.ContentDate = "19560712", "20240229", "20240229"
    dataset.TypeOfPatientID = "BARCODE"
    dataset.StudyTime, dataset.AcquisitionDateTime, dataset.PatientAge = "101112", "20240229101112", "067Y"
    dataset.file_meta.SourceApplicationEntityTitle = "SECRET"
    return dataset


def written(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def uids(dataset: Dataset) -> Iterator[str]:
    for element in dataset.iterall():
        if element.VR == "UI":
            yield from [element.value] if isinstance(element.value, str) else element.value


def test_no_text_date_or_private_attribute_survives_wherever_it_stands():
    dataset = full_of_secrets()
    before = written(dataset)
    assert before.count(b"SECRET") > 3 * len(every_text())
    after = written(deidentified(dataset, MINE))
    for secret in (b"SECRET", b"19560712", b"20240229", b"101112", b"067Y", b"1.2.3\0"):
        assert secret in before
        assert secret not in after
    assert written(dataset) == before


def test_what_says_how_the_pixels_are_read_survives():
    dataset = full_of_secrets()
    dataset.Manufacturer, dataset.PixelSpacing, dataset.ViewPosition = "Maker", [0.1, 0.2], "PA"
    dataset.AnatomicRegionSequence[0].CodeValue = "51185008"
    again = pydicom.dcmread(io.BytesIO(written(deidentified(dataset, MINE))))
    np.testing.assert_array_equal(again.pixel_array, dataset.pixel_array)
    assert (again.Manufacturer, again.PixelSpacing, again.ViewPosition) == ("Maker", [0.1, 0.2], "PA")
    assert again.AnatomicRegionSequence[0].CodeValue == "51185008"
    assert again.SOPClassUID == dataset.SOPClassUID


def test_object_says_that_and_how_it_was_deidentified():
    made = deidentified(full_of_secrets(), MINE)
    assert (made.PatientIdentityRemoved, made.LongitudinalTemporalInformationModified) == ("YES", "REMOVED")
    code = made.DeidentificationMethodCodeSequence[0]
    assert (code.CodeValue, code.CodingSchemeDesignator) == ("113100", "DCM")
    assert MINE.fingerprint in made.DeidentificationMethod
    assert len(made.DeidentificationMethod) <= 64


def test_attributes_that_an_object_needs_are_emptied_or_replaced_and_others_removed():
    made = deidentified(full_of_secrets(), MINE)
    for keyword in ("PatientName", "PatientBirthDate", "StudyDate", "StudyTime", "StudyID", "AccessionNumber"):
        assert keyword in made
        assert not made[keyword].value
    assert (made.ContentDate, made.DeviceSerialNumber) == ("19000101", "REMOVED")
    for keyword in ("PatientAge", "InstitutionName", "StudyDescription", "OperatorsName", "TypeOfPatientID"):
        assert keyword not in made


@given(value=CODES)
def test_uids_follow_from_the_secret_and_are_valid(value):
    mine = MINE.uid(value)
    assert valid_uid(mine)
    assert UID(mine).is_valid
    assert mine == Secret(b"a secret of sixteen").uid(f"{value}\0") == MINE.uid(f"{value} ")
    assert mine not in (value, OTHER.uid(value), MINE.uid(f"{value}.1"))


def test_links_between_instances_survive_and_the_patient_stays_one():
    image, other = full_of_secrets(), full_of_secrets()
    image.SOPInstanceUID, image.StudyInstanceUID, other.StudyInstanceUID = "1.2.3", "1.2.9", "1.2.9"
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = image.SOPClassUID, "1.2.3"
    other.SourceImageSequence, other.SOPInstanceUID = [reference], "1.2.4"
    image.PatientID = other.PatientID = "4711"
    made, linked = deidentified(image, MINE), deidentified(other, MINE)
    assert linked.SourceImageSequence[0].ReferencedSOPInstanceUID == made.SOPInstanceUID == MINE.uid("1.2.3")
    assert made.file_meta.MediaStorageSOPInstanceUID == made.SOPInstanceUID
    assert linked.SourceImageSequence[0].ReferencedSOPClassUID == image.SOPClassUID
    assert made.StudyInstanceUID == linked.StudyInstanceUID
    assert made.PatientID == linked.PatientID != deidentified(image, OTHER).PatientID
    assert "4711" not in made.PatientID


def test_twice_is_once_and_another_secret_is_another_set_of_uids():
    once = deidentified(full_of_secrets(), MINE)
    assert deidentified(once, MINE) == once
    other = deidentified(once, OTHER)
    of_instances = {uid for uid in uids(once) if uid.startswith("2.25.")}
    assert of_instances
    assert of_instances.isdisjoint(uids(other))


def test_element_that_cannot_be_read_and_one_of_another_type_go():
    dataset = make_dicom(np.zeros((8, 8), np.uint8))
    dataset.InstanceNumber = 123456
    with pydicom.config.disable_value_validation():
        dataset.add_new("SeriesNumber", "LO", "SECRET")
    made = deidentified(pydicom.dcmread(io.BytesIO(written(dataset).replace(b"123456", b"SECRET"))), MINE)
    assert "SeriesNumber" not in made
    assert "InstanceNumber" not in made
    assert made.Rows == 8


def test_pixels_that_may_name_the_patient_are_refused():
    dataset = full_of_secrets()
    dataset.BurnedInAnnotation = "YES"
    with pytest.raises(InputError, match="Burned In Annotation is YES"):
        deidentified(dataset, MINE)
    del dataset.PixelData
    assert deidentified(dataset, MINE).BurnedInAnnotation == "YES"


def test_table_of_the_standard_has_its_tags_once_and_knows_the_best_known():
    assert {ACTIONS[tag] for tag in ACTIONS} == set("XZDU")
    assert ACTIONS[0x00100010] == "Z"
    assert ACTIONS[0x0008103E] == "X"
    assert ACTIONS[0x0020000D] == "U"
    assert ACTIONS[0x0040A123] == "D"


def test_secret_is_of_a_file_or_of_the_environment_and_long_enough(tmp_path, monkeypatch):
    monkeypatch.delenv(SECRET_VARIABLE, raising=False)
    with pytest.raises(InputError, match=f"--deidentify-secret FILE, or set {SECRET_VARIABLE}"):
        load_secret(None)
    (tmp_path / "s").write_text("0123456789abcdef\r\n")
    monkeypatch.setenv(SECRET_VARIABLE, "0123456789abcdef")
    assert load_secret(tmp_path / "s") == load_secret(None)
    assert "0123" not in repr(load_secret(None))
    (tmp_path / "s").write_text("short\n")
    with pytest.raises(InputError, match="5 characters can be guessed"):
        load_secret(tmp_path / "s")
    with pytest.raises(InputError, match="cannot be read"):
        load_secret(tmp_path / "none")
