"""What a DICOM object takes from the radiograph that it is about: patient, study and references; nothing is invented.

Source: DICOM PS3.3 C.7.1.1 (Patient), C.7.2.1 (General Study), C.7.2.2 (Patient Study), C.12.1 (SOP Common).
"""

from __future__ import annotations

import copy
from fractions import Fraction

from pydicom import config, uid
from pydicom.datadict import dictionary_description, dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.valuerep import validate_value

from pleura.dicom.header import UNREADABLE, number, pixel_aspect, text, texts
from pleura.dicom.parse import valid_uid
from pleura.errors import InputError

PIXELS_FROM = 0x60000000
"""Overlays and pixel data have this tag or a higher one; a header ends before it."""
# As they are, valid or not: an archive knows the patient and the study by them. Type 1 and 2: empty where missing.
_IDENTITY = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate", "StudyTime",
             "ReferringPhysicianName", "StudyID", "AccessionNumber")  # fmt: skip
_MORE_IDENTITY = ("IssuerOfPatientID", "IssuerOfAccessionNumberSequence")
# Type 3: left out where they are not valid.
_DESCRIPTION = (
    *("PatientBirthTime", "QualityControlSubject", "PatientIdentityRemoved", "DeidentificationMethod"),
    *(
        "DeidentificationMethodCodeSequence",
        "LongitudinalTemporalInformationModified",
        "StudyDescription",
        "PatientAge",
        "PatientSize",
        "PatientWeight",
    ),
)
_DEFINED = {
    "PatientSex": ("M", "F", "O"),
    "QualityControlSubject": ("YES", "NO"),
    "PatientIdentityRemoved": ("YES", "NO"),
    "LongitudinalTemporalInformationModified": ("UNMODIFIED", "MODIFIED", "REMOVED"),
}
"""Code strings, and the values that they can have."""
_WITH_LOSS = {
    uid.JPEGBaseline8Bit: "ISO_10918_1",
    uid.JPEGExtended12Bit: "ISO_10918_1",
    uid.JPEGLSNearLossless: "ISO_14495_1",
}
"""Transfer syntaxes that always lose, and the method that they are."""
_UIDS = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")


def header_of(dataset: Dataset) -> Dataset:
    """Return the header of an image, as read: all elements before overlays and pixels."""
    header: Dataset = dataset[: Tag(PIXELS_FROM)]
    header.file_meta = dataset.file_meta
    return header


def refuse_unless_filed(source: Dataset) -> None:
    """Refuse a radiograph whose results no archive could file.

    Raises: InputError, which names the attribute.
    """
    for keyword in _UIDS:
        if valid_uid(text(source, keyword)) is None:
            missing = "has no" if not text(source, keyword) else "has an invalid"
            raise InputError(f"the radiograph {missing} {_named(keyword)}; DICOM objects of it would belong to nothing")
    if "PatientID" not in source and "PatientName" not in source:
        raise InputError(
            f"the radiograph has neither {_named('PatientID')} nor {_named('PatientName')}; DICOM objects of it would "
            "belong to nobody"
        )


def copy_patient_and_study(source: Dataset, target: Dataset) -> None:
    """Give `target` the patient and the study of `source`: the same values, in UTF-8; what is missing stays empty."""
    for keyword in _IDENTITY:
        target.add(_copied(source, keyword) or DataElement(Tag(keyword), dictionary_VR(keyword), None))
    for keyword in (*_MORE_IDENTITY, *_DESCRIPTION):
        element = _copied(source, keyword)
        if element is not None and not element.is_empty and (keyword in _MORE_IDENTITY or _is_valid(element)):
            target.add(element)


def copy_compression(source: Dataset, target: Dataset) -> None:
    """Say that the pixels were once compressed with loss, how, and by how much, as far as the source says so.

    What is derived from them is so, too. Source: DICOM PS3.3 C.7.6.1.1.5 (Lossy Image Compression).
    """
    method = _WITH_LOSS.get(source.file_meta.TransferSyntaxUID)
    if text(source, "LossyImageCompression") != "01" and method is None:
        return
    target.LossyImageCompression = "01"
    named = [one for one in texts(source, "LossyImageCompressionMethod") if one.startswith("ISO_")]
    if methods := named or [one for one in (method,) if one]:
        target.LossyImageCompressionMethod = methods
    ratio = _copied(source, "LossyImageCompressionRatio")
    if ratio is not None and ratio.VM == len(named) > 0 and _is_valid(ratio):
        target.add(ratio)


def reference_to(source: Dataset) -> Dataset:
    """Return the reference to an instance, as most sequences want it. Source: DICOM PS3.3 10.8."""
    reference = Dataset()
    reference.ReferencedSOPClassUID = source.SOPClassUID
    reference.ReferencedSOPInstanceUID = source.SOPInstanceUID
    return reference


def series_reference_to(source: Dataset) -> Dataset:
    """Return the reference to an instance within its series. Source: DICOM PS3.3 C.12.2 (Common Instance Reference)."""
    series = Dataset()
    series.SeriesInstanceUID = source.SeriesInstanceUID
    series.ReferencedInstanceSequence = [reference_to(source)]
    return series


def instance_number(source: Dataset) -> int:
    """Return the radiograph's Instance Number, or 1 where it has none above 0."""
    try:
        found = int(number(source, "InstanceNumber") or 1)
    except InputError:
        return 1
    return found if 0 < found < 2**31 else 1


def aspect_ratio(source: Dataset) -> list[int]:
    """Return how high and how wide a pixel is, in whole numbers without a unit. Source: DICOM PS3.3 C.7.6.3.1.7."""
    ratio = Fraction(pixel_aspect(source)[0]).limit_denominator(10_000)
    return [ratio.numerator, ratio.denominator]


def _named(keyword: str) -> str:
    tag = Tag(keyword)
    return f"{dictionary_description(keyword)} ({tag.group:04X},{tag.element:04X})"


def _copied(source: Dataset, keyword: str) -> DataElement | None:
    """Return a copy of an element whose texts are decoded; None where it is missing or cannot be read."""
    try:
        if keyword not in source:
            return None
        if keyword in _DEFINED and text(source, keyword) not in _DEFINED[keyword]:
            return None
        element = copy.deepcopy(source[keyword])
        for item in element.value if element.VR == "SQ" else ():
            list(item.iterall())  # decodes by the source's character set
        return element
    except UNREADABLE:
        return None


def _is_valid(element: DataElement) -> bool:
    if element.VR == "SQ":
        return True
    values = element.value if element.VM > 1 else [element.value]
    try:
        for value in values:
            validate_value(element.VR, str(value), config.RAISE)
    except UNREADABLE:
        return False
    return True
