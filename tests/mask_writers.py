"""Masks as other tools would write them, for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.pixels import pack_bits

from pleura.data import rle
from pleura.dicom.seg_reading import LABEL_MAP_STORAGE, SEGMENTATION_STORAGE

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


def write_kind(
    path: Path,
    masks: Mapping[tuple[str, int], np.ndarray],
    kind: str,
    omit_empty: bool = False,
    images: Sequence[str] = (),
    full: int = 255,
    background: int | None = 0,
) -> Path:
    """Write a segmentation as a viewer would: (SOP Instance UID, segment number) -> values in [0, 1] of one shape.

    The first segment is coded pneumothorax, and the others lung. images: further ones that are referenced. full: the
    Maximum Fractional Value. background: of a label map; None for one that does not say it.
    """
    path.parent.mkdir(exist_ok=True)
    numbers = sorted({number for _, number in masks})
    shown = {key: mask for key, mask in masks.items() if mask.any() or not omit_empty}
    if kind == "LABELMAP":
        whole = {image: sum(n * (masks[image, n] > 0) for n in numbers if (image, n) in masks) for image, _ in shown}
        frames = {(image, 0): np.where(labels, labels, background or 0) for image, labels in whole.items()}
    else:
        frames = dict(shown)
    write_seg(
        path, {str(number): (mask > 0).astype(np.uint8) for number, mask in enumerate(frames.values())}, kind=kind
    )
    dataset = pydicom.dcmread(path)
    if kind != "BINARY":
        values = np.stack(list(frames.values())) * (1 if kind == "LABELMAP" else full)
        pixels = np.rint(values).astype("<u1" if numbers[-1] < 256 else "<u2")
        dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.itemsize
        dataset.HighBit = dataset.BitsStored - 1
        dataset.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
        dataset["PixelData"].VR = "OW"
    if kind == "FRACTIONAL":
        dataset.SegmentationFractionalType, dataset.MaximumFractionalValue = "PROBABILITY", full
    if kind == "LABELMAP":
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = LABEL_MAP_STORAGE
        if background is not None:
            dataset.add_new("PixelPaddingValue", "US", background)
    dataset.SegmentSequence = [_segment(number, number == numbers[0]) for number in numbers]
    if kind == "LABELMAP":
        dataset.SegmentSequence.insert(0, _segment(background or 0, False))
    series = pydicom.Dataset()
    series.ReferencedInstanceSequence = []
    for image in dict.fromkeys((*(image for image, _ in masks), *images)):
        reference = pydicom.Dataset()
        reference.ReferencedSOPInstanceUID = image
        series.ReferencedInstanceSequence.append(reference)
    dataset.ReferencedSeriesSequence = [series]
    for group, (image, number) in zip(dataset.PerFrameFunctionalGroupsSequence, frames, strict=True):
        group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID = image
        if kind != "LABELMAP":
            group.SegmentIdentificationSequence = [pydicom.Dataset()]
            group.SegmentIdentificationSequence[0].ReferencedSegmentNumber = number
    dataset.save_as(path, enforce_file_format=True)
    return path


def _segment(number: int, is_pneumothorax: bool) -> pydicom.Dataset:
    segment, code = pydicom.Dataset(), pydicom.Dataset()
    segment.SegmentNumber, segment.SegmentLabel, segment.SegmentAlgorithmType = number, f"S{number}", "MANUAL"
    code.CodingSchemeDesignator = "SCT"
    code.CodeValue, code.CodeMeaning = ("36118008", "Neumotorax") if is_pneumothorax else ("39607008", "Lung")
    segment.SegmentedPropertyTypeCodeSequence = [code]
    return segment
