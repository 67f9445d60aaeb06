"""The outline as a presentation state: lines over the radiograph itself, which a reader can switch off.

Source: DICOM PS3.3 A.33.1 (Grayscale Softcopy Presentation State IOD), C.10.4 (Displayed Area), C.10.5 (Graphic
Annotation), C.10.7 (Graphic Layer), C.11.1, C.11.8, C.11.6 (LUTs), C.11.10 and C.11.11 (identification, relationship).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pleura.dicom.grayscale import is_inverted, shown_window
from pleura.dicom.header import is_little_endian, items, number, signed_word, text, words
from pleura.dicom.instance import NOT_FOR_DIAGNOSIS, Kind, date_and_time, new_instance
from pleura.dicom.outline import outlines
from pleura.dicom.parse import collect_warnings
from pleura.dicom.results import Result
from pleura.dicom.source import aspect_ratio, reference_to

KIND = Kind("gsps", "1.2.840.10008.5.1.4.1.1.11.1", "PR", 9703, "Pneumothorax, outlined")
LAYER = "PLEURA"
MOST_POINTS = 8000
"""Of one line: the element of its points has 16 bits for its length, enough for 8191 of 8 bytes. PS3.5 7.1.2."""
_RED_LAB = (38181, 51269, 44895)
"""sRGB 255, 64, 64 as CIE L*a*b* (D50) in 16 bits. Source: PS3.3 C.10.7.1.1."""


@collect_warnings()  # of values that the source has, and that are copied as they are
def presentation_state(result: Result) -> Dataset:
    """Return lines along the edges of the mask's pixels, and the result in words, over the radiograph as it is shown.

    A line of more than `MOST_POINTS` comes in parts, each of which begins where the last one ends.
    Raises: InputError where the radiograph lacks what an archive files it by.
    """
    source = result.source
    made = new_instance(result, KIND)
    made.PresentationCreationDate, made.PresentationCreationTime = date_and_time(result)
    made.ContentLabel, made.ContentDescription, made.ContentCreatorName = "PNEUMOTHORAX", KIND.description, None
    laterality = text(source, "Laterality")
    made.Laterality = laterality if laterality in ("R", "L") else None
    series = Dataset()
    series.SeriesInstanceUID = source.SeriesInstanceUID
    series.ReferencedImageSequence = [reference_to(source)]
    made.ReferencedSeriesSequence = [series]
    made.DisplayedAreaSelectionSequence = [_displayed_area(result)]
    made.GraphicLayerSequence = [_layer()]
    made.GraphicAnnotationSequence = [_annotation(result)]
    _add_modality_lut(source, made)
    _add_voi_lut(source, made)
    made.PresentationLUTShape = "INVERSE" if is_inverted(source) else "IDENTITY"
    return made


def lines_of(mask: NDArray[np.uint8]) -> list[NDArray[np.int64]]:
    """Return the outlines of a mask, (n, 2) of (column, row) each, none with more than `MOST_POINTS` points."""
    return [
        line[first : first + MOST_POINTS]
        for line in outlines(mask)
        for first in range(0, len(line) - 1, MOST_POINTS - 1)
    ]


def _displayed_area(result: Result) -> Dataset:
    rows, columns = result.mask.shape
    area = Dataset()
    area.ReferencedImageSequence = [reference_to(result.source)]
    area.DisplayedAreaTopLeftHandCorner, area.DisplayedAreaBottomRightHandCorner = [1, 1], [columns, rows]
    area.PresentationSizeMode, area.PresentationPixelAspectRatio = "SCALE TO FIT", aspect_ratio(result.source)
    return area


def _layer() -> Dataset:
    layer = Dataset()
    layer.GraphicLayer, layer.GraphicLayerOrder, layer.GraphicLayerDescription = LAYER, 1, NOT_FOR_DIAGNOSIS
    layer.GraphicLayerRecommendedDisplayCIELabValue = list(_RED_LAB)
    return layer


def _annotation(result: Result) -> Dataset:
    annotation = Dataset()
    annotation.ReferencedImageSequence, annotation.GraphicLayer = [reference_to(result.source)], LAYER
    words_shown = Dataset()
    words_shown.BoundingBoxAnnotationUnits = "DISPLAY"
    words_shown.UnformattedTextValue = "\r\n".join((result.found, result.algorithm.name, NOT_FOR_DIAGNOSIS))
    words_shown.BoundingBoxTopLeftHandCorner, words_shown.BoundingBoxBottomRightHandCorner = [0.01, 0.01], [0.6, 0.1]
    words_shown.BoundingBoxTextHorizontalJustification = "LEFT"
    annotation.TextObjectSequence = [words_shown]
    if lines := [_polyline(line) for line in lines_of(result.mask)]:
        annotation.GraphicObjectSequence = lines
    return annotation


def _polyline(line: NDArray[np.int64]) -> Dataset:
    graphic = Dataset()
    graphic.GraphicAnnotationUnits, graphic.GraphicDimensions = "PIXEL", 2
    graphic.NumberOfGraphicPoints, graphic.GraphicData = len(line), line.astype(np.float32).ravel().tolist()
    graphic.GraphicType, graphic.GraphicFilled = "POLYLINE", "N"
    return graphic


def _add_modality_lut(source: Dataset, made: Dataset) -> None:
    """Take over the modality LUT or else the rescale: a presentation state replaces those of the image."""
    if tables := items(source, "ModalityLUTSequence")[:1]:
        made.ModalityLUTSequence = [_table(source, tables[0])]
        made.ModalityLUTSequence[0].ModalityLUTType = _unit(tables[0], "ModalityLUTType")
        return
    slope, intercept = number(source, "RescaleSlope"), number(source, "RescaleIntercept")
    if slope is not None or intercept is not None:
        made.RescaleSlope = f"{1.0 if slope is None else slope:.10g}"
        made.RescaleIntercept = f"{intercept or 0.0:.10g}"
        made.RescaleType = _unit(source, "RescaleType")


def _unit(dataset: Dataset, keyword: str) -> str:
    """Return what the modality transformation gives, or US for unspecified. Source: DICOM PS3.3 C.11.1.1.2."""
    found = text(dataset, keyword)
    return found if found in ("OD", "HU", "MGML", "PCT") else "US"


def _add_voi_lut(source: Dataset, made: Dataset) -> None:
    """Take over the first VOI LUT or else the first window, which are what `grayscale.tones_of` shows; none without."""
    shown = Dataset()
    if tables := items(source, "VOILUTSequence")[:1]:
        shown.VOILUTSequence = [_table(source, tables[0])]
    elif (window := shown_window(source)) is not None:
        shown.WindowCenter, shown.WindowWidth = (f"{value:.10g}" for value in window[:2])
        if window[2] != "LINEAR":
            shown.VOILUTFunction = window[2]
    else:
        return
    shown.ReferencedImageSequence = [reference_to(source)]
    made.SoftcopyVOILUTSequence = [shown]


def _table(source: Dataset, table: Dataset) -> Dataset:
    """Return a look-up table with its words in little endian, and a first input value with the sign that it had."""
    little = is_little_endian(source)
    entries, first, bits = words(table, "LUTDescriptor", little)
    vr = "SS" if table["LUTDescriptor"].VR == "SS" else "US"
    made = Dataset()
    values = [entries, first, bits]
    made.add_new("LUTDescriptor", vr, [signed_word(word) for word in values] if vr == "SS" else values)
    made.add_new("LUTData", "OW", np.array(words(table, "LUTData", little), dtype="<u2").tobytes())
    return made
