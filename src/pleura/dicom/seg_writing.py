"""The mask as a DICOM segmentation: one segment, one frame, on the grid of the radiograph.

Source: DICOM PS3.3 A.51 (Segmentation IOD), C.8.20.2 (Segmentation Image), C.7.6.16 (functional groups), C.7.6.17
(dimensions); PS3.5 8.1.1 (packed bits).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydicom.dataset import Dataset
from pydicom.valuerep import format_number_as_ds

from pleura.dicom.header import SPACING_ORIGINS, patient_orientation, pixel_spacing_mm, spacing_origin
from pleura.dicom.instance import Kind, code, date_and_time, new_instance
from pleura.dicom.parse import collect_warnings
from pleura.dicom.results import Result
from pleura.dicom.seg_reading import SEGMENTATION_STORAGE
from pleura.dicom.source import copy_compression, reference_to, series_reference_to
from pleura.errors import InputError

SegType = Literal["binary", "occupancy", "fractional"]
SEG_TYPES: tuple[SegType, ...] = ("binary", "occupancy", "fractional")
KIND = Kind("seg", SEGMENTATION_STORAGE, "SEG", 9701, "Pneumothorax, outlined")
LABEL = "Pneumothorax"
PNEUMOTHORAX = ("36118008", "SCT", "Pneumothorax")
SIDES = {
    "R": ("24028007", "SCT", "Right"),
    "L": ("7771000", "SCT", "Left"),
    "B": ("51440002", "SCT", "Right and left"),
}
"""Side of the patient -> its code. Source: DICOM PS3.16 CID 244 (Laterality)."""
PLEURA = ("3120008", "SCT", "Pleura")
_FULL = 255
# Row to the right and column downwards in the image itself: a radiograph has no place in the patient, and no frame of
# reference says that this is one. Viewers made with cornerstone throw at a segmentation without it.
_IN_IMAGE = [1, 0, 0, 0, 1, 0]


@collect_warnings()  # of values that the source has, and that are copied as they are
def segmentation(result: Result, seg_type: SegType = "binary") -> Dataset:
    """Return the segmentation of a result.

    seg_type: `binary`, the mask, in bits; `occupancy`, the mask, in bytes of 0 and 255; or `fractional`, the
    probability of each pixel in 1/255, whatever the decision rule. An empty mask is one empty frame, so that an archive
    can tell it from a radiograph that was never looked at.

    Raises: InputError for another seg_type, or where the radiograph lacks what an archive files it by.
    """
    if seg_type not in SEG_TYPES:
        raise InputError(f"a segmentation is {', '.join(SEG_TYPES)}, not {seg_type!r:.40}")
    made = new_instance(result, KIND, seg_type)
    made.ContentDate, made.ContentTime = date_and_time(result)
    made.ContentLabel, made.ContentDescription, made.ContentCreatorName = "PNEUMOTHORAX", LABEL, None
    _add_pixels(made, result, seg_type)
    made.SegmentsOverlap = "NO"
    made.SegmentSequence = [_segment(result, seg_type)]
    made.ReferencedSeriesSequence = [series_reference_to(result.source)]
    _add_dimension(made, result)
    made.SharedFunctionalGroupsSequence = [_shared_group(result.source)]
    made.PerFrameFunctionalGroupsSequence = [_frame_group(result.source)]
    return made


def _add_pixels(made: Dataset, result: Result, seg_type: SegType) -> None:
    source = result.source
    made.ImageType = ["DERIVED", "PRIMARY"]
    made.PatientOrientation = list(patient_orientation(source) or ())
    made.Rows, made.Columns = result.mask.shape
    made.NumberOfFrames, made.SamplesPerPixel, made.PhotometricInterpretation = 1, 1, "MONOCHROME2"
    made.PixelRepresentation, made.LossyImageCompression = 0, "00"
    copy_compression(source, made)
    made.SegmentationType = "BINARY" if seg_type == "binary" else "FRACTIONAL"
    if seg_type == "binary":
        made.BitsAllocated, made.BitsStored, made.HighBit = 1, 1, 0
        # The first pixel is the lowest bit, and no row or frame begins a byte of its own.
        content = np.packbits(result.mask.ravel(), bitorder="little").tobytes()
    else:
        made.BitsAllocated, made.BitsStored, made.HighBit = 8, 8, 7
        made.SegmentationFractionalType = "OCCUPANCY" if seg_type == "occupancy" else "PROBABILITY"
        made.MaximumFractionalValue = _FULL
        shares = result.mask if seg_type == "occupancy" else result.probabilities
        content = np.rint(shares * np.float32(_FULL)).astype(np.uint8).tobytes()
    made.PixelData = content + b"\0" * (len(content) % 2)
    made["PixelData"].VR = "OB"


def _segment(result: Result, seg_type: SegType) -> Dataset:
    """Return what the one segment is. Source: DICOM PS3.3 C.8.20.4 (Segment Description), 10.16 (algorithm)."""
    item, algorithm = Dataset(), result.algorithm
    item.SegmentNumber, item.SegmentLabel = 1, LABEL
    words = [result.found]
    if seg_type == "fractional":
        words.append("Probability of each pixel; the decision rule is among the algorithm's parameters")
    if origin := spacing_origin(result.source):
        words.append(SPACING_ORIGINS[origin])
    item.SegmentDescription = ". ".join(words)
    item.SegmentAlgorithmType, item.SegmentAlgorithmName = "AUTOMATIC", algorithm.name[:64]
    item.SegmentedPropertyCategoryCodeSequence = [code("49755003", "SCT", "Morphologically Abnormal Structure")]
    item.SegmentedPropertyTypeCodeSequence = [code(*PNEUMOTHORAX)]
    region = code(*PLEURA)
    if result.laterality:
        region.AnatomicRegionModifierSequence = [code(*SIDES[result.laterality])]
    item.AnatomicRegionSequence = [region]
    family = Dataset()
    family.AlgorithmFamilyCodeSequence = [code("123110", "DCM", "Artificial Intelligence")]
    family.AlgorithmName, family.AlgorithmVersion = algorithm.name[:64], algorithm.version
    family.AlgorithmParameters = "; ".join(algorithm.parameters())
    item.SegmentationAlgorithmIdentificationSequence = [family]
    return item


def _add_dimension(made: Dataset, result: Result) -> None:
    """Say that frames are told apart by their segment. Source: DICOM PS3.3 C.7.6.17."""
    organization, index = Dataset(), Dataset()
    organization.DimensionOrganizationUID = result.uid("dimension", KIND.word)
    index.DimensionOrganizationUID = organization.DimensionOrganizationUID
    index.DimensionIndexPointer, index.FunctionalGroupPointer = 0x0062000B, 0x0062000A
    index.DimensionDescriptionLabel = "Segment"
    made.DimensionOrganizationSequence, made.DimensionIndexSequence = [organization], [index]


def _shared_group(source: Dataset) -> Dataset:
    group, orientation = Dataset(), Dataset()
    orientation.ImageOrientationPatient = _IN_IMAGE
    group.PlaneOrientationSequence = [orientation]
    if spacing := pixel_spacing_mm(source):
        measures = Dataset()
        measures.PixelSpacing = [format_number_as_ds(one) for one in spacing]
        # A projection has none; readers of segmentations refuse pixel measures without it.
        measures.SliceThickness = 1
        group.PixelMeasuresSequence = [measures]
    return group


def _frame_group(source: Dataset) -> Dataset:
    """Return what the frame is of.

    Its segment could be said once for all frames. Weasis looks for it in each frame, and shows nothing without.
    Source: DICOM PS3.3 C.7.6.16.2.2 (Frame Content), C.7.6.16.2.6 (derivation), C.8.20.3.1 (Segment Identification).
    """
    group, content, derivation, segment = Dataset(), Dataset(), Dataset(), Dataset()
    content.DimensionIndexValues = [1]
    image = reference_to(source)
    image.SpatialLocationsPreserved = "YES"
    image.PurposeOfReferenceCodeSequence = [code("121322", "DCM", "Source image for image processing operation")]
    derivation.SourceImageSequence = [image]
    derivation.DerivationCodeSequence = [code("113076", "DCM", "Segmentation")]
    segment.ReferencedSegmentNumber = 1
    group.FrameContentSequence, group.DerivationImageSequence = [content], [derivation]
    group.SegmentIdentificationSequence = [segment]
    return group
