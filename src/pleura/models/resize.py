"""Images and masks at another size, on the device; pixel edges are aligned, as everywhere in pleura."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from pleura.models.preprocessing import OLD_REDUCTION, REDUCTION


def area_mean(pixels: Tensor, size_px: int) -> Tensor:
    """(N, C, H, W) float32 -> (N, C, size_px, size_px): the mean over the area that each new pixel covers.

    Pixels on an edge count by the share of them that is covered, so that the mean over the image stays what it was and
    nothing moves, at every ratio of the sizes. A mask in {0, 1} becomes the share of each new pixel that it covers.
    """
    down, across = (_coverage(size, size_px).to(pixels) for size in pixels.shape[-2:])
    with torch.autocast(pixels.device.type, enabled=False):  # a product of matrices, which it would shorten
        return down @ pixels @ across.T


@lru_cache(maxsize=16)
def _coverage(size: int, wanted: int) -> Tensor:
    """(wanted, size) float32: the share of each new pixel that each old one covers; rows add up to 1."""
    edges = torch.arange(wanted + 1, dtype=torch.float64) * size / wanted
    old = torch.arange(size, dtype=torch.float64)
    overlap = torch.minimum(edges[1:, None], old + 1) - torch.maximum(edges[:-1, None], old)
    return (overlap.clamp(min=0) * wanted / size).float()


def _adaptive(pixels: Tensor, size_px: int) -> Tensor:
    # Adaptive pooling: where the ratio is no whole number its windows overlap, and details move by up to .43 px.
    return functional.interpolate(pixels, size=size_px, mode="area")


BY_NAME: dict[str, Callable[[Tensor, int], Tensor]] = {REDUCTION: area_mean, OLD_REDUCTION: _adaptive}
"""How an image can be reduced, by the name that a checkpoint carries. `adaptive` is for those that were trained with
it; where the sizes divide without rest both are the mean over blocks."""


def resize_images(images: Tensor, size_px: int, reduction: str = REDUCTION) -> Tensor:
    """(N, 1, H, W) uint8 or float in [0, 1] -> (N, 1, size_px, size_px) float32 in [0, 1].

    Reduced by `reduction`, a name in `BY_NAME`; enlarged bilinearly.
    """
    if images.dtype == torch.uint8:
        images = images.float() / 255
    if images.shape[-1] == size_px:
        return images
    if images.shape[-1] > size_px:
        return BY_NAME[reduction](images, size_px)
    return functional.interpolate(images, size=size_px, mode="bilinear", align_corners=False)


def mask_shares(masks: Tensor, size_px: int) -> Tensor:
    """(N, 1, H, W) in {0, 1} -> (N, 1, size_px, size_px) float32 in [0, 1]: the share of each pixel that is covered.

    The area of a mask stays what it was, relative to the image, however small it is.
    """
    masks = masks.float()
    return masks if masks.shape[-1] == size_px else area_mean(masks, size_px)
