"""On which side of the patient a mask lies."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BOTH_SIDES_SHARE = 0.2
"""A mask has two sides when at least this share of it lies on the smaller one."""


def side_of(mask: NDArray[np.uint8]) -> str | None:
    """Return the patient's side of a mask (H, W): `R` in the image's left half, `L` in its right, `B` both, None empty.

    A smaller side with less than BOTH_SIDES_SHARE of the mask is ignored.
    """
    right = int(mask[:, : mask.shape[1] // 2].sum())
    total = int(mask.sum())
    if total == 0:
        return None
    if min(right, total - right) >= BOTH_SIDES_SHARE * total:
        return "B"
    return "R" if right > total - right else "L"
