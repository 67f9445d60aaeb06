"""The radiograph with the result drawn in, as a secondary capture: what every viewer shows.

Source: DICOM PS3.3 A.8.1 (Secondary Capture Image IOD), C.8.6.1 (SC Equipment), C.7.6.3 (Image Pixel);
PS3.5 A.4 (encapsulated pixels).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGLosslessSV1

from pleura.dicom.header import patient_orientation, text
from pleura.dicom.instance import NOT_FOR_DIAGNOSIS, Kind, code, date_and_time, new_instance
from pleura.dicom.jpeg_writing import jpeg_lossless
from pleura.dicom.parse import collect_warnings
from pleura.dicom.results import Result
from pleura.dicom.source import copy_compression, reference_to

ScCompression = Literal["none", "jpeg-lossless"]
KIND = Kind("sc", "1.2.840.10008.5.1.4.1.1.7", "OT", 9702, "Pneumothorax, drawn in")


@collect_warnings()  # of values that the source has, and that are copied as they are
def secondary_capture(result: Result, picture: Image.Image, compression: ScCompression = "none") -> Dataset:
    """Return a picture of a result, 8 bits for each of three colours: the same instance however it is compressed.

    picture: the radiograph as it is shown, with the result drawn in and in words below. Its pixels are not those of the
    radiograph, so it has no pixel spacing.
    Raises: InputError where the radiograph lacks what an archive files it by; OutputError as `jpeg_lossless`.
    """
    source = result.source
    made = new_instance(result, KIND)
    made.ContentDate, made.ContentTime = date_and_time(result)
    made.DateOfSecondaryCapture, made.TimeOfSecondaryCapture = made.ContentDate, made.ContentTime
    made.ConversionType, made.ImageType = "WSD", ["DERIVED", "SECONDARY"]
    made.PatientOrientation = list(patient_orientation(source) or ())
    made.DerivationDescription = f"{result.found}; drawn by {result.algorithm.name}; {NOT_FOR_DIAGNOSIS}"
    made.SourceImageSequence = [reference_to(source)]
    made.SourceImageSequence[0].PurposeOfReferenceCodeSequence = [
        code("121322", "DCM", "Source image for image processing operation")
    ]
    _copy_what_stays_true(source, made)
    _add_pixels(made, np.asarray(picture.convert("RGB")), compression)
    return made


def _add_pixels(made: Dataset, rgb: NDArray[np.uint8], compression: ScCompression) -> None:
    """Store a picture, (rows, columns, 3); an odd number of pixels gets a black row, as GDCM cannot compress it."""
    rgb = np.pad(rgb, ((0, rgb.shape[0] * rgb.shape[1] % 2), (0, 0), (0, 0)))
    made.Rows, made.Columns, made.SamplesPerPixel = *rgb.shape[:2], 3
    made.PhotometricInterpretation, made.PlanarConfiguration, made.PixelRepresentation = "RGB", 0, 0
    made.BitsAllocated, made.BitsStored, made.HighBit = 8, 8, 7
    if compression == "jpeg-lossless":
        made.file_meta.TransferSyntaxUID = JPEGLosslessSV1
        made.PixelData = encapsulate([jpeg_lossless(rgb)])
        made["PixelData"].is_undefined_length = True
    else:
        made.PixelData = rgb.tobytes()
    made["PixelData"].VR = "OB"


def _copy_what_stays_true(source: Dataset, made: Dataset) -> None:
    """Take over what holds of every picture made from the source. Text that names the patient stays in the picture."""
    copy_compression(source, made)
    if (burned_in := text(source, "BurnedInAnnotation")) in ("YES", "NO"):
        made.BurnedInAnnotation = burned_in
    if text(source, "BodyPartExamined") == "CHEST":
        made.BodyPartExamined = "CHEST"
