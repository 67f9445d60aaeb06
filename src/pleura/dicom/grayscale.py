"""Stored values -> grey values as the header prescribes: modality LUT, VOI LUT or window, inversion, padding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pleura.dicom.header import integer, is_little_endian, number, signed_word, text, words
from pleura.dicom.lut import Table, table_of
from pleura.errors import InputError, excerpt

Kind = TypeVar("Kind", bound="np.generic[Any]")

# Less than a step of the 8 bits that a net is shown, but for rounding.
_ONE_LEVEL = 0.999 / 255
_PIECE_PX = 2**18
_FULL_RANGE_INSTEAD = "the full range of its grey values is shown instead"


@dataclass(frozen=True, eq=False)
class Tones:
    """What each stored value, from the lowest of an image to its highest, is and is shown as; (values,) each."""

    values: NDArray[np.float64]
    """After the modality transformation."""
    step: float
    """Between values of neighbouring stored ones."""
    visible: NDArray[np.bool_]
    """Whether a pixel has it, and it is no padding."""
    shown: NDArray[np.float64]
    """In [0, 1], bright = dense; padding is 0."""
    padding: NDArray[np.bool_]
    notes: tuple[str, ...]


def tones_of(stored: NDArray[np.int32], dataset: Dataset) -> tuple[NDArray[np.uint16], Tones]:
    """Return which of its tones each pixel has, a whole number from 0 on, and these tones.

    Every step is a function of the stored value alone, so it is worked out once per value and looked up per pixel.

    Raises: InputError. Source: DICOM PS3.3 C.11.1, C.11.2, C.11.6, C.7.6.3.1.2 (MONOCHROME1), C.7.5.1.1.2.
    """
    low, high = int(stored.min()), int(stored.max())
    offsets = np.empty(stored.shape, dtype=np.uint16)  # no image has more than 16 bits
    np.subtract(stored, low, out=offsets, casting="unsafe")
    del stored
    counts = _counts(offsets, high - low + 1)
    levels = np.arange(low, low + counts.size, dtype=np.int64)
    padding = _padding(levels, dataset)
    visible = (counts > 0) & ~padding
    with np.errstate(over="ignore", invalid="ignore"):
        modality = _modality(levels, dataset)
        shown, notes = _shown(modality, visible, dataset)
    _refuse_unless_it_shows_something(shown[visible])
    if is_inverted(dataset):
        shown = 1.0 - shown
    shown[padding] = 0.0
    return offsets, Tones(modality.values, modality.step, visible, shown, padding, notes)


def of_each_pixel(table: NDArray[Kind], offsets: NDArray[np.uint16]) -> NDArray[Kind]:
    """Return the entry of a table (values,) that each pixel has, of the shape of `offsets`."""
    found = np.empty(offsets.shape, dtype=table.dtype)
    # numpy makes 64 bits of each index: of all pixels at a time, that is the most memory that reading takes.
    for piece, indices in zip(_pieces(found), _pieces(offsets), strict=True):
        piece[:] = table[indices]
    return found


def _counts(offsets: NDArray[np.uint16], values: int) -> NDArray[np.int64]:
    """Return how many pixels have each of the offsets from 0 on, (values,)."""
    counts = np.zeros(values, dtype=np.int64)
    for piece in _pieces(offsets):
        counts += np.bincount(piece, minlength=values)
    return counts


def _pieces(pixels: NDArray[Kind]) -> Iterator[NDArray[Kind]]:
    """Yield an array piece by piece, each a view of its pixels."""
    flat = pixels.reshape(-1)
    for start in range(0, flat.size, _PIECE_PX):
        yield flat[start : start + _PIECE_PX]


def is_inverted(dataset: Dataset) -> bool:
    """Return whether the lowest values are shown brightest.

    Either of two attributes asks for one inversion; a DX image carries both. Source: DICOM PS3.3 C.8.11.3.1.2.
    """
    inversions = (text(dataset, "PhotometricInterpretation"), text(dataset, "PresentationLUTShape"))
    return "MONOCHROME1" in inversions or "INVERSE" in inversions


def shown_window(dataset: Dataset) -> tuple[float, float, str] | None:
    """Return centre, width and function of the window that an image is shown with, or None where it is with none.

    Raises: InputError where `tones_of` refuses the image.
    """
    return _window(dataset)[0]


def _refuse_unless_it_shows_something(shown: NDArray[np.float64]) -> None:
    """Refuse grey values that are not finite, or all alike to the eye. Raises: InputError."""
    if not np.isfinite(shown).all():
        raise InputError("its grey values are no finite numbers as its header asks to show them; export it again")
    if not shown.size or np.ptp(shown) == 0:
        raise InputError("all pixels are equal: it shows nothing, or its window is wrong; export it again")
    if np.ptp(shown) < _ONE_LEVEL:
        raise InputError("its grey values are shown as less than one of 255 levels: its window is wrong; remove it")


def stored_range(dataset: Dataset) -> tuple[int, int]:
    """Return the lowest and the highest value that Bits Stored can hold."""
    bits = int(dataset.BitsStored)
    half = 2 ** (bits - 1) if is_signed(dataset) else 0
    return -half, 2**bits - 1 - half


def is_signed(dataset: Dataset) -> bool:
    """Return whether stored values have a sign."""
    return integer(dataset, "PixelRepresentation", 0) == 1


def _padding(levels: NDArray[np.int64], dataset: Dataset) -> NDArray[np.bool_]:
    """Return which stored values are padding: (values,) bool. Source: DICOM PS3.3 C.7.5.1.1.2."""
    little = is_little_endian(dataset)
    first = words(dataset, "PixelPaddingValue", little)[:1]
    ends = [_stored_value(word, dataset) for word in first + words(dataset, "PixelPaddingRangeLimit", little)[:1]]
    if not first:
        return np.zeros(levels.shape, dtype=np.bool_)
    padding: NDArray[np.bool_] = (levels >= min(ends)) & (levels <= max(ends))
    return padding


def _stored_value(word: int, dataset: Dataset) -> int:
    """Return the stored value that a word of the header stands for, by the sign that the pixels have.

    One beyond the range of Bits Stored is left there, where no pixel is.
    """
    low, high = stored_range(dataset)
    if low == 0:
        return word
    # A negative value may be written with or without the bits above High Bit.
    return word - (high - low + 1) if high < word <= high - low else signed_word(word)


@dataclass(frozen=True, eq=False)
class _Modality:
    """Stored values after the modality transformation: float64 (values,), and the ends of its output range."""

    values: NDArray[np.float64]
    low: float
    high: float
    is_deep: bool
    """More than the 8 bits whose ends are those of a picture, too."""
    step: float = 1.0
    """Between values of neighbouring stored ones."""
    notes: tuple[str, ...] = ()


def _shown(
    modality: _Modality, visible: NDArray[np.bool_], dataset: Dataset
) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Return values after modality and VOI transformation, float64 (values,) in [0, 1], not yet inverted.

    pydicom's `apply_voi_lut` is not used: it inverts under a negative slope, and wraps indices of an 8-bit LUT.

    Raises: InputError. Source: DICOM PS3.3 C.11.1, C.11.2.
    """
    values, notes = modality.values, modality.notes
    if (table := table_of(dataset, "VOILUTSequence")) is not None:
        shown = table.look_up(values, _first_mapped(table, modality, visible)) / table.full
        return np.clip(shown, 0.0, 1.0), notes + _depth_note("VOI LUT", table)
    window, window_notes = _window(dataset)
    if window is not None:
        return _windowed(values, *window), notes
    low, high = modality.low, modality.high
    if modality.is_deep and visible.any():
        low, high = values[visible].min(), values[visible].max()
    return np.clip((values - low) / ((high - low) or 1.0), 0.0, 1.0), notes + window_notes


def _modality(levels: NDArray[np.int64], dataset: Dataset) -> _Modality:
    """Return stored values after the modality LUT or else the rescale.

    Raises: InputError. Source: DICOM PS3.3 C.11.1.
    """
    values = levels.astype(np.float64)
    if (table := table_of(dataset, "ModalityLUTSequence")) is not None:
        first = signed_word(table.first_word) if is_signed(dataset) else table.first_word
        notes = _depth_note("Modality LUT", table)
        return _Modality(table.look_up(values, first), 0.0, table.full, table.full > 255, notes=notes)
    slope, intercept = number(dataset, "RescaleSlope"), number(dataset, "RescaleIntercept")
    slope, intercept = 1.0 if slope is None else slope, intercept or 0.0
    values = values * slope + intercept
    low, high = sorted(end * slope + intercept for end in stored_range(dataset))
    # Beyond 2 to the 53rd, and near the largest number, values that differ come out equal or infinite.
    is_kept = slope == 0 or bool((np.diff(values) != 0).all())
    if not (is_kept and np.isfinite(values).all() and np.isfinite((low, high, high - low)).all()):
        line = f"its Rescale Slope is {slope:g}, its Rescale Intercept {intercept:g}"
        raise InputError(f"{line}: its grey values are lost in numbers of that size; export it again")
    return _Modality(values, low, high, int(dataset.BitsStored) > 8, abs(slope))


def _first_mapped(table: Table, modality: _Modality, visible: NDArray[np.bool_]) -> int:
    """Return the input for which a VOI LUT's first entry is, by the sign of what the modality transformation gives.

    Where its range holds both readings of the word, the one whose table covers more of the values counts.
    Source: DICOM PS3.3 C.11.2.1.1.
    """
    plain, signed = table.first_word, signed_word(table.first_word)
    if modality.low >= 0 or plain == signed:
        return plain
    if modality.high < 2**15:
        return signed
    values = modality.values[visible]
    covered = [int(((values >= first) & (values < first + table.entries.size)).sum()) for first in (signed, plain)]
    return plain if covered[1] > covered[0] else signed


def _depth_note(name: str, table: Table) -> tuple[str, ...]:
    if table.full == table.declared_full:
        return ()
    bits = int(table.declared_full).bit_length()
    return (f"{name} declares {bits} bits, and its highest entry is {table.full:g}: that is taken as its full scale",)


def _window(dataset: Dataset) -> tuple[tuple[float, float, str] | None, tuple[str, ...]]:
    """Return centre, width and function of the first window, or None where there is none, or none that shows anything.

    A negative width is refused: who writes it may mean an inversion.

    Raises: InputError for that, and for an unknown function.
    Source: DICOM PS3.3 C.11.2.1.2.1 (width at least 1), C.11.2.1.3 (more than 0).
    """
    try:
        centre, width = number(dataset, "WindowCenter"), number(dataset, "WindowWidth")
    except InputError:
        return None, (f"Window Center or Window Width is no number: {_FULL_RANGE_INSTEAD}",)
    if centre is None or width is None:
        return None, ()
    function = (text(dataset, "VOILUTFunction") or "LINEAR").upper()
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        raise InputError(f"its VOI LUT Function {excerpt(function)!r} is unknown; export it with a LINEAR window")
    if width < 0:
        raise InputError(f"its window is {width:g} wide; remove the window or export it again")
    if width < 1 if function == "LINEAR" else width <= 0:
        return None, (f"Window Width is {width:g}, which shows nothing: {_FULL_RANGE_INSTEAD}",)
    return (centre, width, function), ()


def _windowed(values: NDArray[np.float64], centre: float, width: float, function: str) -> NDArray[np.float64]:
    """Return `values` through a window: float64 in [0, 1].

    Source: DICOM PS3.3 C.11.2.1.2.1 (LINEAR), C.11.2.1.3.1 (SIGMOID), C.11.2.1.3.2 (LINEAR_EXACT).
    """
    if function == "SIGMOID":
        # Beyond 40 widths the curve is 0 or 1 in float64 anyway, and exp would overflow.
        return 1.0 / (1.0 + np.exp(np.clip(-4.0 * (values - centre) / width, -160.0, 160.0)))
    if function == "LINEAR":
        centre, width = centre - 0.5, width - 1.0
    if width == 0:
        return (values > centre).astype(np.float64)
    return np.clip((values - centre) / width + 0.5, 0.0, 1.0)
