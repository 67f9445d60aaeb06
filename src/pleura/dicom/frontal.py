"""Notes on headers that contradict a frontal chest radiograph; the models are made for no other image."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pydicom import uid
from pydicom._uid_dict import UID_dictionary
from pydicom.dataset import Dataset

from pleura.dicom.header import items, patient_orientation, text, texts
from pleura.errors import excerpt

# DR is no defined term, but written; RG is film that was digitised.
_MODALITIES = {"CR", "DX", "DR", "RG"}
RADIOGRAPH_CLASSES = {
    uid.ComputedRadiographyImageStorage,
    uid.DigitalXRayImageStorageForPresentation,
    uid.DigitalXRayImageStorageForProcessing,
    uid.SecondaryCaptureImageStorage,
    uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
}
"""SOP Classes of radiographs, of scanned film too."""
_UNSPECIFIED = {"", "UNKNOWN", "UNSPECIFIED", "NONE", "NA", "NULL", "OTHER"}
_CHEST = re.compile(r"CHEST|THORAX|TORAX|TORACE|LUNG")
_MORE_OR_OTHER_THAN_CHEST = re.compile(r"ABD|PELV|NECK|HEAD|SPINE|\bLAT")
_FRONTAL_WORDS = {"AP", "PA", "FRONTAL", "FRONT", "ANTEROPOSTERIOR", "POSTEROANTERIOR"}
# Words beside the projection that do not name it.
_POSTURES = {"ERECT", "UPRIGHT", "SUPINE", "SITTING", "STANDING", "SEMI", "PORTABLE", "MOBILE", "BED", "CHEST"}
_OTHER_WORDS = re.compile(r"LAT.*|OBL.*|DECUB.*|LORD.*|AXIAL|APICAL|LL|RL|LL[DO]|RL[DO]|[LR]AO|[LR]PO")
# Antero-posterior, postero-anterior and frontal, by SNOMED CT and by the codes of SNOMED RT that it replaced.
_FRONTAL_CODES = {"399348003", "272479007", "399033003", "R-10206", "R-10214", "R-10202"}
# Chest, thoracic structure, thoracic cavity, lung.
_CHEST_CODES = {"816094009", "51185008", "43799004", "39607008", "T-D3000", "T-D3050", "T-28000"}
_NOT_FRONTAL = "not the frontal chest radiograph that the model is made for"
_QUOTING = re.compile(rf"^([A-Z][A-Za-z ]*?) is .*: {_NOT_FRONTAL}")


def not_frontal_chest(dataset: Dataset) -> tuple[str, ...]:
    """Return a note for each attribute that contradicts a frontal chest radiograph, processed for presentation.

    One that lies turned or upside down gives one, too: it is predicted as it is stored, and the models are made for
    upright ones. A mirrored one gives none. An attribute that is missing, empty or unspecified gives none either.
    Source: DICOM PS3.3 C.7.3.1.1.1 (Modality), C.7.6.1.1.1 (Patient Orientation), C.8.7.1.1.2 and C.8.11.5.1.2 (View
    Position), C.8.11.7 (Presentation Intent Type), PS3.16 CID 4009, CID 4010.
    """
    notes = _contradictions(dataset)
    turned = patient_orientation(dataset)
    if turned and not _is_sagittal(turned) and (turned[0][0] not in "RL" or turned[1][0] != "F"):
        says = f"Patient Orientation is {','.join(turned)}"
        notes.append(f"{says}: the radiograph is not upright, and the model is made for upright ones")
    return tuple(notes)


def contradiction(dataset: Dataset) -> str | None:
    """Return the first note that an image is another than a frontal chest radiograph, processed for presentation.

    None where nothing says so: one that is not upright is a frontal one.
    """
    return next(iter(_contradictions(dataset)), None)


def _contradictions(dataset: Dataset) -> list[str]:
    found = [*_other_device(dataset), *_other_region(dataset), *_other_view(dataset)]
    notes = [f"{what}: {_NOT_FRONTAL}" for what in found]
    for_processing = text(dataset, "SOPClassUID") == uid.DigitalXRayImageStorageForProcessing
    if for_processing or _plain(text(dataset, "PresentationIntentType")) == "FOR PROCESSING":
        notes.append("Presentation Intent Type is FOR PROCESSING: not the image for presentation that the model needs")
    return notes


def uid_names() -> dict[str, str]:
    """Return what SOP Classes and transfer syntaxes are called, by UID: what notes and refusals name them by."""
    kinds = ("SOP Class", "Transfer Syntax")
    return {key: entry[0] for key, entry in UID_dictionary.items() if entry[1] in kinds}


def without_values(notes: Iterable[str]) -> tuple[str, ...]:
    """Return notes of `not_frontal_chest`, and any others, without what they quote of a header: it can be a name."""
    return tuple(_QUOTING.sub(rf"\1 is another: {_NOT_FRONTAL}", note) for note in notes)


def _other_device(dataset: Dataset) -> list[str]:
    modality, sop_class = text(dataset, "Modality"), text(dataset, "SOPClassUID")
    if modality and _plain(modality) not in _MODALITIES | _UNSPECIFIED:
        return [f"Modality is {excerpt(modality)}"]
    name = uid.UID(sop_class or "").name  # of a private class, the UID itself
    if sop_class not in RADIOGRAPH_CLASSES and name != (sop_class or ""):
        return [f"SOP Class is {name}"]
    return []


def _other_region(dataset: Dataset) -> list[str]:
    part = text(dataset, "BodyPartExamined")
    if part and _plain(part) not in _UNSPECIFIED and not _is_chest(part):
        return [f"Body Part Examined is {excerpt(part)}"]
    regions = [_code(region) for region in items(dataset, "AnatomicRegionSequence")]
    if any(code in _CHEST_CODES or _is_chest(meaning) for code, meaning in regions):
        return []
    return [f"Anatomic Region is {excerpt(meaning or code)}" for code, meaning in regions if meaning or code][:1]


def _is_chest(part: str) -> bool:
    plain = _plain(part)
    return bool(_CHEST.search(plain)) and not _MORE_OR_OTHER_THAN_CHEST.search(plain)


def _other_view(dataset: Dataset) -> list[str]:
    position = text(dataset, "ViewPosition")
    if position and not _may_be_frontal(position):
        return [f"View Position is {excerpt(position)}"]
    for code, meaning in map(_code, items(dataset, "ViewCodeSequence")):
        if code not in _FRONTAL_CODES and not _may_be_frontal(meaning or code):
            return [f"View is {excerpt(meaning or code)}"]
    orientation = texts(dataset, "PatientOrientation")
    if _is_sagittal(orientation):
        return [f"Patient Orientation is {excerpt(','.join(orientation))}"]
    return []


def _is_sagittal(orientation: Iterable[str]) -> bool:
    """Return whether rows or columns go front to back."""
    return any(direction.upper().startswith(("A", "P")) for direction in orientation)


def _may_be_frontal(view: str) -> bool:
    """Return whether a view is frontal, or does not name the projection."""
    plain = re.sub(r"(ANTERO|POSTERO)[ -]", r"\1", _plain(view))
    words = set(re.split(r"[^A-Z0-9]+", plain)) - {""}
    if any(_OTHER_WORDS.fullmatch(word) for word in words):
        return False
    return plain in _UNSPECIFIED or bool(words & _FRONTAL_WORDS) or words <= _POSTURES


def _code(item: Dataset) -> tuple[str, str]:
    """Return the value and the meaning of a coded entry. Source: DICOM PS3.3 8.8."""
    return text(item, "CodeValue") or "", text(item, "CodeMeaning") or ""


def _plain(value: str | None) -> str:
    return " ".join((value or "").upper().split())
