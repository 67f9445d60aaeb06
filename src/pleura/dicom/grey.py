"""Grey values: from what a DICOM file stores to what it asks to be shown."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pleura.dicom.header import number, text
from pleura.errors import InputError


def render(stored: NDArray[np.int32], dataset: Dataset) -> NDArray[np.float32]:
    """Return stored values as shown: float32 of the same shape in [0, 1], bright = dense.

    Every step is a function of the stored value alone, so it is worked out once per value and looked up per pixel.

    Raises: InputError. Source: DICOM PS3.3 C.11.1, C.11.2, C.11.6, C.7.6.3.1.2 (MONOCHROME1), C.7.5.1.1.2.
    """
    low = int(stored.min())
    offsets = stored - low
    counts = np.bincount(offsets.ravel())
    levels = np.arange(low, low + counts.size, dtype=np.int64)
    padding = _padding(levels, dataset)
    visible = (counts > 0) & ~padding
    shown = _shown(levels, visible, dataset)
    if not visible.any() or np.ptp(shown[visible]) == 0:
        raise InputError("all pixels are equal: it shows nothing, or its window is wrong; export it again")
    # Either of the two attributes asks for one inversion; a DX image carries both (PS3.3 C.8.11.3.1.2).
    asked = (text(dataset, "PhotometricInterpretation"), text(dataset, "PresentationLUTShape"))
    if "MONOCHROME1" in asked or "INVERSE" in asked:
        shown = 1.0 - shown
    shown[padding] = 0.0
    image: NDArray[np.float32] = shown.astype(np.float32)[offsets]
    return image


def _padding(levels: NDArray[np.int64], dataset: Dataset) -> NDArray[np.bool_]:
    """Return which stored values are padding: (values,) bool. Source: DICOM PS3.3 C.7.5.1.1.2."""
    first = number(dataset, "PixelPaddingValue")
    if first is None:
        return np.zeros(levels.shape, dtype=np.bool_)
    last = number(dataset, "PixelPaddingRangeLimit")
    ends = (first, first if last is None else last)
    padding: NDArray[np.bool_] = (levels >= min(ends)) & (levels <= max(ends))
    return padding


def _shown(levels: NDArray[np.int64], visible: NDArray[np.bool_], dataset: Dataset) -> NDArray[np.float64]:
    """Return stored values after modality and VOI transformation: float64 (values,) in [0, 1], not yet inverted.

    pydicom's `apply_voi_lut` is not used: it inverts under a negative slope, and wraps indices of an 8-bit LUT.

    Raises: InputError. Source: DICOM PS3.3 C.11.1, C.11.2.
    """
    bits = int(dataset.BitsStored)
    half = 2 ** (bits - 1) if dataset.get("PixelRepresentation", 0) else 0
    low, high = float(-half), float(2**bits - 1 - half)
    values = levels.astype(np.float64)
    if dataset.get("ModalityLUTSequence"):
        values, high = _look_up(values, dataset.ModalityLUTSequence[0], dataset)
        low = 0.0
        bits = int(dataset.ModalityLUTSequence[0].LUTDescriptor[2])
    else:
        slope, intercept = number(dataset, "RescaleSlope"), number(dataset, "RescaleIntercept")
        slope, intercept = 1.0 if slope is None else slope, intercept or 0.0
        values = values * slope + intercept
        low, high = sorted((low * slope + intercept, high * slope + intercept))
    voi = dataset.get("VOILUTSequence")
    if voi and voi[0].get("LUTData") and voi[0].get("LUTDescriptor"):
        values, high = _look_up(values, voi[0], dataset)
        return np.clip(values / high, 0.0, 1.0)
    centre, width = number(dataset, "WindowCenter"), number(dataset, "WindowWidth")
    if centre is not None and width is not None:
        return _windowed(values, centre, width, (text(dataset, "VOILUTFunction") or "LINEAR").upper())
    if bits > 8 and visible.any():
        low, high = values[visible].min(), values[visible].max()
    return np.clip((values - low) / ((high - low) or 1.0), 0.0, 1.0)


def _look_up(values: NDArray[np.float64], item: Dataset, dataset: Dataset) -> tuple[NDArray[np.float64], float]:
    """Return `values` through the table of a LUT sequence's item, and the highest value of the table's bit depth.

    Raises: InputError. Source: DICOM PS3.3 C.11.1.1.1, C.11.2.1.1.
    """
    count, first, bits = map(int, item.LUTDescriptor)
    count = count % 65536 or 65536
    data = item.LUTData
    if isinstance(data, bytes):
        order = "<" if dataset.file_meta.TransferSyntaxUID.is_little_endian else ">"
        # A table of bytes may be packed two to a word, or take a word each.
        packed = bits <= 8 and len(data) < 2 * count
        table = np.frombuffer(data[: count if packed else 2 * count], dtype=np.uint8 if packed else f"{order}u2")
    else:
        table = np.atleast_1d(np.asarray(data))[:count]
    if table.size != count or not 1 <= bits <= 16:
        raise InputError(f"its LUT has {table.size} entries of {bits} bits where {count} are declared; export it again")
    index = np.clip(np.rint(values - first), 0, count - 1).astype(np.int64)
    return table.astype(np.float64)[index], float(2**bits - 1)


def _windowed(values: NDArray[np.float64], centre: float, width: float, function: str) -> NDArray[np.float64]:
    """Return `values` through a window: float64 in [0, 1].

    Raises: InputError. Source: DICOM PS3.3 C.11.2.1.2.1 (LINEAR), C.11.2.1.3.1 (SIGMOID), C.11.2.1.3.2 (LINEAR_EXACT).
    """
    too_narrow = width < 1 if function == "LINEAR" else width <= 0
    if too_narrow:
        raise InputError(f"its window is {width:g} wide; remove the window or export it again")
    if function == "SIGMOID":
        # Beyond 40 widths the curve is 0 or 1 in float64 anyway, and exp would overflow.
        return 1.0 / (1.0 + np.exp(np.clip(-4.0 * (values - centre) / width, -160.0, 160.0)))
    if function == "LINEAR":
        centre, width = centre - 0.5, width - 1.0
    elif function != "LINEAR_EXACT":
        raise InputError(f"its VOI LUT Function {function!r} is unknown; export it with a LINEAR window")
    if width == 0:
        return (values > centre).astype(np.float64)
    return np.clip((values - centre) / width + 0.5, 0.0, 1.0)
