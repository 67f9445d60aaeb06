"""Masks brought onto one grid: a pair to compare, and one mask on the square of a dataset."""

from __future__ import annotations

import numpy as np

from pleura.data.geometry import SquareGeometry
from pleura.data.masks import AnyMask, FoundMask, Runs, Shape
from pleura.errors import InputError


def read_pair(
    first: AnyMask | None, second: AnyMask | None, grid: Shape | None = None, what: str = ""
) -> tuple[FoundMask | None, FoundMask | None, bool]:
    """Bring the true (`first`) and the predicted (`second`) mask of one image onto one grid.

    Runs count the pixels of `grid`; without it those of 1024 x 1024, or of the other mask's grid if that is not square.
    Two squares are compared on the true one's grid; a dataset's square and a mask on its image's grid, on that square.
    what: the name of the prediction in a refusal.
    Returns: both masks, None for one that is known to be empty, and whether the prediction was resized.
    Raises: InputError if a mask is damaged, or the shapes cannot be brought together.
    """
    sides = [None if side is None or side.is_empty else side for side in (first, second)]
    found: list[FoundMask | None] = [None, None]
    shape = grid
    for at, side in enumerate(sides):  # a mask with a grid of its own determines the other's
        if side is not None and (not isinstance(side, Runs) or side.own):
            found[at] = side.read()
            rows, columns = getattr(side, "original", None) or _shape(found[at])
            shape = grid or (None if rows == columns else (rows, columns))
    for at, side in enumerate(sides):
        if side is not None and found[at] is None:
            found[at] = side.read(shape)
    mask, other = found
    if mask is None or other is None or mask.mask.shape == other.mask.shape:
        return mask, other, False
    for at, side in enumerate(sides):  # a dataset's square, and the image that it was made from
        across = found[1 - at]
        if isinstance(side, Runs) and side.own and across and side.original == across.mask.shape:
            found[1 - at] = _on_square(across, side.own[0], side.aspect)
            return found[0], found[1], False
    return mask, _on_grid(other, mask.mask.shape, what), True


def _shape(found: FoundMask | None) -> tuple[int, ...]:
    return (0, 0) if found is None else found.mask.shape


def _on_square(found: FoundMask, size_px: int, aspect: float = 1.0) -> FoundMask:
    rows, columns = found.mask.shape
    return FoundMask(SquareGeometry(rows, columns, size_px, aspect).mask_to_square(found.mask), found.levels)


def _on_grid(found: FoundMask, shape: tuple[int, ...], what: str) -> FoundMask:
    rows, columns = found.mask.shape
    if rows != columns or shape[0] != shape[1]:
        sizes = f"{rows} x {columns} px, the true mask {shape[0]} x {shape[1]}"
        raise InputError(f"{what} has {sizes}; save it on the image's own grid, or use --grid for runs of a csv")
    return _on_square(found, shape[0])


def on_dataset(mask: AnyMask, geometry: SquareGeometry, rle_grid: str) -> FoundMask:
    """Return the mask of an image on the square grid of a dataset, (size_px, size_px).

    geometry: how the image sits on that grid. rle_grid: `siim`, runs count pixels of a 1024 x 1024 copy of a square
    image; `image`, pixels of the image itself.
    Raises: InputError if the mask is damaged or has another size than the image.
    """
    shape, size_px = (geometry.rows, geometry.columns), geometry.size_px
    if isinstance(mask, Runs) and not mask.own:
        if rle_grid == "image":
            return _on_square(mask.read(shape), size_px, geometry.aspect)
        if shape[0] == shape[1]:
            return _on_square(mask.read(), size_px, geometry.aspect)
        if mask.is_empty:
            return FoundMask(np.zeros((size_px, size_px), dtype=np.uint8), np.array([0]))
        raise InputError(
            f"the image has {shape[0]} x {shape[1]} px, SIIM's runs are on 1024 x 1024; if the runs count the image's "
            "own pixels, use --rle-grid image"
        )
    found = mask.read()
    if isinstance(mask, Runs) and mask.original == shape:
        return _on_square(found, size_px)
    if found.mask.shape != shape:
        sizes = f"{found.mask.shape[0]} x {found.mask.shape[1]} px, its image {shape[0]} x {shape[1]}"
        raise InputError(f"{mask.path}: the mask has {sizes}; save it on the image's grid")
    return _on_square(found, size_px, geometry.aspect)
