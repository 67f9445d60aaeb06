"""From grey images to probabilities: the one way in which a net is run, in validation, evaluation and prediction."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Preprocessing:
    """What happens to an image before a net sees it; a checkpoint carries it."""

    prepared_px: int
    """Side of the square 8-bit image, as `pleura prepare` writes it."""
    size_px: int
    """Side to which it is resized for the net."""
    in_channels: int
    mean: float
    std: float


def resize_images(images: Tensor, size_px: int) -> Tensor:
    """(N, 1, H, W) uint8 or float in [0, 1] -> (N, 1, size_px, size_px) float32 in [0, 1].

    Averages over area when it reduces, bilinear when it enlarges.
    """
    if images.dtype == torch.uint8:
        images = images.float() / 255
    if images.shape[-1] == size_px:
        return images
    if images.shape[-1] > size_px:
        return functional.interpolate(images, size=size_px, mode="area")
    return functional.interpolate(images, size=size_px, mode="bilinear", align_corners=False)


def resize_masks(masks: Tensor, size_px: int) -> Tensor:
    """(N, 1, H, W) in {0, 1} -> (N, 1, size_px, size_px) float32 in {0, 1}; set where half of the area is."""
    masks = masks.float()
    if masks.shape[-1] == size_px:
        return masks
    mode = "area" if masks.shape[-1] > size_px else "nearest"
    return (functional.interpolate(masks, size=size_px, mode=mode) >= 0.5).float()


def normalise(images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """(N, 1, H, W) float32 in [0, 1] -> (N, in_channels, H, W), normalised as the encoder expects."""
    normal = (images - preprocessing.mean) / preprocessing.std
    return normal.expand(-1, preprocessing.in_channels, -1, -1)


@torch.inference_mode()
def infer(model: nn.Module, images: Tensor, preprocessing: Preprocessing, flip: bool = False) -> Tensor:
    """Probabilities of a batch: the sigmoid is applied here, once.

    images: (N, 1, H, W) uint8, or float32 in [0, 1], of any side. flip: mean with the flipped image's (TTA).
    Returns: (N, size_px, size_px) float32 in [0, 1], the first class.
    """
    inputs = normalise(resize_images(images, preprocessing.size_px), preprocessing)
    inputs = inputs.contiguous(memory_format=torch.channels_last)
    probabilities = torch.sigmoid(model(inputs).float())
    if flip:
        mirrored = torch.sigmoid(model(inputs.flip(-1)).float()).flip(-1)
        probabilities = (probabilities + mirrored) / 2
    return probabilities[:, 0]
