"""Grey values for a reader who chooses the window: all that the file has, not the levels that its window leaves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pleura.dicom.grayscale import Tones, is_inverted, of_each_pixel, shown_window
from pleura.dicom.lut import table_of

CURVE_STEPS = 1024
"""Of a curve that is no straight line, at most."""
_NARROWEST = 1e-3
"""The width of a window that is a step; in grey values, which are whole numbers."""
_SAME = 1e-3
"""Brightness that is as good as that of the end."""


@dataclass(frozen=True, eq=False)
class GreyValues:
    """Grey values before any window, larger = brighter."""

    values: NDArray[np.uint8] | NDArray[np.uint16]
    """(rows, columns), on the grid of the file; padding is 0."""
    center: float
    width: float
    """In `values`: how the header asks to show them, black at center - width / 2 and white at center + width / 2."""
    curve: NDArray[np.uint8] | None = None
    """(steps,) brightness from one end of the window to the other, where it is no straight line."""
    slope: float = 1.0
    intercept: float = 0.0
    """slope * value + intercept is the value after the modality transformation, by which readers know a window."""


def grey_values_of(offsets: NDArray[np.uint16], tones: Tones, dataset: Dataset) -> GreyValues:
    """Return the grey values of an image.

    offsets: (rows, columns), which of the tones each pixel has. Raises: InputError as `tones_of`, which gives both.
    Source: DICOM PS3.3 C.11.1, C.11.2 (what a window applies to), C.7.6.3.1.2 (MONOCHROME1).
    """
    present = tones.values[tones.visible]
    sign, end = (-1, present.max()) if is_inverted(dataset) else (1, present.min())
    slope, intercept = float(sign * tones.step), float(end)
    steps = np.rint((tones.values - intercept) / slope)
    steps[tones.padding] = 0
    highest = int(steps[tones.visible].max())
    kind: Any = np.uint8 if highest < 2**8 else np.uint16
    # Tones between those of the pixels may lie beyond both ends.
    values = of_each_pixel(np.clip(steps, 0, highest).astype(kind), offsets)
    window = shown_window(dataset)
    shape: tuple[float, float, NDArray[np.uint8] | None]
    if table_of(dataset, "VOILUTSequence") is not None or (window is not None and window[2] == "SIGMOID"):
        shape = _curve(steps, tones)
    elif window is None:
        shape = _line(steps[tones.visible], tones.shown[tones.visible])
    else:
        middle, wide, function = window
        if function == "LINEAR":
            middle, wide = middle - 0.5, wide - 1.0
        shape = (middle - intercept) / slope, max(wide / tones.step, _NARROWEST), None
    center, width, curve = shape
    return GreyValues(values, center, width, curve, slope, intercept)


def _line(steps: NDArray[np.float64], shown: NDArray[np.float64]) -> tuple[float, float, None]:
    """Return centre and width of the straight line through the tones of an image, which need not reach both ends."""
    low, high = int(steps.argmin()), int(steps.argmax())
    width = (steps[high] - steps[low]) / (shown[high] - shown[low])
    return float(steps[low] + (0.5 - shown[low]) * width), float(width), None


def _curve(steps: NDArray[np.float64], tones: Tones) -> tuple[float, float, NDArray[np.uint8]]:
    """Return centre and width of the range in which the brightness of tones changes, and its curve."""
    use = ~tones.padding
    at, first = np.unique(steps[use], return_index=True)
    shown = tones.shown[use][first]
    changing = np.flatnonzero((shown > shown.min() + _SAME) & (shown < shown.max() - _SAME))
    low, high = (changing[0] - 1, changing[-1] + 1) if changing.size else (0, at.size - 1)
    start, stop = at[max(low, 0)], at[min(high, at.size - 1)]
    grid = np.linspace(start, stop, min(CURVE_STEPS, int(stop - start) + 1))
    curve = np.rint(np.interp(grid, at, shown) * 255).astype(np.uint8)
    return float(start + stop) / 2, float(stop - start), curve
