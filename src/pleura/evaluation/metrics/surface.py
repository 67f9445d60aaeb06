"""Distances between the outlines of two masks.

An outline is the pixels of a mask that have a background pixel, or the image's border, above, below, left or right of
them. Distances run from pixel centre to pixel centre. Where both masks have pixels, the numbers are those of MONAI's
`compute_hausdorff_distance(percentile=95)` and `compute_surface_dice`; where one has none, see the methods.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Spacing = tuple[float, float]


@dataclass(frozen=True)
class SurfaceDistances:
    """How far each pixel of an outline is from the other outline, in the unit of the spacing; an empty mask has none.

    Source: Nikolov et al. 2018, arXiv:1809.04430, section on the surface Dice; Huttenlocher et al. 1993.
    """

    from_mask: NDArray[np.float64]
    """(n,) of the true outline to the predicted one; empty if either mask is."""
    from_predicted: NDArray[np.float64]
    """(m,) of the predicted outline to the true one; empty if either mask is."""
    empty: tuple[bool, bool]
    """Whether the mask is empty, and whether the predicted mask is."""

    @classmethod
    def of(
        cls, mask: NDArray[np.generic], predicted: NDArray[np.generic], spacing: Spacing = (1.0, 1.0)
    ) -> SurfaceDistances:
        """(H, W) masks, not 0 counts; spacing: size of a pixel along rows' and columns' axis, such as mm.

        Raises: ValueError if the shapes differ or are not (H, W), or a spacing is not above 0.
        """
        if mask.shape != predicted.shape or mask.ndim != 2:
            raise ValueError(f"the mask has the shape {mask.shape}, the predicted mask {predicted.shape}")
        if not all(np.isfinite(step) and step > 0 for step in spacing):
            raise ValueError(f"spacing {spacing}: both sizes of a pixel have to be above 0")
        truth, found = mask != 0, predicted != 0
        empty = (not truth.any(), not found.any())
        if any(empty):
            return cls(np.zeros(0), np.zeros(0), empty)
        # Both outlines lie inside the box around both masks, so that nothing outside it can change a distance.
        both = truth | found
        box = tuple(slice(line.argmax(), len(line) - line[::-1].argmax()) for line in (both.any(1), both.any(0)))
        true_outline, found_outline = _outline(truth[box]), _outline(found[box])
        return cls(
            _distances(true_outline, found_outline, spacing),
            _distances(found_outline, true_outline, spacing),
            empty,
        )

    def hd95(self) -> float:
        """The larger of the 95th percentiles of the distances from either outline to the other, in the spacing's unit.

        0 where both masks are empty, NaN where exactly one is: no distance can be had of it, so that a mean over cases
        has to say how many it leaves out.
        Source: Huttenlocher, Klanderman & Rucklidge 1993, with a percentile in place of the maximum.
        """
        if any(self.empty):
            return 0.0 if all(self.empty) else float("nan")
        return float(max(np.percentile(self.from_mask, 95), np.percentile(self.from_predicted, 95)))

    def dice(self, tolerance: float) -> float:
        """The share of both outlines' pixels that lie within the tolerance of the other one (normalised surface Dice).

        tolerance: in the spacing's unit. In [0, 1]; 1 where both masks are empty, 0 where exactly one is, as in the
        SIIM Dice. Raises: ValueError if the tolerance is below 0.
        Source: Nikolov et al. 2018, arXiv:1809.04430, counting pixels as MONAI does (no subvoxels).
        """
        if not tolerance >= 0:
            raise ValueError(f"tolerance {tolerance}: has to be 0 or above")
        if any(self.empty):
            return 1.0 if all(self.empty) else 0.0
        close = np.count_nonzero(self.from_mask <= tolerance) + np.count_nonzero(self.from_predicted <= tolerance)
        return close / (len(self.from_mask) + len(self.from_predicted))


def _outline(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    around = np.pad(mask, 1)
    inside = around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    return np.asarray(mask & ~inside)


def _distances(of: NDArray[np.bool_], to: NDArray[np.bool_], spacing: Spacing) -> NDArray[np.float64]:
    """(n,) the distance of each pixel of an outline, (H, W), to the nearest one of another that has any.

    Exact: the nearest in each column, along it, and then the nearest of all columns.
    Source: Saito & Toriwaki 1994; scipy's distance_transform_edt does it for every pixel of the image.
    """
    height, width = to.shape
    rows = np.arange(height, dtype=np.float64)[:, None]
    before = np.maximum.accumulate(np.where(to, rows, -np.inf))
    behind = np.minimum.accumulate(np.where(to, rows, np.inf)[::-1])[::-1]
    along = (np.minimum(rows - before, behind - rows) * spacing[0]) ** 2
    across = (np.arange(width, dtype=np.float64) * spacing[1]) ** 2
    found = [
        (along[y][None] + across[np.abs(x[:, None] - np.arange(width))]).min(axis=1)
        for y, x in ((y, np.flatnonzero(of[y])) for y in np.flatnonzero(of.any(axis=1)))
    ]
    return np.asarray(np.sqrt(np.concatenate(found)))
