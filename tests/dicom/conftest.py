"""DICOM files to read, built from an array and the attributes that a test is about."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
import pytest
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate

GDCM_NAMES = {
    uid.JPEGExtended12Bit: "JPEGExtendedProcess2_4",
    uid.JPEGLossless: "JPEGLosslessProcess14",
    uid.JPEGLosslessSV1: "JPEGLosslessProcess14_1",
    uid.JPEGLSLossless: "JPEGLSLossless",
    uid.JPEGLSNearLossless: "JPEGLSNearLossless",
}
PILLOW_OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    uid.JPEGBaseline8Bit: ("JPEG", {"quality": 95}),
    uid.JPEG2000Lossless: ("JPEG2000", {"irreversible": False}),
    uid.JPEG2000: ("JPEG2000", {"irreversible": True}),
}
WriteDicom = Callable[..., Path]


def dataset_of(stored: np.ndarray, attributes: dict[str, Any]) -> Dataset:
    """Return a digital radiograph with `stored` values; an attribute of None is left out."""
    bits = 8 * stored.dtype.itemsize
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.SOPClassUID = uid.DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = "1.2.3.4"
    dataset.Rows, dataset.Columns = stored.shape[:2]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.PixelRepresentation = bits, int(stored.dtype.kind == "i")
    dataset.BitsStored = attributes.pop("BitsStored", bits)
    dataset.HighBit = max(0, dataset.BitsStored - 1)
    dataset.PixelData = stored.tobytes() + b"\0" * (stored.nbytes % 2)
    dataset["PixelData"].VR = "OB" if bits == 8 else "OW"
    for keyword, value in attributes.items():
        if value is not None:
            setattr(dataset, keyword, value)
        elif keyword in dataset:
            delattr(dataset, keyword)
    return dataset


def compress(dataset: Dataset, stored: np.ndarray, syntax: str) -> None:
    """Compress with pydicom (RLE) or Pillow (JPEG baseline, JPEG 2000)."""
    if syntax == uid.RLELossless:
        dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
        dataset.compress(syntax, generate_instance_uid=False, encoding_plugin="pydicom")
        return
    file, (name, options) = io.BytesIO(), PILLOW_OPTIONS[syntax]
    Image.fromarray(stored).save(file, format=name, **({"no_jp2": True} if name == "JPEG2000" else {}), **options)
    dataset.PixelData = encapsulate([file.getvalue()])
    dataset["PixelData"].is_undefined_length = True


def recode(path: Path, syntax: str) -> None:
    """Compress a file in place with GDCM (JPEG extended, JPEG lossless, JPEG-LS)."""
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(path))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, GDCM_NAMES[syntax])))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()


@pytest.fixture
def write_dicom(tmp_path: Path) -> WriteDicom:
    """Return write(stored, name="case.dcm", syntax=..., **attributes) -> the path of the file written."""

    def write(
        stored: np.ndarray, name: str = "case.dcm", syntax: str = uid.ExplicitVRLittleEndian, **attributes: Any
    ) -> Path:
        path = tmp_path / name
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some tests need values that pydicom would rather not write
            dataset = dataset_of(stored, attributes)
            if syntax == uid.RLELossless or syntax in PILLOW_OPTIONS:
                compress(dataset, stored, syntax)
            elif syntax == uid.ExplicitVRBigEndian and "PixelData" in dataset:
                dataset.PixelData = stored.astype(stored.dtype.newbyteorder(">")).tobytes()
            dataset.file_meta.TransferSyntaxUID = (
                uid.ExplicitVRLittleEndian if syntax in GDCM_NAMES else uid.UID(syntax)
            )
            dataset.save_as(path, enforce_file_format=True)
        if syntax in GDCM_NAMES:
            recode(path, syntax)
        return path

    return write
