"""What becomes of a mutant: refused in one line, or read, and then with the pixels that another decoder finds."""

from __future__ import annotations

import io
import os
import resource
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
from pydicom import uid
from pydicom.encaps import generate_frames

from pleura.data.radiograph import read_radiograph
from pleura.dicom.grayscale import tones_of
from pleura.dicom.read import Radiograph
from pleura.errors import InputError, PleuraError

MAX_LINE = 600


@dataclass(frozen=True)
class Outcome:
    """Of one mutant."""

    number: int
    what: str
    fault: str
    """What is wrong with how it was taken; empty if nothing."""
    read: bool
    cpu_s: float
    peak_mib: int
    """Of the whole process up to here."""


def judge(number: int, what: str, content: bytes, path: Path) -> Outcome:
    """Read a mutant from `path`, which is written for it."""
    path.write_bytes(content)
    before = time.process_time()
    fault, image = "", None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            radiograph = read_radiograph(path, with_grey=True)
            image = radiograph.image
    except InputError as error:
        fault = _fault_of_message(str(error))
    except PleuraError as error:
        fault = f"refused with a {type(error).__name__}: {error}"
    except Exception as error:  # noqa: BLE001  (any other is the fault that is looked for)
        fault = f"{type(error).__name__}: {error}"
    seconds = time.process_time() - before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    if image is not None:
        fault = _fault_of_image(image, radiograph.shape, content) or _fault_of_grey(radiograph)
    return Outcome(number, what, fault, image is not None, seconds, peak)


def _fault_of_message(message: str) -> str:
    if "\n" in message or len(message) > MAX_LINE:
        return f"a message of {len(message)} characters, or of several lines: {message[:200]!r}"
    return ""


def _fault_of_image(image: np.ndarray, shape: tuple[int, int], content: bytes) -> str:
    if not np.isfinite(image).all() or image.min() < 0 or image.max() > 1 or image.dtype != np.float32:
        return f"an image of {image.dtype} from {image.min()} to {image.max()}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = _picture(content) if content[:4] in (b"\x89PNG", b"\xff\xd8\xff\xe0") else _shown(content)
    except Exception as error:  # noqa: BLE001  (whatever the other decoder raises)
        return f"read, although another decoder refuses it ({type(error).__name__}: {str(error)[:150]})"
    if expected.shape != shape:
        return f"read as {shape}, another decoder has {expected.shape}"
    if shape != image.shape:
        return ""  # its pixels are not square, and were made so
    difference = float(np.abs(expected - image).max())
    # Two JPEG decoders may differ by a level or two of 255 in the inverse cosine transform.
    return f"read, but other pixels than another decoder's (by {difference:.3f})" if difference > 0.02 else ""


def _fault_of_grey(radiograph: Radiograph) -> str:
    """What a viewer would show, where it is other than the image."""
    grey = radiograph.grey
    if grey is None or grey.values.shape != radiograph.shape or not grey.width > 0:
        return "read without grey values, or a window for them"
    place = np.clip((grey.values.astype(np.float64) - grey.center) / grey.width + 0.5, 0, 1)
    shown = place if grey.curve is None else np.interp(place, np.linspace(0, 1, grey.curve.size), grey.curve / 255)
    if grey.values.shape != radiograph.image.shape:
        return ""  # its pixels are not square
    # Padding is black in the image, and the least grey value here.
    difference = np.abs(shown - radiograph.image)[(grey.values > 0) & (radiograph.image > 0)]
    return (
        f"a viewer shows other pixels (by {difference.max():.3f})"
        if difference.size and difference.max() > 0.01
        else ""
    )


def _picture(content: bytes) -> np.ndarray:
    if content[:4] == b"\x89PNG":
        values = imagecodecs.png_decode(content)
        if values.ndim == 3:
            values = values[..., 0]
        bits = 8 if values.dtype == np.uint8 else next(bits for bits in (8, 10, 12, 14, 16) if values.max() < 2**bits)
        return values.astype(np.float32) / np.float32(2**bits - 1)
    values = imagecodecs.jpeg8_decode(content)
    return (values if values.ndim == 2 else values[..., 1]).astype(np.float32) / np.float32(255)


def _shown(content: bytes) -> np.ndarray:
    """The pixels by another decoder, shown by pleura's own rule for grey values, which has tests of its own."""
    dataset = pydicom.dcmread(io.BytesIO(content), force=True)
    # Without a transfer syntax a file can only be uncompressed, and whether it names its VRs shows.
    syntax = dataset.file_meta.TransferSyntaxUID = dataset.file_meta.get(
        "TransferSyntaxUID", uid.ExplicitVRLittleEndian
    )
    if syntax.is_encapsulated:
        frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
        values = _decoded(frame, syntax, dataset)
    else:
        order = ">" if syntax == uid.ExplicitVRBigEndian else "<"
        kind = np.dtype(f"{order}u{int(dataset.BitsAllocated) // 8}")
        count = int(dataset.Rows) * int(dataset.Columns)
        values = np.frombuffer(dataset.PixelData, dtype=kind, count=count)
    pixels = values.reshape(int(dataset.Rows), int(dataset.Columns))
    offsets, tones = tones_of(_stored(pixels.astype(np.int32), dataset, syntax), dataset)
    return tones.shown.astype(np.float32)[offsets]


def _stored(words: np.ndarray, dataset: pydicom.Dataset, syntax: str) -> np.ndarray:
    """The Bits Stored of each word, signed or not; what a lossy codec overshoots is the end of the range."""
    bits, signed = int(dataset.BitsStored), int(dataset.PixelRepresentation)
    half = 2 ** (bits - 1)
    if syntax == uid.JPEG2000:  # signed values in a codestream of unsigned ones are the same bits
        words = np.clip(words, *((-half, half - 1) if words.min() < 0 else (0, 2**bits - 1)))
    values = words & (2**bits - 1)
    return np.where(values >= half, values - 2**bits, values) if signed else values


def _decoded(frame: bytes, syntax: str, dataset: pydicom.Dataset) -> np.ndarray:
    if syntax == uid.RLELossless:
        return _rle(frame, int(dataset.Rows) * int(dataset.Columns), int(dataset.BitsAllocated) // 8)
    if syntax == uid.JPEGBaseline8Bit:
        return imagecodecs.jpeg8_decode(frame)
    if syntax in (uid.JPEGLossless, uid.JPEGLosslessSV1):
        return imagecodecs.ljpeg_decode(frame)
    if syntax in (uid.JPEGLSLossless, uid.JPEGLSNearLossless):
        return imagecodecs.jpegls_decode(frame)
    return imagecodecs.jpeg2k_decode(frame)


def _rle(frame: bytes, count: int, planes: int) -> np.ndarray:
    offsets = np.frombuffer(frame, "<u4", 16)
    ends = [*offsets[2 : planes + 1], len(frame)]
    parts = [
        imagecodecs.packbits_decode(frame[start:end]) for start, end in zip(offsets[1 : planes + 1], ends, strict=True)
    ]
    stacked = np.stack([np.frombuffer(part[:count], np.uint8) for part in parts[::-1]], axis=1)
    return np.ascontiguousarray(stacked).view(f"<u{planes}")[:, 0]


def judged(seeds: dict[str, bytes], numbers: range, folder: str) -> list[Outcome]:
    """The outcomes of mutants, read one after the other in this process."""
    from mutants import mutant

    path = Path(folder) / f"mutant-{os.getpid()}"
    return [judge(number, *mutant(seeds, number), path) for number in numbers]
