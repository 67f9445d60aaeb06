"""Radiographs on disk, read whatever their format."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from pleura.data.classify import pixels_of_file
from pleura.data.geometry import SquareGeometry
from pleura.data.picture import image_of_values, is_picture, picture_aspect, picture_values
from pleura.dicom.grey_values import GreyValues
from pleura.dicom.limits import max_bytes
from pleura.dicom.parse import valid_uid
from pleura.dicom.read import Radiograph, read_dicom
from pleura.dicom.square_pixels import with_square_pixels
from pleura.errors import InputError, PleuraError
from pleura.files import file_with, name_of
from pleura.urls.store import ahead, get
from pleura.urls.url import Place, Url


def read_radiograph(path: Place | str, with_grey: bool = False) -> Radiograph:
    """Read a radiograph from DICOM, PNG or JPEG, by its content whatever its name.

    Of a PNG or JPEG only the pixels and their shape are known: see `pleura.data.picture.read_picture`. with_grey: keep
    what the image was before its window, too.

    Raises: InputError, one line with the file, the reason and the way out; for an object StoreError, too.
    """
    if isinstance(path, Url):
        _refuse_too_large(path)
        return _read_content(path, get(path), with_grey)
    path = Path(path)
    if not is_picture(path):
        return read_dicom(path, with_grey)
    values, bits = picture_values(path)
    stored, aspect = image_of_values(values, bits), picture_aspect(path)
    note = f"The picture says that its pixels are {aspect:.3g} times as high as wide: they were made square"
    return Radiograph(
        image=with_square_pixels(stored, aspect),
        image_id=name_of(path),
        notes=() if aspect == 1 else (note,),
        pixel_aspect=aspect,
        stored_shape=(stored.shape[0], stored.shape[1]),
        grey=_grey_values(values, bits) if with_grey else None,
    )


def _grey_values(values: NDArray[np.integer], bits: int) -> GreyValues:
    """The grey values of a picture, whose window is the whole range of their depth."""
    full = 2**bits - 1
    whole: Any = np.uint8 if bits <= 8 else np.uint16
    return GreyValues(values.astype(whole), full / 2, float(full))


def read_each(places: Sequence[Place]) -> Iterator[Radiograph | PleuraError]:
    """Yield each radiograph, or why it cannot be read, in order; a file is read when it is asked for.

    The next objects are fetched meanwhile, bounded in number and in bytes; see `ahead`. Raises: StoreError.
    """
    contents = ahead((place for place in places if _is_fetched(place)), lambda url: url)
    for place in places:
        # Nothing here keeps an image or a content while the next is read.
        yield _read_or_why(place, next(contents)[1] if _is_fetched(place) else None)


def _is_fetched(place: Place) -> TypeGuard[Url]:
    """Whether it is an object, and no larger than what is read; reading a larger one refuses it."""
    return isinstance(place, Url) and place.size <= max_bytes()


def _read_or_why(place: Place, content: bytes | InputError | None) -> Radiograph | PleuraError:
    """content: that of an object that was fetched, or why there is none."""
    try:
        if isinstance(content, InputError):
            return content
        if isinstance(place, Path) or content is None:
            return read_radiograph(place)
        return _read_content(place, content)
    except PleuraError as error:
        return error


def _refuse_too_large(url: Url) -> None:
    """Refuse an object that is far larger than a radiograph, before any of it is fetched. Raises: InputError."""
    if url.size > (most := max_bytes()):
        raise InputError(
            f"cannot read {url}: its {url.size // 10**6} MB are more than the {most // 10**6} MB that a radiograph may "
            "have; export it again"
        )


def _read_content(url: Url, content: bytes, with_grey: bool = False) -> Radiograph:
    """Read a radiograph from the content of an object. Raises: InputError, which names the object."""
    with file_with(content) as path:
        try:
            radiograph = read_radiograph(path, with_grey)
        except InputError as error:
            raise InputError(str(error).replace(str(path), str(url))) from error
    # Its id is of the listing, perhaps hours ago; another image of as many bytes would go by it.
    if url.head and url.head.uid and valid_uid(radiograph.sop_instance_uid) != url.head.uid:
        raise InputError(f"{url}: changed since it was listed; run the same command again")
    return radiograph


def pixels_of(path: Place | str) -> int:
    """Return how many pixels a radiograph has, rows x columns, by its header and without decoding anything.

    0 where the header cannot be read: `read_radiograph` refuses the file with the reason.
    """
    if isinstance(path, Url):
        return path.head.pixels if path.head else 0
    return pixels_of_file(Path(path))


def geometry_of(radiograph: Radiograph, size_px: int) -> SquareGeometry:
    """Return how a radiograph and its masks sit on a square grid."""
    return SquareGeometry(*radiograph.shape, size_px, radiograph.pixel_aspect)
