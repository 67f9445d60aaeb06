"""DICOM segmentations that other tools wrote: which images they outline, and the masks.

Source: DICOM PS3.3 A.51 (Segmentation IOD), C.8.20.2 (Segmentation Image), C.7.6.16.2.6 (Derivation Image).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError

from pleura.dicom.header import integer, text
from pleura.dicom.parse import collect_warnings
from pleura.errors import InputError, excerpt

SEGMENTATION_STORAGE = "1.2.840.10008.5.1.4.1.1.66.4"
_DAMAGE: tuple[type[Exception], ...] = (
    *(ArithmeticError, AttributeError, EOFError, LookupError, NotImplementedError, OSError, RuntimeError),
    *(TypeError, ValueError, BytesLengthException, InvalidDicomError, struct.error),
)


@dataclass(frozen=True)
class Segmentation:
    """What the header of one segmentation says."""

    path: Path
    frames: dict[str, tuple[int, ...]]
    """SOP Instance UID of an outlined image -> its frames, from 0. Without any UID: one entry, named ``."""


def read_segmentation(path: Path) -> Segmentation:
    """Which images a binary DICOM segmentation outlines; its pixels stay on disk.

    A frame belongs to the source image of its own derivation, or else to the file's one referenced image.
    Raises: InputError if the file is damaged, no segmentation, or not binary.
    """
    with collect_warnings():
        try:
            dataset = pydicom.dcmread(path, stop_before_pixels=True)
            _refuse_unless_binary(dataset)
            return Segmentation(path, _frames_by_image(dataset))
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        except _DAMAGE as error:
            raise InputError(f"{path}: {_damaged(error)}") from error


def segmentation_pixels(path: Path) -> NDArray[np.uint8]:
    """The frames of a binary DICOM segmentation, (n, rows, columns) uint8 in {0, 1}.

    Raises: InputError if the file is damaged.
    """
    with collect_warnings():
        try:
            dataset = pydicom.dcmread(path)
            pixels = np.asarray(dataset.pixel_array)
            rows, columns = integer(dataset, "Rows", 0), integer(dataset, "Columns", 0)
            frames: NDArray[np.uint8] = (pixels.reshape(-1, rows, columns) != 0).astype(np.uint8)
            return frames
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        except _DAMAGE as error:
            raise InputError(f"{path}: {_damaged(error)}") from error


def _refuse_unless_binary(dataset: Dataset) -> None:
    if text(dataset, "SOPClassUID") != SEGMENTATION_STORAGE:
        raise InputError("is a DICOM file, but no segmentation; give DICOM-SEG files, mask PNGs or a SIIM csv")
    kind = text(dataset, "SegmentationType")
    if kind != "BINARY":
        raise InputError(
            f"its segmentation is {excerpt(kind or 'of no type')}, not BINARY; threshold and export it again"
        )


def _frames_by_image(dataset: Dataset) -> dict[str, tuple[int, ...]]:
    of_file = [
        str(instance.ReferencedSOPInstanceUID)
        for series in dataset.get("ReferencedSeriesSequence") or ()
        for instance in series.get("ReferencedInstanceSequence") or ()
    ]
    only = of_file[0] if len(set(of_file)) == 1 else ""
    groups = list(dataset.get("PerFrameFunctionalGroupsSequence") or ())
    shared = [uid for group in dataset.get("SharedFunctionalGroupsSequence") or () for uid in _sources(group)]
    found: dict[str, list[int]] = {}
    for frame in range(integer(dataset, "NumberOfFrames", 1)):
        own = _sources(groups[frame]) if frame < len(groups) else []
        for uid in own or shared or [only]:
            found.setdefault(uid, []).append(frame)
    return {uid: tuple(frames) for uid, frames in found.items()}


def _sources(group: Dataset) -> list[str]:
    return [
        str(image.ReferencedSOPInstanceUID)
        for derivation in group.get("DerivationImageSequence") or ()
        for image in derivation.get("SourceImageSequence") or ()
    ]


def _damaged(error: Exception) -> str:
    reason = excerpt(error) or type(error).__name__
    return f"damaged or no DICOM-SEG ({reason}); export it again"
