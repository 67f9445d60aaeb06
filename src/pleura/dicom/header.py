"""Attributes of a DICOM header as plain Python values; None where one is missing or impossible."""

from __future__ import annotations

import math
import re
import struct
from typing import Any

import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence

from pleura.dicom.square_pixels import LARGEST_ASPECT, SAME_ASPECT
from pleura.errors import InputError

UNREADABLE: tuple[type[Exception], ...] = (
    *(ArithmeticError, AttributeError, LookupError, NotImplementedError, TypeError, ValueError),
    *(BytesLengthException, struct.error),
)
_NO_ONES_AGE_YEARS = 150
# The elements of detectors are 0.05 to 0.4 mm apart, and a chest is less than 100 of the largest of these distances.
_LEAST_SPACING_MM, _LARGEST_SPACING_MM = 0.01, 10.0
_SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
# A chest is magnified by some 10 %: a factor far above that is in other units.
_LARGEST_MAGNIFICATION = 10.0
SPACING_ORIGINS = {
    "GEOMETRY": "Pixel spacing calibrated by geometry",
    "FIDUCIAL": "Pixel spacing calibrated by an object of known size",
    "IMAGE": "Pixel spacing of the image, calibration not known",
    "MAGNIFICATION": "Pixel spacing corrected by the estimated magnification",
    "DETECTOR": "Pixel spacing at the detector, not corrected for magnification",
    "FILM": "Pixel spacing of the scanned film",
}
"""Where a pixel spacing was measured, in words of at most 64 characters."""
_UNITS_PER_YEAR = {"D": 365.25, "W": 365.25 / 7, "M": 12.0, "Y": 1.0, "": 1.0}


def text(dataset: Dataset, keyword: str) -> str | None:
    """Return a text attribute without its padding, or None where it is missing, empty or has several values."""
    value = value_of(dataset, keyword)
    return (str(value).strip(" \0") or None) if isinstance(value, str) else None


def texts(dataset: Dataset, keyword: str) -> list[str]:
    """Return the values of a text attribute that may have several, without those that are empty."""
    value = value_of(dataset, keyword)
    values = value if isinstance(value, list | MultiValue) else [value]
    return [stripped for one in values if isinstance(one, str) and (stripped := one.strip(" \0"))]


def items(dataset: Dataset, keyword: str) -> list[Dataset]:
    """Return the items of a sequence; none where it is missing, empty or no sequence."""
    value = value_of(dataset, keyword)
    return list(value) if isinstance(value, Sequence) else []


def value_of(dataset: Dataset, keyword: str) -> Any:
    """Return the value of an attribute; None where it is missing, or cannot be read."""
    try:
        return dataset.get(keyword)
    except UNREADABLE:
        return None


def is_little_endian(dataset: Dataset) -> bool:
    """Return whether the words of a dataset with file meta information are little-endian."""
    return bool(uid.UID(dataset.file_meta.TransferSyntaxUID).is_little_endian)


def words(dataset: Dataset, keyword: str, little: bool) -> list[int]:
    """Return the 16-bit words of an attribute as numbers in 0..65535; none where it is missing or empty.

    Files write words as US or SS, whatever the standard prescribes, and pydicom follows the file. So only the bits are
    taken; the caller knows their sign.

    Raises: InputError where the attribute is no list of words. Source: DICOM PS3.5 6.2 (US, SS, OW).
    """
    try:
        value = dataset.get(keyword)
        if value is None or value == "":
            return []
        if isinstance(value, bytes):
            return [int(word) for word in np.frombuffer(value, dtype="<u2" if little else ">u2")]
        found = [float(one) for one in (value if isinstance(value, list | MultiValue) else [value])]
    except UNREADABLE as error:
        raise InputError(f"its {keyword} is not a number; export it again") from error
    # -1 in 32 bits without a sign is the 16 bits of -1, too.
    signed = [one - 2**32 if 2**31 <= one < 2**32 else one for one in found]
    if not all(one.is_integer() and -(2**15) <= one < 2**16 for one in signed):
        raise InputError(f"its {keyword} is no word of 16 bits; export it again")
    return [int(one) % 2**16 for one in signed]


def signed_word(word: int) -> int:
    """Return the number from -32768 to 32767 that the 16 bits of `word` stand for."""
    return (word ^ 2**15) - 2**15


def number(dataset: Dataset, keyword: str) -> float | None:
    """Return the first value of a numeric attribute, or None where it is missing or empty.

    For what the pixels depend on: a value that is there and makes no sense must not pass as missing.

    Raises: InputError.
    """
    try:
        value = dataset.get(keyword)
        if isinstance(value, list | MultiValue):
            value = value[0] if len(value) else None
        if value is None or value == "":
            return None
        first = float(value)
    except UNREADABLE as error:
        raise InputError(f"its {keyword} is not a number; export it again") from error
    if not math.isfinite(first):
        raise InputError(f"its {keyword} is {first}; export it again")
    return first


def integer(dataset: Dataset, keyword: str, default: int) -> int:
    """Return a whole-number attribute, or `default` where it is missing. Raises: InputError."""
    value = number(dataset, keyword)
    if value is not None and abs(value) >= 2**63:
        raise InputError(f"its {keyword} is {value:g}; export it again")
    return default if value is None else int(value)


def sex(dataset: Dataset) -> str | None:
    """Return Patient's Sex where it is one of the defined "M", "F", "O". Source: DICOM PS3.3 C.7.1.1."""
    value = text(dataset, "PatientSex")
    return value if value in ("M", "F", "O") else None


def age_years(dataset: Dataset) -> float | None:
    """Return Patient's Age in years; None where it is more than anyone's.

    A bare number, which the standard does not allow, is years: so it is in every file of SIIM-ACR 2019.
    Source: DICOM PS3.5 6.2 (AS), PS3.3 C.7.2.2.
    """
    match = re.fullmatch(r"(\d{1,3})([DWMY]?)", text(dataset, "PatientAge") or "")
    years = math.inf if match is None else int(match[1]) / _UNITS_PER_YEAR[match[2]]
    return years if years < _NO_ONES_AGE_YEARS else None


def pixel_spacing_mm(dataset: Dataset) -> tuple[float, float] | None:
    """Return the distance between pixel centres in mm: (between rows, between columns).

    Pixel Spacing is the calibrated one, or as good as is known. Imager Pixel Spacing is measured at the detector, and
    the magnification takes it to the patient. A film scanner states Nominal Scanned Pixel Spacing.
    Source: DICOM PS3.3 10.7.1.1 (calibration), 10.7.1.3 (order and valid values), C.8.11.4 (DX Detector),
    C.8.7.5 and C.8.11.5 (magnification).
    """
    if spacing := _pair(dataset, "PixelSpacing"):
        return spacing
    if spacing := _pair(dataset, "ImagerPixelSpacing"):
        # What lies between tube and detector is never shown smaller than it is: less than 1 is a filling error.
        magnification = _positive(value_of(dataset, "EstimatedRadiographicMagnificationFactor")) or 1.0
        if not 1.0 <= magnification <= _LARGEST_MAGNIFICATION:
            return spacing
        return spacing[0] / magnification, spacing[1] / magnification
    return _pair(dataset, "NominalScannedPixelSpacing")


def spacing_origin(dataset: Dataset) -> str | None:
    """Return where `pixel_spacing_mm` was measured, a key of `SPACING_ORIGINS`; None where there is none.

    A Pixel Spacing that equals Imager Pixel Spacing is the detector's, too. Source: DICOM PS3.3 10.7.1.3.
    """
    spacing, imager = _pair(dataset, "PixelSpacing"), _pair(dataset, "ImagerPixelSpacing")
    if spacing:
        calibration = text(dataset, "PixelSpacingCalibrationType")
        if calibration in ("GEOMETRY", "FIDUCIAL"):
            return calibration
        return "DETECTOR" if spacing == imager else "IMAGE"
    if imager:
        return "DETECTOR" if pixel_spacing_mm(dataset) == imager else "MAGNIFICATION"
    return "FILM" if _pair(dataset, "NominalScannedPixelSpacing") else None


def patient_orientation(dataset: Dataset) -> tuple[str, str] | None:
    """Return the patient's directions along a row and down a column, as ("L", "F"); None where one is missing or none.

    Source: DICOM PS3.3 C.7.6.1.1.1.
    """
    found = [one.upper() for one in texts(dataset, "PatientOrientation")]
    is_one = len(found) == 2 and all(re.fullmatch("[APRLHF]{1,3}", direction) for direction in found)
    return (found[0], found[1]) if is_one else None


def pixel_aspect(dataset: Dataset) -> tuple[float, tuple[str, ...]]:
    """Return how many times as high as wide a pixel is, and a note where the header gives two answers.

    The first of Pixel Spacing, Imager Pixel Spacing, Nominal Scanned Pixel Spacing and Pixel Aspect Ratio that is
    there wins. A ratio within 1 % of a square is 1, and so is a missing one.

    Raises: InputError where it is more than ten times as high as wide, or as wide as high.
    Source: DICOM PS3.3 C.7.6.3.1.7 (the ratio stands where no spacing does), 10.7.1.3.
    """
    found: dict[str, float] = {}
    for keyword in (*_SPACINGS, "PixelAspectRatio"):
        pair = _two_positive(dataset, keyword)
        if pair is not None and (keyword not in _SPACINGS or _is_ratio(pair) or _is_spacing(pair)):
            found[keyword] = pair[0] / pair[1]
    if not found:
        return 1.0, ()
    first, aspect = next(iter(found.items()))
    if not 1 / LARGEST_ASPECT <= aspect <= LARGEST_ASPECT:
        raise InputError(f"its pixels are {aspect:g} times as high as wide by its {first}; export it again")
    others = [keyword for keyword, other in found.items() if abs(other / aspect - 1) > SAME_ASPECT]
    notes = tuple(f"{other} disagrees with {first} on the shape of a pixel: {first} is taken" for other in others)
    return (1.0 if abs(aspect - 1) <= SAME_ASPECT else aspect), notes


def _pair(dataset: Dataset, keyword: str) -> tuple[float, float] | None:
    """Return a spacing, or None unless it is exactly two distances that pixels of a radiograph can have."""
    pair = _two_positive(dataset, keyword)
    return pair if pair is not None and _is_spacing(pair) else None


def _is_spacing(pair: tuple[float, float]) -> bool:
    return all(_LEAST_SPACING_MM <= one <= _LARGEST_SPACING_MM for one in pair)


def _is_ratio(pair: tuple[float, float]) -> bool:
    return 1 / LARGEST_ASPECT <= pair[0] / pair[1] <= LARGEST_ASPECT


def _two_positive(dataset: Dataset, keyword: str) -> tuple[float, float] | None:
    """Return exactly two positive numbers, or None. Source: DICOM PS3.3 10.7.1.3 (spacing), C.7.6.3.1.7 (ratio)."""
    value = value_of(dataset, keyword)
    if not isinstance(value, list | MultiValue) or len(value) != 2:
        return None
    row, column = _positive(value[0]), _positive(value[1])
    return None if row is None or column is None else (row, column)


def _positive(value: Any) -> float | None:
    """Return `value` as a float where it is a positive finite number, else None."""
    try:
        result = float(value)
    except UNREADABLE:
        return None
    return result if math.isfinite(result) and result > 0 else None
