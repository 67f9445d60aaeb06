"""From grey images to probabilities: the one way in which a net is run, in validation, evaluation and prediction."""

from __future__ import annotations

import torch
from torch import Tensor

from pleura.models.net import Net
from pleura.models.preprocessing import Preprocessing, normalise
from pleura.models.resize import resize_images


@torch.inference_mode()
def infer(net: Net, images: Tensor, preprocessing: Preprocessing, flip: bool = False) -> Tensor:
    """Return the probabilities of a batch.

    images: (N, 1, H, W) uint8, or float32 in [0, 1], of any side. flip: mean with the flipped image's (TTA).
    Returns: (N, size_px, size_px) float32 in [0, 1], the first class. The presence rule acts on each view.
    """
    inputs = normalise(resize_images(images, preprocessing.size_px, preprocessing.reduction), preprocessing)
    inputs = inputs.contiguous(memory_format=torch.channels_last)
    probabilities = net.probabilities(inputs)
    if flip:
        probabilities = (probabilities + net.probabilities(inputs.flip(-1)).flip(-1)) / 2
    return probabilities[:, 0]
