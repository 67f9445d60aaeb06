"""Masks as other tools would write them, for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.pixels import pack_bits

from pleura.data import rle
from pleura.dicom.seg import SEGMENTATION_STORAGE

SIDE = 48


def some_masks(n: int = 12, side: int = SIDE, seed: int = 0) -> dict[str, np.ndarray]:
    """n masks of (side, side) that no flip or turn leaves as they are; every third is empty."""
    generator, masks = np.random.default_rng(seed), {}
    for number in range(n):
        mask = np.zeros((side, side), dtype=np.uint8)
        if number % 3:
            top, left = generator.integers(2, side // 6, size=2)
            mask[top : top + side // 2, left : left + side // 8] = 1
            mask[top + side // 3 : top + side // 2, left : left + side // 4] = 1
        masks[f"1.2.3.{number}"] = mask
    return masks


def write_csv(path: Path, masks: dict[str, np.ndarray], header: str = "ImageId, EncodedPixels") -> Path:
    """Write a csv of runs under any header."""
    rows = [f"{image_id},{rle.encode(mask)}" for image_id, mask in masks.items()]
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def write_pngs(folder: Path, masks: dict[str, np.ndarray], one: int = 255) -> Path:
    """Write ID.png files of 0 and `one`."""
    folder.mkdir()
    for image_id, mask in masks.items():
        Image.fromarray((mask * one).astype(np.uint8)).save(folder / f"{image_id}.png")
    return folder


def write_seg(path: Path, masks: dict[str, np.ndarray], named: bool = True, kind: str = "BINARY") -> Path:
    """Write one DICOM-SEG with a frame for each image; `named`: with the SOP Instance UIDs of the images."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = SEGMENTATION_STORAGE, "1.2.9.9"
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.Modality = SEGMENTATION_STORAGE, "1.2.9.9", "SEG"
    dataset.SegmentationType, dataset.SamplesPerPixel, dataset.PhotometricInterpretation = kind, 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 1, 1, 0, 0
    frames = np.stack(list(masks.values()))
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = frames.shape
    dataset.PixelData = pack_bits(frames.reshape(-1))
    groups = []
    for image_id in masks if named else ():
        image, derivation, group = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
        image.ReferencedSOPInstanceUID = image_id
        derivation.SourceImageSequence, group.DerivationImageSequence = [image], [derivation]
        groups.append(group)
    if groups:
        dataset.PerFrameFunctionalGroupsSequence = groups
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_segments(
    path: Path, named: list[tuple[str, np.ndarray, str]], kind: str = "BINARY", storage: str = SEGMENTATION_STORAGE
) -> Path:
    """Write one DICOM-SEG with a frame for each (label, mask, SOP Instance UID); equal labels are one segment."""
    write_seg(path, {str(number): mask for number, (_, mask, _) in enumerate(named)}, kind=kind)
    dataset = pydicom.dcmread(path)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = storage
    keys = [label or f"unlabelled {number}" for number, (label, _, _) in enumerate(named)]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys), 1)}
    segments = []
    for key, number in numbers.items():
        segment = pydicom.Dataset()
        segment.SegmentNumber, segment.SegmentLabel = number, "" if key.startswith("unlabelled") else key
        segment.SegmentAlgorithmType = "AUTOMATIC"
        segments.append(segment)
    dataset.SegmentSequence = segments
    for group, key, (_, _, image) in zip(dataset.PerFrameFunctionalGroupsSequence, keys, named, strict=True):
        identification = pydicom.Dataset()
        identification.ReferencedSegmentNumber = numbers[key]
        group.SegmentIdentificationSequence = [identification]
        group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID = image
    dataset.save_as(path, enforce_file_format=True)
    return path
