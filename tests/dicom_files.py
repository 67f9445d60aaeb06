"""A small DICOM radiograph on disk, for tests of which files are found and what they are named."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset

ROWS, COLUMNS = np.mgrid[:24, :16]
RAMP_8 = (ROWS * 10 + COLUMNS).astype(np.uint8)


def make_dicom(stored: np.ndarray = RAMP_8, sop_uid: str | None = "1.2.3") -> Dataset:
    """Return an 8-bit radiograph; sop_uid: None for one without SOP Instance UID."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    dataset.SOPClassUID = uid.DigitalXRayImageStorageForPresentation
    dataset.Modality = "DX"
    dataset.Rows, dataset.Columns = stored.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation = 1, "MONOCHROME2", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelData = stored.tobytes()
    dataset["PixelData"].VR = "OB"
    if sop_uid is not None:
        dataset.SOPInstanceUID = sop_uid
    else:
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.9"
    return dataset


def save_dicom(path: Path, stored: np.ndarray = RAMP_8, sop_uid: str | None = "1.2.3", preamble: bool = True) -> Path:
    """Write an 8-bit radiograph; sop_uid: None for a file without SOP Instance UID."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some tests need a UID that is none
        path.parent.mkdir(parents=True, exist_ok=True)
        make_dicom(stored, sop_uid).save_as(path, enforce_file_format=True)
    if not preamble:
        path.write_bytes(path.read_bytes()[132:])
    return path


def in_two_folders(source: Path, folder: Path) -> list[Path]:
    """Copy files by turns into `a-b` and `a`, whose order is not that of their names with a slash, and one once more.

    Returns the files of `source`, in order.
    """
    files = sorted(source.iterdir())
    for number, file in enumerate(files):
        place = folder / ("a" if number % 2 else "a-b") / file.name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, place)
    shutil.copy(files[0], folder / "zz copy of it.dcm")
    return files
