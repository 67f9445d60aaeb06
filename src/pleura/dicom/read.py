"""DICOM in: one radiograph as the grey values a radiologist would see, with what the header says about it.

Only what the file states is passed on: an empty, missing or impossible attribute becomes None, and a file that
does not hold exactly one greyscale radiograph is refused.
"""

from __future__ import annotations

import os
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.errors import BytesLengthException, InvalidDicomError

from pleura.dicom.frontal import not_frontal_chest
from pleura.dicom.grey import render
from pleura.dicom.header import age_years, integer, pixel_spacing_mm, sex, text
from pleura.errors import InputError

RADIOGRAPH_SUFFIXES = (".dcm", ".dicom", ".png", ".jpg", ".jpeg")
# The largest detectors have under 20 million pixels: what claims far more is damaged, or a decompression bomb.
MAX_SIDE_PX = 20_000
MAX_PIXELS = 150_000_000

# What pydicom and its decoders raise on damaged files; any other exception is a bug and stays visible.
_DAMAGE: tuple[type[Exception], ...] = (
    *(ArithmeticError, AttributeError, EOFError, ImportError, LookupError, MemoryError, OSError, RuntimeError),
    *(SyntaxError, TypeError, ValueError, BytesLengthException, InvalidDicomError, struct.error, zlib.error),
)

# One decoder each: after a failure pydicom would try the next, and GDCM fills what a cut frame lacks with grey.
_DECODERS: dict[str, str] = {
    **dict.fromkeys([uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, *uid.JPEG2000TransferSyntaxes], "pillow"),
    **dict.fromkeys([uid.JPEGLossless, uid.JPEGLosslessSV1, *uid.JPEGLSTransferSyntaxes], "gdcm"),
    uid.RLELossless: "pydicom",
}

# Lossless (SOF3) and JPEG-LS (SOF55), what the transfer syntaxes that GDCM decodes allow; and what may surround them.
_START_OF_FRAME, _START_OF_SCAN = (0xC3, 0xF7), 0xDA
_JPEG_MARKERS = {*_START_OF_FRAME, _START_OF_SCAN, 0xC4, 0xDB, 0xDD, *range(0xE0, 0xF0), 0xF8, 0xFE}

_warnings_lock = threading.Lock()


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
            dataset = _parse(path, caught)
            _refuse_unless_one_grey_image(dataset)
            image = render(_decode(dataset), dataset)
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
                notes=not_frontal_chest(dataset),
            )
    except InputError as error:
        # A reason may quote the file, and with it a line break.
        raise InputError(f"cannot read {path}: {' '.join(str(error).split())}") from error
    except _DAMAGE as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise InputError(f"cannot read {path}: damaged or not standard DICOM ({reason}); export it again") from error


@contextmanager
def collect_warnings() -> Iterator[list[warnings.WarningMessage]]:
    """Collect what pydicom and Pillow warn about, so that none of it reaches the user.

    The list of filters is global, and two threads that each save and restore it can leave it changed: hence the lock.
    """
    with _warnings_lock, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield caught


def _parse(path: Path, caught: list[warnings.WarningMessage]) -> Dataset:
    """Return the dataset of `path`; one without preamble only where it plainly is a DICOM image.

    Raises: InputError; any of `_DAMAGE`. Source: DICOM PS3.10 7.1.
    """
    try:
        with path.open("rb") as file:
            head = file.read(132)
    except OSError as error:
        raise InputError(f"{(error.strerror or str(error)).lower()}; check the path") from error
    if not head:
        raise InputError("the file is empty; copy or export it again")
    has_preamble = head[128:132] == b"DICM"
    if not has_preamble and head[:2] not in (b"\x02\x00", b"\x08\x00"):
        raise InputError("not a DICOM file; give a DICOM, PNG or JPEG radiograph")
    dataset = pydicom.dcmread(path, force=not has_preamble)
    if any("nd of file" in str(warning.message) for warning in caught):
        raise InputError("the file is truncated; copy or export it again")
    if not has_preamble and not ("SOPClassUID" in dataset and "PixelData" in dataset):
        raise InputError("not a DICOM file, or cut short; give a DICOM, PNG or JPEG radiograph")
    if "PixelData" not in dataset:
        raise InputError("it holds no pixel data (a report, a directory, or cut short); give a radiograph")
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        explicit = uid.ExplicitVRLittleEndian if little else uid.ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian if implicit else explicit
    return dataset


def _refuse_unless_one_grey_image(dataset: Dataset) -> None:
    """Check the attributes that say how to read the pixels.

    Raises: InputError. Source: DICOM PS3.3 C.7.6.3.
    """
    frames = integer(dataset, "NumberOfFrames", 1)
    if frames > 1:
        raise InputError(f"it holds {frames} frames; export one radiograph per file")
    samples, photometric = integer(dataset, "SamplesPerPixel", 1), text(dataset, "PhotometricInterpretation")
    if samples != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        kind = f"{photometric or 'no photometric interpretation'}, {samples} sample(s) per pixel"
        raise InputError(f"not a greyscale image ({kind}); export the original radiograph")
    rows, columns = integer(dataset, "Rows", 0), integer(dataset, "Columns", 0)
    if min(rows, columns) < 1 or max(rows, columns) > MAX_SIDE_PX or rows * columns > MAX_PIXELS:
        raise InputError(f"{rows} x {columns} pixels is no radiograph's size; export it again")
    allocated, stored = integer(dataset, "BitsAllocated", 0), integer(dataset, "BitsStored", 0)
    high_bit = integer(dataset, "HighBit", stored - 1)
    if allocated not in (8, 16) or not 1 <= stored <= allocated or high_bit != stored - 1:
        bits = f"Bits Allocated {allocated}, Bits Stored {stored}, High Bit {high_bit}"
        raise InputError(f"its bits do not fit together ({bits}); export it again")
    if integer(dataset, "PixelRepresentation", 0) not in (0, 1):
        raise InputError("Pixel Representation is neither 0 nor 1; export it again")


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
    except _DAMAGE as error:
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
