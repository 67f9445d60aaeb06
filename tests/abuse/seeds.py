"""Radiographs to damage: one small phantom in every form that pleura reads, as the bytes of a file."""

from __future__ import annotations

import io
import warnings
from functools import cache

import imagecodecs
import numpy as np
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate

from pleura.data.phantoms.radiographs import make_phantom

SIZE_PX = 64
NATIVE = (uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian)
COMPRESSED = (
    *(uid.JPEGBaseline8Bit, uid.JPEGLosslessSV1, uid.JPEGLSLossless, uid.JPEG2000Lossless, uid.JPEG2000),
    uid.RLELossless,
)


@cache
def _density() -> np.ndarray:
    return make_phantom(5, SIZE_PX).image


def stored_values(bits: int, signed: bool) -> np.ndarray:
    """The phantom as stored values of `bits` bits, (64, 64) of the smallest integer type."""
    kind = np.dtype(f"{'i' if signed else 'u'}{1 if bits <= 8 else 2}")
    half = 2 ** (bits - 1) if signed else 0
    return (np.rint(_density() * (2**bits - 1)) - half).astype(kind)


def dicom(syntax: str, bits: int = 8, signed: bool = False) -> bytes:
    """The phantom as a DICOM file of a transfer syntax."""
    stored = stored_values(bits, signed)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.UID(syntax)
    dataset.SOPClassUID = uid.DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID, dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3.4", "1.2.3", "1.2.3.5"
    dataset.PatientID, dataset.PatientSex, dataset.PatientAge = "phantom", "O", "050Y"
    dataset.Modality, dataset.BodyPartExamined, dataset.ViewPosition = "DX", "CHEST", "PA"
    dataset.PixelSpacing = [0.5, 0.5]
    dataset.WindowCenter, dataset.WindowWidth = (0 if signed else 2 ** (bits - 1)), 2**bits
    dataset.Rows = dataset.Columns = SIZE_PX
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8 * stored.dtype.itemsize, bits, bits - 1
    dataset.PixelRepresentation = int(signed)
    pixels, compressed = _pixels(stored, syntax, bits)
    dataset.PixelData = pixels
    dataset["PixelData"].VR = "OB" if compressed or bits <= 8 else "OW"
    dataset["PixelData"].is_undefined_length = compressed
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def _pixels(stored: np.ndarray, syntax: str, bits: int) -> tuple[bytes, bool]:
    if syntax in NATIVE:
        order = ">" if syntax == uid.ExplicitVRBigEndian else "<"
        return stored.astype(stored.dtype.newbyteorder(order)).tobytes(), False
    if syntax == uid.RLELossless:
        return encapsulate([_rle(stored)]), True
    if syntax == uid.JPEGBaseline8Bit:
        file = io.BytesIO()
        Image.fromarray(stored).save(file, "JPEG", quality=90)
        return encapsulate([file.getvalue()]), True
    if syntax in (uid.JPEG2000Lossless, uid.JPEG2000):
        level = 0 if syntax == uid.JPEG2000Lossless else 40
        stream = imagecodecs.jpeg2k_encode(stored, level=level, codecformat="J2K", bitspersample=bits)
        return encapsulate([stream]), True
    encode = imagecodecs.jpegls_encode if syntax == uid.JPEGLSLossless else imagecodecs.ljpeg_encode
    return encapsulate([encode(stored)]), True


def _rle(stored: np.ndarray) -> bytes:
    """Runs and literals of each byte plane, the most significant first. Source: DICOM PS3.5 G."""
    planes = stored.view(np.uint8).reshape(*stored.shape, stored.dtype.itemsize)[..., ::-1]
    segments = []
    for plane in np.moveaxis(planes, -1, 0):
        rows = [
            bytes([127]) + row.tobytes()[:128] if row.size >= 128 else bytes([row.size - 1]) + row.tobytes()
            for row in plane
        ]
        segment = b"".join(rows)
        segments.append(segment + b"\0" * (len(segment) % 2))
    offsets, at = [], 64
    for segment in segments:
        offsets.append(at)
        at += len(segment)
    header = np.array([len(segments), *offsets, *[0] * (15 - len(offsets))], dtype="<u4")
    return header.tobytes() + b"".join(segments)


def picture(name: str) -> bytes:
    """The phantom as a picture: png8, png16, jpeg."""
    file = io.BytesIO()
    if name == "jpeg":
        Image.fromarray(stored_values(8, False)).save(file, "JPEG", quality=90)
    else:
        Image.fromarray(stored_values(8 if name == "png8" else 12, False)).save(file, "PNG")
    return file.getvalue()


@cache
def seeds() -> dict[str, bytes]:
    """Name -> the bytes of an undamaged file."""
    made = {f"{uid.UID(syntax).keyword}-{bits}": dicom(syntax, bits) for syntax in NATIVE for bits in (8, 12)}
    made |= {"ExplicitVRLittleEndian-12-signed": dicom(uid.ExplicitVRLittleEndian, 12, signed=True)}
    for syntax in COMPRESSED:
        for bits in (8,) if syntax == uid.JPEGBaseline8Bit else (8, 12):
            made[f"{uid.UID(syntax).keyword}-{bits}"] = dicom(syntax, bits)
    return made | {name: picture(name) for name in ("png8", "png16", "jpeg")}
