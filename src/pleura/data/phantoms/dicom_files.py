"""A folder of phantom radiographs as a hospital stores them: DICOM files, SIIM masks, and a table of patients."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    generate_uid,
)

from pleura.data import rle
from pleura.data.phantoms.radiographs import Phantom, make_phantom
from pleura.errors import InputError, writing
from pleura.files import read_records, write_atomically, write_csv

_DETECTOR_MM = 430.0
_VIEW_CODES = {"PA": ("272479007", "postero-anterior"), "AP": ("399348003", "antero-posterior")}  # PS3.16 CID 4010


def write_phantom_dataset(
    folder: Path,
    n_patients: int,
    seed: int,
    size_px: int = 512,
    positive_share: float = 0.5,
    mask_size_px: int = 1024,
) -> None:
    """Write `n_patients` phantoms, one or two radiographs each; the same arguments write the same bytes.

    The folder then holds `dicom/<SOPInstanceUID>.dcm`, `masks.csv` (SIIM run-length masks on mask_size_px x
    mask_size_px, whatever `size_px`) and `patients.csv` (ImageId, patient). `positive_share` of the radiographs, to the
    nearest whole number, show a pneumothorax. Of any four in turn each has another mix of MONOCHROME1 or 2 with 8 or
    12 bits. Writing again replaces every file as a whole, and removes what the last `patients.csv` lists and no more.

    Raises: InputError for arguments out of range; OutputError where the folder cannot be written.
    """
    if n_patients < 1 or seed < 0 or not 0 <= positive_share <= 1 or mask_size_px < 1:
        raise InputError(
            "a phantom dataset needs n_patients >= 1, seed >= 0, positive_share in [0, 1] and mask_size_px >= 1, "
            f"not {n_patients}, {seed}, {positive_share}, {mask_size_px}"
        )
    rng = np.random.default_rng([23, seed])
    owners = np.repeat(np.arange(n_patients), rng.integers(1, 3, n_patients))
    positive = rng.permutation(len(owners)) < round(positive_share * len(owners))
    ages = rng.integers(18, 90, n_patients)
    spare = _listed(folder / "patients.csv")

    with writing(folder):
        (folder / "dicom").mkdir(parents=True, exist_ok=True)
    masks, patients = [], []
    for number, owner in enumerate(owners.tolist()):
        phantom = make_phantom([seed, number], size_px, bool(positive[number]), patient_seed=seed * 100_003 + owner)
        dataset = _header(phantom, f"{seed}", number, owner, int(ages[owner]))
        _add_pixels(dataset, phantom.image, number)
        image_id = str(dataset.SOPInstanceUID)
        content = io.BytesIO()
        dcmwrite(content, dataset, enforce_file_format=True)
        write_atomically(folder / "dicom" / f"{image_id}.dcm", content.getvalue())
        grid = np.arange(mask_size_px) * size_px // mask_size_px
        masks.append((image_id, rle.encode(phantom.mask[np.ix_(grid, grid)])))
        patients.append((image_id, str(dataset.PatientID)))

    rle.write_csv(folder / "masks.csv", masks)
    write_csv(folder / "patients.csv", [("ImageId", "patient"), *patients])
    for image_id in spare - {image_id for image_id, _ in patients}:
        with writing(folder / "dicom" / f"{image_id}.dcm"):
            (folder / "dicom" / f"{image_id}.dcm").unlink(missing_ok=True)


def _header(phantom: Phantom, source: str, number: int, owner: int, age_years: int) -> Dataset:
    """Everything but the pixels. Dates, the physician and whatever else a phantom has not stay empty.

    Source: DICOM PS3.3 A.2 (CR), A.26 (DX), C.7.1.1 (Patient), C.8.11 (DX modules).
    """
    size_px = phantom.image.shape[0]
    digital = number % 3 != 1
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = DigitalXRayImageStorageForPresentation if digital else ComputedRadiographyImageStorage
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
        entropy = ["pleura phantom", keyword, source, f"{number}", f"{size_px}"]
        setattr(dataset, keyword, generate_uid(entropy_srcs=entropy))
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PatientName, dataset.PatientID = f"Phantom^{owner:04d}", f"PHANTOM-{source}-{owner:04d}"
    dataset.PatientSex, dataset.PatientAge = phantom.sex, f"{age_years:03d}Y"
    dataset.QualityControlSubject = "YES"  # PS3.3 C.7.1.3: "a quality control phantom", which is what this is
    for keyword in (
        "PatientBirthDate",
        "StudyDate",
        "StudyTime",
        "StudyID",
        "AccessionNumber",
        "ReferringPhysicianName",
    ):
        setattr(dataset, keyword, "")
    dataset.Modality = "DX" if digital else "CR"
    dataset.Manufacturer, dataset.DerivationDescription = "pleura", "A synthetic phantom: no patient was imaged"
    dataset.SeriesNumber, dataset.InstanceNumber = 1, 1
    dataset.BodyPartExamined, dataset.ViewPosition = "CHEST", phantom.view
    dataset.PatientOrientation = ["L", "F"]
    dataset.ImageType = ["DERIVED", "PRIMARY", ""] if digital else ["DERIVED", "PRIMARY"]
    spacing_mm = [f"{_DETECTOR_MM / size_px:.6g}"] * 2
    if digital:
        _add_digital(dataset, phantom.view)
    if digital or number % 2 == 0:
        dataset.ImagerPixelSpacing = spacing_mm
    if number % 4 < 2:
        dataset.PixelSpacing = spacing_mm
    return dataset


def _add_digital(dataset: Dataset, view: str) -> None:
    """What a DX image needs beyond a CR image."""
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.ImageLaterality = "U"
    dataset.AnatomicRegionSequence = [_code("816094009", "Chest")]
    dataset.ViewCodeSequence = [_code(*_VIEW_CODES[view])]
    dataset.ViewCodeSequence[0].ViewModifierCodeSequence = []
    dataset.AcquisitionContextSequence = []
    dataset.DetectorType, dataset.BurnedInAnnotation, dataset.LossyImageCompression = "", "NO", "00"
    dataset.PixelIntensityRelationship = "LOG"


def _code(value: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "SCT", meaning
    return code


def _add_pixels(dataset: Dataset, image: NDArray[np.float32], number: int) -> None:
    """Store `image` (size_px, size_px) in one of four ways in turn: 8 or 12 bits, MONOCHROME2 or MONOCHROME1.

    The 12-bit ones use a part of the range and a window that selects it; those from CR have another rescale, as DX
    allows none. Source: DICOM PS3.3 C.7.6.3, C.11.1 (rescale), C.11.2.1.2.1 (linear window), C.8.11.3 (DX image).
    """
    inverted, deep = number % 2 == 1, number // 2 % 2 == 1
    low, high = (160, 3800) if deep else (0, 255)
    slope, intercept = (2, -1024) if deep and dataset.Modality == "CR" else (1, 0)
    stored = np.rint(low + (1 - image if inverted else image) * (high - low)).astype("<u2" if deep else "u1")
    dataset.Rows, dataset.Columns = image.shape
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, 0
    dataset.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = (16, 12, 11) if deep else (8, 8, 7)
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = intercept, slope, "US"
    if dataset.Modality == "DX":
        dataset.PixelIntensityRelationshipSign = 1 if inverted else -1
        dataset.PresentationLUTShape = "INVERSE" if inverted else "IDENTITY"
    if deep:
        # A linear window of centre c and width w is black at c - 0.5 - (w - 1) / 2 and white at c - 0.5 + (w - 1) / 2.
        first, last = slope * low + intercept, slope * high + intercept
        dataset.WindowCenter, dataset.WindowWidth = (first + last + 1) / 2, last - first + 1
    content = stored.tobytes()
    dataset.PixelData = content + b"\0" * (len(content) % 2)


def _listed(path: Path) -> set[str]:
    """The ids that an earlier `patients.csv` lists, if there is one; a name that could lead elsewhere is left out."""
    if not path.is_file():
        return set()
    ids = {row.get("ImageId", "") for row in read_records(path)}
    return {image_id for image_id in ids if image_id and set(image_id) <= set("0123456789.")}
