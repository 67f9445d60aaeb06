"""Radiographs on disk, read whatever their format."""

from __future__ import annotations

from pathlib import Path

from pleura.data.geometry import SquareGeometry
from pleura.data.picture import is_picture, picture_aspect, picture_pixels, read_picture
from pleura.dicom.parse import header_pixels
from pleura.dicom.read import Radiograph, read_dicom
from pleura.dicom.square_pixels import with_square_pixels
from pleura.files import name_of


def read_radiograph(path: Path | str) -> Radiograph:
    """Read a radiograph from DICOM, PNG or JPEG, by its content whatever its name.

    Of a PNG or JPEG only the pixels and their shape are known: see `pleura.data.picture.read_picture`.

    Raises: InputError, one line with the file, the reason and the way out.
    """
    path = Path(path)
    if not is_picture(path):
        return read_dicom(path)
    stored, aspect = read_picture(path), picture_aspect(path)
    note = f"The picture says that its pixels are {aspect:.3g} times as high as wide: they were made square"
    return Radiograph(
        image=with_square_pixels(stored, aspect),
        image_id=name_of(path),
        notes=() if aspect == 1 else (note,),
        pixel_aspect=aspect,
        stored_shape=(stored.shape[0], stored.shape[1]),
    )


def pixels_of(path: Path | str) -> int:
    """Return how many pixels a radiograph has, rows x columns, by its header and without decoding anything.

    0 where the header cannot be read: `read_radiograph` refuses the file with the reason.
    """
    path = Path(path)
    return picture_pixels(path) if is_picture(path) else header_pixels(path)


def geometry_of(radiograph: Radiograph, size_px: int) -> SquareGeometry:
    """Return how a radiograph and its masks sit on a square grid."""
    return SquareGeometry(*radiograph.shape, size_px, radiograph.pixel_aspect)
