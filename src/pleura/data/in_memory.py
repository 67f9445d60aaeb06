"""Radiographs from Python: an array, a tensor, a PIL image, a pydicom Dataset, bytes, a path or a Radiograph.

The same pixels become the same image in any of these forms: arrays follow the rules of files.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from pleura.data.picture import CHANNEL_TOLERANCE, COLOUR_MODES, DEPTHS_BITS, least_depth_bits
from pleura.data.png import PILLOW_DAMAGE
from pleura.data.radiograph import read_radiograph
from pleura.dicom.limits import check_size
from pleura.dicom.parse import bytes_of_dataset, is_dataset
from pleura.dicom.read import Radiograph
from pleura.errors import InputError, excerpt
from pleura.files import file_with

TAKEN = "a path, bytes or a binary file, a numpy array, a torch tensor, a PIL image or a pydicom Dataset"
GREY_MODES = ("L", "I;16", "I;16L", "I;16B", "I", "F")


def radiograph_of(source: object) -> Radiograph:
    """Read one radiograph from any of the forms in `TAKEN`; see `image_of_array` for arrays, tensors and PIL images.

    Its image_id is that of the file; "array", "picture" or "bytes" where there is none.
    Raises: InputError, one line with the reason and the way out; for any other type, by its name.
    """
    if isinstance(source, Radiograph):
        return source
    if isinstance(source, str | os.PathLike):
        return read_radiograph(Path(source))
    if isinstance(source, bytes | bytearray | memoryview):
        return _of_bytes(bytes(source), "bytes")
    if is_dataset(source):
        return _of_bytes(bytes_of_dataset(source), "Dataset")
    if isinstance(source, Image.Image):
        return Radiograph(image=_of_picture(source), image_id="picture")
    if isinstance(source, np.ndarray):
        return Radiograph(image=image_of_array(source), image_id="array")
    if _is_tensor(source):
        return Radiograph(image=image_of_array(_array_of_tensor(source)), image_id="array")
    if hasattr(source, "read"):
        return _of_bytes(_content(source), "bytes")
    several = "; predict_many takes several" if isinstance(source, Iterable) else ""
    raise InputError(f"{type(source).__name__} is no radiograph; give {TAKEN}{several}")


def each_of(source: object) -> Iterator[object]:
    """Iterate over several radiographs. Raises: InputError for a single radiograph, or what cannot be iterated."""
    single = isinstance(source, str | os.PathLike | bytes | bytearray | memoryview | Image.Image | Radiograph)
    flat = (isinstance(source, np.ndarray) or _is_tensor(source)) and getattr(source, "ndim", 0) < 3
    if single or flat or is_dataset(source) or hasattr(source, "read") or isinstance(source, dict):
        raise InputError(f"predict_many takes a list or an iterator of radiographs, not one {type(source).__name__}")
    if not isinstance(source, Iterable):
        raise InputError(f"predict_many takes a list or an iterator of radiographs, not {type(source).__name__}")
    return iter(source)


def image_of_array(values: NDArray[Any]) -> NDArray[np.float32]:
    """The image of an array: float32 (rows, columns) in [0, 1], bright = dense (MONOCHROME2).

    values: (H, W), (H, W, 1), (1, H, W), (1, 1, H, W), or with 3 or 4 channels that agree, first or last. uint8 is
    divided by 255. Other whole numbers, of 0 to 65535, are divided by the full range of the least depth of 8, 10, 12,
    14 or 16 bits that holds the highest, as a PNG of 16 bits is. Floats lie in [0, 1].
    Raises: InputError.
    """
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise InputError("the array has masked values; fill them first, such as with 0")
    values = _one_channel(np.asarray(values))
    check_size(*values.shape)
    if values.dtype.kind in "ui":
        return _of_whole_numbers(values)
    if values.dtype.kind != "f":
        what = "a mask and not a radiograph" if values.dtype.kind == "b" else "no image"
        raise InputError(f"an array of {values.dtype} is {what}; give uint8, uint16, or float in [0, 1]")
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InputError("the array holds NaN or infinity; an image is finite")
    if low < 0 or high > 1:
        hint = "scale it to [0, 1]"
        if low >= 0 and high <= 255:
            hint = "divide it by 255, or give it as uint8"
        elif low < 0:
            hint = "give it before it is normalised, or scaled to [0, 1]: the model's own scaling follows"
        raise InputError(f"the floats of an image lie in [0, 1], these in [{low:.4g}, {high:.4g}]; {hint}")
    _refuse_constant(low, high)
    return np.ascontiguousarray(values, dtype=np.float32)


def _of_whole_numbers(values: NDArray[Any]) -> NDArray[np.float32]:
    low, high = int(values.min()), int(values.max())
    if low < 0:
        raise InputError(
            f"the array has negative values, from {low}; stored values of DICOM need their header: give the file or "
            "the Dataset, or scale to [0, 1]"
        )
    if high >= 2 ** DEPTHS_BITS[-1]:
        raise InputError(f"the array has values up to {high}, beyond 16 bits; scale it to [0, 1] as float")
    _refuse_constant(low, high)
    bits = 8 if values.dtype == np.uint8 else least_depth_bits(high)
    image: NDArray[np.float32] = values.astype(np.float32) / np.float32(2**bits - 1)
    return image


def _refuse_constant(low: float, high: float) -> None:
    if low == high:
        raise InputError("all pixels are equal: it shows nothing; give the radiograph")


def _one_channel(values: NDArray[Any]) -> NDArray[Any]:
    """(H, W) of an array with one image. Raises: InputError for another shape, or channels that do not agree."""
    shape = values.shape
    if values.ndim == 4 and shape[0] == 1:
        values = values[0]
    if values.ndim == 3 and 0 not in shape:
        last = values.shape[-1] in (1, 3, 4)
        if last or values.shape[0] in (1, 3, 4):
            channels = np.moveaxis(values, -1, 0) if last else values
            values = channels[0] if len(channels) == 1 else _agreeing(channels)
    if values.ndim != 2 or 0 in shape:
        several = "; predict_many takes several images" if len(shape) in (3, 4) and 0 not in shape else ""
        raise InputError(f"an image is an array of (rows, columns), this one has the shape {shape}{several}")
    return values


def _agreeing(channels: NDArray[Any]) -> NDArray[Any]:
    """The grey of (3 or 4, H, W), as of a picture in colour. Raises: InputError where it is not grey."""
    if channels.dtype.kind not in "uif":
        raise InputError(f"an array of {channels.dtype} is no image; give uint8, uint16, or float in [0, 1]")
    if len(channels) == 4 and (channels[3].min() != channels[3].max() or not channels[3].any()):
        raise InputError("it has transparent pixels; give it without alpha")
    colours = channels[:3]
    exact = colours.astype(np.float64)
    tolerance = CHANNEL_TOLERANCE * float(exact.max()) / 255
    if colours.dtype.kind != "f":
        tolerance = math.floor(tolerance)
    # With NaN, which is refused later, nothing is above the tolerance.
    if np.abs(exact - exact[1]).max() > tolerance:
        raise InputError("it is in colour; give the greyscale radiograph")
    grey: NDArray[Any] = colours[1]
    return grey


def _of_picture(picture: Image.Image) -> NDArray[np.float32]:
    if picture.mode not in GREY_MODES + COLOUR_MODES:
        raise InputError(f"not a greyscale radiograph (mode {picture.mode}); convert it to L, or I;16 for 16 bits")
    if getattr(picture, "n_frames", 1) > 1:
        raise InputError(f"it holds {getattr(picture, 'n_frames', 1)} pictures; give one of them, as picture.copy()")
    check_size(picture.height, picture.width)
    try:
        upright = ImageOps.exif_transpose(picture)
        values = np.asarray(upright if upright.mode in GREY_MODES else upright.convert("RGBA"))
    except PILLOW_DAMAGE as error:
        raise InputError(f"the picture cannot be read ({excerpt(error)}); save or export it again") from error
    return image_of_array(values)


def _is_tensor(source: object) -> bool:
    torch = sys.modules.get("torch")  # there is no tensor before torch is imported
    return torch is not None and isinstance(source, torch.Tensor)


def _array_of_tensor(tensor: Any) -> NDArray[Any]:
    try:
        tensor = tensor.detach().cpu()
        is_half = str(tensor.dtype) == "torch.bfloat16"  # which numpy lacks
        array: NDArray[Any] = (tensor.float() if is_half else tensor).numpy()
    except (RuntimeError, TypeError, NotImplementedError) as error:
        raise InputError(f"the tensor cannot be read as an array ({excerpt(error)}); give a dense one") from error
    return array


def _content(file: Any) -> bytes:
    try:
        if hasattr(file, "seekable") and file.seekable():
            file.seek(0)
        content = file.read()
    except (OSError, ValueError) as error:
        raise InputError(f"{type(file).__name__} cannot be read ({excerpt(error)}); open the file in binary") from error
    if not isinstance(content, bytes | bytearray):
        raise InputError(f"{type(file).__name__} gives {type(content).__name__}, not bytes; open the file in binary")
    return bytes(content)


def _of_bytes(content: bytes, what: str) -> Radiograph:
    if not content:
        raise InputError(f"nothing in the {what}; give the whole file")
    with file_with(content) as path:
        return radiograph_in(path, what)


def radiograph_in(path: Path, what: str, with_grey: bool = False) -> Radiograph:
    """Read the radiograph in a file of `pleura.files.file_with`; what: how it is called in messages, and by its id.

    Its id is its SOP Instance UID, where it has one. with_grey: as `read_radiograph`. Raises: InputError.
    """
    try:
        radiograph = read_radiograph(path, with_grey)
    except InputError as error:
        raise InputError(str(error).replace(str(path), f"the {what}")) from error
    return replace(radiograph, image_id=radiograph.sop_instance_uid or what)
