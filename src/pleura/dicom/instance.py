"""A new DICOM instance beside the radiograph that it is about: whose it is, what made it, and when.

Source: DICOM PS3.3 C.7.3.1 (General Series), C.7.5.1 and C.7.5.2 (equipment), C.12.1 (SOP Common); IHE Radiology,
AI Results (AIR): the algorithm is contributing equipment of each result.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from pleura.dicom.parse import collect_warnings
from pleura.dicom.results import Algorithm, Result
from pleura.dicom.source import copy_patient_and_study, instance_number, refuse_unless_filed
from pleura.dicom.uids import IMPLEMENTATION_CLASS_UID

MANUFACTURER = "pleura"
NOT_FOR_DIAGNOSIS = "research software, not for diagnosis"
OWN_CODES = "99PLEURA"
"""The coding scheme of what no public one has a code for."""
# Of a trial implementation: the code is a placeholder in the text itself (AIR, revision 1.1, RAD TF-3 6.5.3.1, as MONAI
# Deploy's dicom_utils.py quotes it), and what readers of AI results look for. The standard's own list (PS3.16 CID 7005)
# has none for an algorithm; the nearest is Processing Equipment, 109102.
PROCESSING_ALGORITHM = ("Newcode1", "99IHE", "Processing Algorithm")
_SCHEMES = {
    OWN_CODES: ("Codes of the pleura software", "The pleura developers"),
    PROCESSING_ALGORITHM[1]: ("Codes of IHE profiles", "Integrating the Healthcare Enterprise"),
}
"""Coding schemes that are not DICOM's: their names, and who is responsible for them."""
_LONGEST_LO = 64


@dataclass(frozen=True)
class Kind:
    """One kind of object: its word in --write, and the series that it comes in."""

    word: str
    sop_class_uid: str
    modality: str
    series_number: int
    description: str


def new_instance(result: Result, kind: Kind, *settings: str) -> Dataset:
    """Return an instance with everything but its content, in a series of its own.

    A series holds one object, as some viewers show only a series' first. settings: of this kind, where there are some;
    its UIDs follow from them too. Raises: InputError where the radiograph lacks what an archive files it by.
    """
    source, algorithm = result.source, result.algorithm
    refuse_unless_filed(source)
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    made.file_meta.ImplementationVersionName = f"PLEURA_{algorithm.version}"[:16]
    made.SpecificCharacterSet = "ISO_IR 192"
    copy_patient_and_study(source, made)
    made.SOPClassUID, made.SOPInstanceUID = kind.sop_class_uid, result.uid("instance", kind.word, *settings)
    made.InstanceCreationDate, made.InstanceCreationTime = date_and_time(result)
    made.Modality, made.SeriesNumber = kind.modality, kind.series_number
    made.SeriesInstanceUID = result.uid("series", kind.word, *settings)
    made.SeriesDescription = f"{kind.description} ({NOT_FOR_DIAGNOSIS})"
    made.InstanceNumber = instance_number(source)
    _add_equipment(made, algorithm)
    made.DeviceSerialNumber = algorithm.weights_sha256[:_LONGEST_LO]
    made.ContributingEquipmentSequence = [_contribution(result)]
    made.CodingSchemeIdentificationSequence = []
    declare_scheme(made, PROCESSING_ALGORITHM[1])
    return made


def date_and_time(result: Result) -> tuple[str, str]:
    """Return when a result was made, as DA and TM in local time. Source: DICOM PS3.5 6.2."""
    return result.made_at.strftime("%Y%m%d"), result.made_at.strftime("%H%M%S.%f")


def code(value: str, scheme: str, meaning: str) -> Dataset:
    """Return a coded entry. Source: DICOM PS3.3 8.8."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def declare_scheme(made: Dataset, designator: str) -> None:
    """Say whose codes those of a private scheme are. Source: DICOM PS3.3 C.12.1 (Coding Scheme Identification)."""
    scheme = Dataset()
    scheme.CodingSchemeDesignator = designator
    scheme.CodingSchemeName, scheme.CodingSchemeResponsibleOrganization = _SCHEMES[designator]
    made.CodingSchemeIdentificationSequence.append(scheme)


def bytes_of(made: Dataset) -> bytes:
    """Return an instance as a file. Source: DICOM PS3.10 7.1."""
    buffer = io.BytesIO()
    with collect_warnings():  # of values that the source has, and that are copied as they are
        dcmwrite(buffer, made, enforce_file_format=True)
    return buffer.getvalue()


def _add_equipment(item: Dataset, algorithm: Algorithm) -> None:
    item.Manufacturer, item.ManufacturerModelName = MANUFACTURER, algorithm.name[:_LONGEST_LO]
    item.SoftwareVersions = [algorithm.version, f"weights {algorithm.weights_sha256[:12]}"]


def _contribution(result: Result) -> Dataset:
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [code(*PROCESSING_ALGORITHM)]
    _add_equipment(item, result.algorithm)
    item.DeviceUID = result.algorithm.device_uid
    item.ContributionDateTime = "".join(date_and_time(result))
    item.ContributionDescription = f"Found or excluded pneumothorax; {NOT_FOR_DIAGNOSIS}"
    return item
