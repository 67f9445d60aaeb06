"""DICOM without its patient: the basic confidentiality profile, with UIDs that a secret of the user's links.

What the profile's table does not name and may still say who it is goes too: persons, dates, and every text that is not
in `KEPT_TEXTS`, whatever its attribute; so do private attributes, unknown ones, curves and overlays.
Source: DICOM PS3.15 E.1.1, E.2, Table E.1-1; PS3.3 C.12.1.1.7 (how it was de-identified); PS3.5 B.2 (UIDs of UUIDs).
"""

from __future__ import annotations

import copy
import hmac
import os
import re
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom import uid
from pydicom.datadict import dictionary_has_tag, keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag

from pleura.dicom.confidentiality import ACTIONS, EDITION, KEPT_TEXTS, KEPT_UIDS
from pleura.dicom.header import text
from pleura.dicom.parse import DAMAGE, collect_warnings, valid_uid
from pleura.errors import InputError

SECRET_VARIABLE = "PLEURA_DEIDENTIFY_SECRET"
SHORTEST_SECRET = 16
"""In bytes: what is shorter can be guessed, and with it every id."""
PROFILE = ("113100", "DCM", "Basic Application Confidentiality Profile")
_DUMMIES: dict[str, Any] = {"DA": "19000101", "TM": "000000", "DT": "19000101000000", "DS": "0", "IS": "0"}
_TEXTS = ("AE", "AS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT")
_TIMES = ("DA", "DT", "TM")
_NUMBER = re.compile(r" *([-+]?[0-9.]+([eE][-+]?[0-9]+)?)? *")
# A file can have any text where these types stand, and pydicom reads it.
_WORDS = {"CS": re.compile(r"[A-Z0-9 _]{0,16}"), "DS": _NUMBER, "IS": _NUMBER}
_CODE_OF_NOBODY = ("0", "99PLEURA", "REMOVED")
_META = ("MediaStorageSOPClassUID", "TransferSyntaxUID", "ImplementationClassUID")
_PADDING = " \0"


@dataclass(frozen=True)
class Secret:
    """What links the results of de-identified radiographs: the same secret gives the same ids, and none gives none."""

    key: bytes = field(repr=False)

    def uid(self, name: str) -> str:
        """Return the UID that stands for a UID, or for another id or a path: 2.25 and 128 bits, always the same."""
        digest = self._digest(name.strip(_PADDING))
        return f"2.25.{uuid.UUID(bytes=digest[:16], version=4).int}"

    def patient(self, patient_id: str) -> str:
        """Return what stands for a Patient ID, 16 characters, always the same."""
        return self._digest(f"PatientID {patient_id.strip(_PADDING)}").hex()[:16]

    def number(self, name: str) -> int:
        """Return the 56 bits that stand for a number of a file, such as its size."""
        return int.from_bytes(self._digest(f"number {name}")[:7])

    @property
    def fingerprint(self) -> str:
        """Which secret it is, and nothing of it."""
        return self._digest("pleura").hex()[:16]

    def _digest(self, message: str) -> bytes:
        return hmac.digest(self.key, message.encode("utf-8", "surrogateescape"), "sha256")


def load_secret(path: Path | None) -> Secret:
    """Return the secret that a file holds, or without one the variable PLEURA_DEIDENTIFY_SECRET.

    White space around it does not count. Raises: InputError if there is none, or it is too short.
    """
    if path is not None:
        try:
            found, where = path.read_bytes(), str(path)
        except OSError as error:
            raise InputError(
                f"{path}: the secret cannot be read ({error.strerror or error}); check the path"
            ) from error
    else:
        found, where = os.environ.get(SECRET_VARIABLE, "").encode("utf-8", "surrogateescape"), SECRET_VARIABLE
        if not found.strip():
            raise InputError(
                "--deidentify needs a secret of yours, so that the same radiograph always gets the same new ids: write "
                "one with python -c 'import secrets; print(secrets.token_hex(32))' > FILE and add --deidentify-secret "
                f"FILE, or set {SECRET_VARIABLE}"
            )
    key = found.strip()
    if len(key) < SHORTEST_SECRET:
        raise InputError(
            f"{where}: a secret of {len(key)} characters can be guessed, and with it every id; take at least "
            f"{SHORTEST_SECRET} at random"
        )
    return Secret(key)


def deidentified(dataset: Dataset, secret: Secret) -> Dataset:
    """Return a dataset without what says who it is, by the basic profile; the one that is given stays as it is.

    UIDs and the Patient ID become those of the secret; dates are removed, or 1900-01-01 where an object needs one. What
    was made from a dataset of this function and the same secret keeps its UIDs, so that twice is once.
    Raises: InputError where Burned In Annotation says that the pixels name the patient.
    Source: DICOM PS3.15 E.2, Table E.1-1.
    """
    if "PixelData" in dataset and text(dataset, "BurnedInAnnotation") == "YES":
        raise InputError(
            "its Burned In Annotation is YES: the pixels may name the patient, and they would stay; blank them first"
        )
    with collect_warnings():
        method = f"PS3.15 {EDITION} basic profile, pleura {secret.fingerprint}"
        ids = None if text(dataset, "DeidentificationMethod") == method else secret
        made = _without_identity(dataset, ids)
        made.PatientIdentityRemoved, made.DeidentificationMethod = "YES", method
        made.DeidentificationMethodCodeSequence = [_code(*PROFILE)]
        made.LongitudinalTemporalInformationModified = "REMOVED"
        made.file_meta = _file_meta(dataset, made)
    return made


def _file_meta(dataset: Dataset, made: Dataset) -> FileMetaDataset:
    """What a file needs and no more: the titles of the senders are in it, too. Source: DICOM PS3.10 7.1."""
    before, after = getattr(dataset, "file_meta", Dataset()), FileMetaDataset()
    for keyword in _META:
        if keyword in before:
            setattr(after, keyword, before[keyword].value)
    if "SOPInstanceUID" in made:
        after.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    return after


def _without_identity(dataset: Dataset, secret: Secret | None) -> Dataset:
    """Return the dataset of an object or of an item. secret: None keeps UIDs and the Patient ID."""
    made = Dataset()
    for tag in dataset.keys():  # noqa: SIM118  iterating a Dataset itself decodes, and one bad element would end it
        if _is_of_no_use(tag):
            continue
        try:
            element = dataset[tag]
            if (kept := _element(element, secret)) is not None:
                made.add(kept)
        except DAMAGE:
            continue  # what cannot be read cannot be known to name nobody
    return made


def _is_of_no_use(tag: BaseTag) -> bool:
    """Whether an attribute is removed unread: private, unknown, a length, a curve or an overlay."""
    of_graphics = tag.group >> 8 in (0x50, 0x60)
    return bool(tag.is_private or of_graphics or tag.element == 0 or not dictionary_has_tag(tag))


def _element(element: DataElement, secret: Secret | None) -> DataElement | None:
    """Return what becomes of one element; None where it is removed."""
    tag, vr = element.tag, element.VR
    action = ACTIONS.get(int(tag)) or _action_beyond(element)
    if action == "X" or vr == "UN":
        return None
    if vr == "SQ":
        return _sequence(element, action, secret)
    if action == "K" or (secret is None and (vr == "UI" or element.keyword == "PatientID")):
        return copy.deepcopy(element)  # shared, a change to one dataset would change the other
    if action == "Z" or element.is_empty:
        return DataElement(tag, vr, None)
    if vr == "UI" and secret:
        return DataElement(tag, vr, _new_uids(element, secret))
    if element.keyword == "PatientID" and secret:
        return DataElement(tag, vr, secret.patient(str(element.value)))
    if vr in _DUMMIES or vr in _TEXTS:
        return DataElement(tag, vr, _DUMMIES.get(vr, "REMOVED"))
    return None  # binary values have no dummy that means nothing


def _action_beyond(element: DataElement) -> str:
    """What becomes of an attribute that the profile's table does not name; K: it stays."""
    vr = element.VR
    if vr == "UI":
        return "U"
    of_patient = element.tag.group == 0x0010
    if of_patient or vr in _TIMES or (vr in _TEXTS and element.keyword not in KEPT_TEXTS):
        return "X"
    return "K" if vr not in _WORDS or all(map(_WORDS[vr].fullmatch, _strings(element))) else "X"


def _strings(element: DataElement) -> list[str]:
    return [str(one) for one in (element.value if isinstance(element.value, MultiValue) else [element.value])]


def _sequence(element: DataElement, action: str, secret: Secret | None) -> DataElement:
    items = [_without_identity(item, secret) for item in element.value] if action != "Z" else []
    if element.keyword == "PersonIdentificationCodeSequence":
        items = [_code(*_CODE_OF_NOBODY) for _ in items]
    return DataElement(element.tag, "SQ", items)


def _new_uids(element: DataElement, secret: Secret) -> list[str]:
    """The UIDs that stand for others; that of a class, of a transfer syntax or of the standard itself stays."""
    keyword = keyword_for_tag(element.tag)
    of_no_instance = keyword in KEPT_UIDS or "SOPClass" in keyword or "TransferSyntax" in keyword
    return [
        value if uid.UID(value).name != value or (of_no_instance and valid_uid(value)) else secret.uid(value)
        for value in _strings(element)
    ]


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, meaning
    return code
