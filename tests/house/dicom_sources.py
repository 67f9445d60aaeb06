"""Radiographs that differ in all that a DICOM object may take over from one."""

from __future__ import annotations

from typing import Any

import numpy as np
from dicom_objects import ramp
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset


def source(number: int, **attributes: Any) -> Dataset:
    """A radiograph with the ids of `number`, and attributes of its own."""
    dataset, values = Dataset(), ramp(60, 47 + number)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    dataset.SOPClassUID = (uid.DigitalXRayImageStorageForPresentation, uid.ComputedRadiographyImageStorage)[number % 2]
    dataset.SOPInstanceUID, dataset.SeriesInstanceUID = f"1.2.{number}.4", f"1.2.{number}.3"
    dataset.StudyInstanceUID = f"1.2.{number}"
    setattr(dataset, "PatientID" if number else "PatientName", f"A-{number}")
    dataset.Rows, dataset.Columns = values.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation = 1, "MONOCHROME2", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelData = values.tobytes() + b"\0" * (values.size % 2)
    dataset["PixelData"].VR = "OB"
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def sources() -> list[Dataset]:
    """One with next to nothing, and others whose values differ in all that an object may take over."""
    full = []
    for number, (sex, day, removed) in enumerate((("M", "20200102", "YES"), ("F", "20210304", "NO")), start=1):
        one = source(number, PatientName=f"Doe^{sex}", PatientBirthDate=day, PatientBirthTime=f"0{number}0000")
        one.PatientSex, one.PatientAge, one.PatientSize, one.PatientWeight = (
            sex,
            f"03{number}Y",
            f"1.{number}",
            f"7{number}",
        )
        one.IssuerOfPatientID, one.QualityControlSubject, one.PatientIdentityRemoved = f"H{number}", removed, removed
        one.DeidentificationMethod, one.LongitudinalTemporalInformationModified = (
            f"M{number}",
            ("MODIFIED", "REMOVED")[number - 1],
        )
        one.IssuerOfAccessionNumberSequence, one.DeidentificationMethodCodeSequence = [Dataset()], [Dataset()]
        one.IssuerOfAccessionNumberSequence[0].LocalNamespaceEntityID = f"N{number}"
        method = one.DeidentificationMethodCodeSequence[0]
        method.CodeValue, method.CodingSchemeDesignator, method.CodeMeaning = (
            f"11310{number}",
            "DCM",
            f"Option {number}",
        )
        one.StudyDate, one.StudyTime, one.StudyID, one.AccessionNumber = (
            day,
            f"1{number}0000",
            f"S{number}",
            f"C{number}",
        )
        one.ReferringPhysicianName, one.StudyDescription, one.InstanceNumber = f"Dr^{number}", f"Chest {number}", number
        one.PatientOrientation, one.Laterality = ["LR"[number - 1], "F"], "RL"[number - 1]
        one.BodyPartExamined, one.BurnedInAnnotation, one.ImagerPixelSpacing = "CHEST", removed, [f"0.{number}", "0.2"]
        one.LossyImageCompression, one.LossyImageCompressionMethod = "01", f"ISO_{number}0918_1"
        one.LossyImageCompressionRatio = f"1{number}.5"
        full.append(one)
    full[0].WindowCenter, full[0].WindowWidth, full[0].VOILUTFunction = "90", "80", "SIGMOID"
    full[0].RescaleSlope, full[0].RescaleIntercept, full[0].RescaleType = "2", "-1", "OD"
    full[1].PhotometricInterpretation, full[1].WindowCenter, full[1].WindowWidth = "MONOCHROME1", "91", "81"
    full[1].VOILUTFunction, full[1].RescaleSlope, full[1].RescaleIntercept = "LINEAR_EXACT", "3", "-2"
    tables = [
        source(number, ModalityLUTSequence=[_table(number)], VOILUTSequence=[_table(number)]) for number in (3, 4)
    ]
    return [source(0), *full, *tables]


def _table(number: int) -> Dataset:
    table = Dataset()
    table.add_new("LUTDescriptor", "US", [256, 0, 8 + number])
    table.add_new("LUTData", "OW", (np.arange(256) * number).astype("<u2").tobytes())
    table.ModalityLUTType = ("OD", "HU")[number % 2]
    return table
