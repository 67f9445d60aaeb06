"""Pictures as JPEG Lossless, by GDCM.

Source: DICOM PS3.5 8.2.1, A.4.1 (JPEG); ITU-T T.81 Annex H (lossless mode, selection value 1).
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import gdcm
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import get_frame
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from pleura.errors import OutputError, writing


def jpeg_lossless(rgb: NDArray[np.uint8]) -> bytes:
    """Return a picture as a JPEG codestream that decodes to the very same values.

    rgb: (rows, columns, 3), rows x columns an even number; the components stay red, green and blue.
    Raises: OutputError where their number is odd, which GDCM refuses, or there is no room for temporary files.
    """
    # Files, because GDCM's images in memory end the whole process where Python frees them in another order.
    with writing("a temporary folder"), tempfile.TemporaryDirectory() as name:
        plain, coded = Path(name, "plain.dcm"), Path(name, "coded.dcm")
        dcmwrite(plain, _uncompressed(rgb), enforce_file_format=True)
        if _recode(plain, coded):
            return get_frame(pydicom.dcmread(coded).PixelData, 0, number_of_frames=1)
    raise OutputError(f"GDCM cannot compress a picture of {rgb.shape[0]} x {rgb.shape[1]} px; write it uncompressed")


def _uncompressed(rgb: NDArray[np.uint8]) -> Dataset:
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID, made.SOPInstanceUID = SecondaryCaptureImageStorage, "1.2.3"
    made.Rows, made.Columns, made.SamplesPerPixel = *rgb.shape[:2], 3
    made.PhotometricInterpretation, made.PlanarConfiguration, made.PixelRepresentation = "RGB", 0, 0
    made.BitsAllocated, made.BitsStored, made.HighBit = 8, 8, 7
    made.PixelData = rgb.tobytes()
    made["PixelData"].VR = "OB"
    return made


def _recode(plain: Path, coded: Path) -> bool:
    """Write a file anew in JPEG Lossless; returns whether GDCM could."""
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(plain))
    if not reader.Read():
        return False
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    if not change.Change():
        return False
    writer.SetFileName(str(coded))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    return bool(writer.Write())
