"""DICOM in: one radiograph as the grey values a radiologist would see, with what the header says about it.

Only what the file states is passed on: an empty, missing or impossible attribute becomes None, and a file that
does not hold exactly one greyscale radiograph is refused.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames

from pleura.dicom.frontal import not_frontal_chest
from pleura.dicom.grey import render
from pleura.dicom.header import age_years, pixel_spacing_mm, sex, text
from pleura.dicom.parse import DAMAGE, collect_warnings, open_dataset, refuse_unless_one_grey_image
from pleura.errors import InputError, excerpt

RADIOGRAPH_SUFFIXES = (".dcm", ".dicom", ".png", ".jpg", ".jpeg")

# One decoder each: after a failure pydicom would try the next, and GDCM fills what a cut frame lacks with grey.
_DECODERS: dict[str, str] = {
    **dict.fromkeys([uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, *uid.JPEG2000TransferSyntaxes], "pillow"),
    **dict.fromkeys([uid.JPEGLossless, uid.JPEGLosslessSV1, *uid.JPEGLSTransferSyntaxes], "gdcm"),
    uid.RLELossless: "pydicom",
}

# Lossless (SOF3) and JPEG-LS (SOF55), what the transfer syntaxes that GDCM decodes allow; and what may surround them.
_START_OF_FRAME, _START_OF_SCAN = (0xC3, 0xF7), 0xDA
_JPEG_MARKERS = {*_START_OF_FRAME, _START_OF_SCAN, 0xC4, 0xDB, 0xDD, *range(0xE0, 0xF0), 0xF8, 0xFE}


@dataclass(frozen=True, eq=False)
class Radiograph:
    """One radiograph and what its file says about it; None where the file says nothing.

    `image` is float32 (rows, columns) in [0, 1], bright = dense (MONOCHROME2). `image_id` is the file's name without
    its extension. `view` is View Position ("PA", "AP", ...), `sex` is "M", "F" or "O". `pixel_spacing_mm` is
    (between rows, between columns) in the patient as far as the file tells, else at the detector. `notes` are
    sentences, each without a full stop: what speaks against the result though the file could be read.
    Source: DICOM PS3.3 C.7.1.1, C.7.2.2, C.12.1, 10.7.
    """

    image: NDArray[np.float32]
    image_id: str
    patient_id: str | None = None
    view: str | None = None
    sex: str | None = None
    age_years: float | None = None
    pixel_spacing_mm: tuple[float, float] | None = None
    sop_instance_uid: str | None = None
    study_instance_uid: str | None = None
    series_instance_uid: str | None = None
    notes: tuple[str, ...] = ()


def image_id_of(path: Path | str) -> str:
    """Return the key of the radiograph in `path`: its name without a radiograph's extension.

    `Path.stem` would cut the last component off a file that is named by its UID alone.
    """
    path = Path(path)
    return path.stem if path.suffix.lower() in RADIOGRAPH_SUFFIXES else path.name


def read_dicom(path: Path | str) -> Radiograph:
    """Read the one greyscale radiograph of a DICOM file, shown as its header asks.

    Stored values pass the modality LUT, the first VOI LUT or else the first window, and the inversion of MONOCHROME1;
    padding is shown black. After a window or VOI LUT, 0 and 1 are the ends of its output range. Without one, they are
    the ends of the stored range for up to 8 bits (so that the image is value / 255, as in a PNG made from it), and the
    lowest and highest value present for more, because detectors fill an unknown part of their 10 to 16 bits.

    Raises: InputError, one line with the file, the reason and the way out.
    Source: DICOM PS3.3 C.7.6.3, C.7.5.1.1.2, C.11.1, C.11.2, C.11.6, C.8.11.3.
    """
    path = Path(path)
    try:
        with collect_warnings() as caught:
            dataset = open_dataset(path, caught)
            refuse_unless_one_grey_image(dataset)
            image, notes = render(_decode(dataset), dataset)
            return Radiograph(
                image=image,
                image_id=image_id_of(path),
                patient_id=text(dataset, "PatientID"),
                view=text(dataset, "ViewPosition"),
                sex=sex(dataset),
                age_years=age_years(dataset),
                pixel_spacing_mm=pixel_spacing_mm(dataset),
                sop_instance_uid=text(dataset, "SOPInstanceUID"),
                study_instance_uid=text(dataset, "StudyInstanceUID"),
                series_instance_uid=text(dataset, "SeriesInstanceUID"),
                notes=(*not_frontal_chest(dataset), *notes),
            )
    except InputError as error:
        # A reason may quote the file, and with it a line break.
        raise InputError(f"cannot read {path}: {' '.join(str(error).split())}") from error
    except DAMAGE as error:
        reason = excerpt(error) or type(error).__name__
        raise InputError(f"cannot read {path}: damaged or not standard DICOM ({reason}); export it again") from error


def _decode(dataset: Dataset) -> NDArray[np.int32]:
    """Return the stored values as int32 (rows, columns).

    Raises: InputError. Source: DICOM PS3.5 8.2, A.4.
    """
    syntax = uid.UID(dataset.file_meta.TransferSyntaxUID)
    if syntax.is_encapsulated and syntax not in _DECODERS:
        raise InputError(f"its compression, {syntax.name}, is not supported; convert it, as by GDCM's 'gdcmconv --raw'")
    expected = dataset.Rows * dataset.Columns * (dataset.BitsAllocated // 8)
    if not syntax.is_encapsulated and len(dataset.PixelData) < expected:
        found = len(dataset.PixelData)
        raise InputError(f"truncated, with {found} of {expected} bytes of pixels; copy or export it again")
    if syntax == uid.JPEGExtended12Bit and dataset.BitsStored > 8:
        # GDCM decodes these, and shows 4095 as 0 wherever the compression overshoots; Pillow does not.
        raise InputError("12-bit JPEG Extended is not supported; convert it, as by DCMTK's 'dcmdjpeg'")
    decoder = _DECODERS.get(syntax, "")
    dataset.pixel_array_options(decoding_plugin=decoder)
    try:
        if decoder == "gdcm":
            _refuse_unless_jpeg_fits(dataset)
        with _quiet_stderr() if decoder == "gdcm" else nullcontext():
            stored = dataset.pixel_array
    except DAMAGE as error:
        raise InputError(f"truncated or damaged, its {syntax.name} pixels do not decode; export it again") from error
    if stored.shape != (dataset.Rows, dataset.Columns):
        raise InputError(f"its pixels decode to the shape {stored.shape}; export it again")
    return stored.astype(np.int32)


def _refuse_unless_jpeg_fits(dataset: Dataset) -> None:
    """Check that the first frame is a JPEG with whole headers, which agree with the dataset.

    GDCM ends the whole process, and with it a batch or a service, on headers that make no sense.

    Raises: ValueError, struct.error or IndexError. Source: ITU-T T.81 B.1.1, B.2.2 (frame header); T.87 C.1.
    """
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    position, marker, header = 2, 0, (0, 0, 0, 0)
    while marker != _START_OF_SCAN:
        start, marker, length = struct.unpack_from(">BBH", frame, position)
        if start != 0xFF or marker not in _JPEG_MARKERS:
            raise ValueError("damaged between its headers")
        if marker in _START_OF_FRAME:
            header = struct.unpack_from(">BHHB", frame, position + 4)
        position += 2 + length
    precision, *shape = header
    if shape != [dataset.Rows, dataset.Columns, 1] or not 2 <= precision <= dataset.BitsAllocated:
        raise ValueError("its frame header disagrees with the dataset")


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Send what the JPEG library inside GDCM writes to file descriptor 2 to nowhere; the refusal says it in words."""
    try:
        kept = os.dup(2)
    except OSError:  # a service without a standard error has nothing to protect
        yield
        return
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
