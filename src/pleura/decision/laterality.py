"""On which side of the patient a mask lies."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SIDES = ("R", "L")
_OTHER = {"R": "L", "L": "R"}
BOTH_SIDES_SHARE = 0.2
"""A mask has two sides when at least this share of it lies on the smaller one."""
USUAL_DISPLAY = ("L", "F")
"""Patient Orientation of a frontal radiograph as it is usually shown: the patient's left at the right of the image."""


def side_of(mask: NDArray[np.uint8], orientation: tuple[str, str] | None = None) -> str | None:
    """Return the patient's side of a mask (H, W): `R`, `L`, `B` for both, None where it is empty.

    A smaller side with less than BOTH_SIDES_SHARE of the mask is ignored. orientation: the patient's directions along a
    row and down a column, as DICOM writes them; the usual display by default. Where neither is left or right, as on a
    lateral radiograph, the side is None.
    """
    orientation = orientation or USUAL_DISPLAY
    side, total = side_across(orientation), int(mask.sum())
    if side is None or total == 0:
        return None
    across = mask if orientation[0][:1] in SIDES else mask.T
    first = int(across[:, : across.shape[1] // 2].sum())
    if min(first, total - first) >= BOTH_SIDES_SHARE * total:
        return "B"
    return side if total - first > first else _OTHER[side]


def side_across(orientation: tuple[str, str]) -> str | None:
    """Return to which side of the patient an orientation leads, `R` or `L`: along a row, or else down a column.

    None where neither is left or right, as on a lateral radiograph.
    """
    return next((direction[:1] for direction in orientation if direction[:1] in SIDES), None)
