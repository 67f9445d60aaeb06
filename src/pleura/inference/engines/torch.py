"""From grey images to probabilities: the one way in which a net is run, in validation, evaluation and prediction."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pleura.models.decoder import Outputs, PresenceHead
from pleura.models.preprocessing import Preprocessing, normalise
from pleura.models.resize import resize_images


def _probabilities(model: nn.Module, inputs: Tensor) -> Tensor:
    # Whatever the net is wrapped in (an average, several devices), its modules are found; attributes are not.
    head = next((module for module in model.modules() if isinstance(module, PresenceHead)), None)
    outputs = model(inputs, every_output=True) if head is not None else Outputs(model(inputs))
    logits = outputs.logits.float()
    if head is not None and outputs.presence is not None:
        logits = head.heard(logits, outputs.presence)
    return torch.sigmoid(logits)


@torch.inference_mode()
def infer(model: nn.Module, images: Tensor, preprocessing: Preprocessing, flip: bool = False) -> Tensor:
    """Probabilities of a batch: the sigmoid is applied here, once.

    images: (N, 1, H, W) uint8, or float32 in [0, 1], of any side. flip: mean with the flipped image's (TTA).
    Returns: (N, size_px, size_px) float32 in [0, 1], the first class. A presence head is heard in each view, before the
    mean, by its `presence_rule`; `cap` is the 4th place's. Source: https://github.com/amirassov/kaggle-pneumothorax.
    """
    inputs = normalise(resize_images(images, preprocessing.size_px, preprocessing.reduction), preprocessing)
    inputs = inputs.contiguous(memory_format=torch.channels_last)
    probabilities = _probabilities(model, inputs)
    if flip:
        probabilities = (probabilities + _probabilities(model, inputs.flip(-1)).flip(-1)) / 2
    return probabilities[:, 0]
