"""Losses on logits. The sigmoid is applied here, and nowhere before."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from pleura.settings import LossConfig

SMOOTH = 1.0
"""Added to numerator and denominator of the soft Dice, in pixels: on an empty image a false positive costs."""
GAMMA = 2.0


def combo_loss(logits: Tensor, masks: Tensor, config: LossConfig) -> Tensor:
    """Weighted sum of BCE, 1 - soft Dice and focal loss; a scalar.

    logits: (N, C, H, W), any float dtype. masks: the same shape in {0, 1}. Computed in float32 even under autocast,
    because sums over a million pixels do not fit bfloat16.
    Source: 1st place of SIIM-ACR 2019 (weights BCE, Dice, focal).
    """
    logits, masks = logits.float(), masks.float()
    total = logits.new_zeros(())
    if config.bce:
        total = total + config.bce * functional.binary_cross_entropy_with_logits(logits, masks)
    if config.dice:
        total = total + config.dice * soft_dice_loss(logits, masks, config.per_image)
    if config.focal:
        total = total + config.focal * focal_loss(logits, masks)
    return total


def soft_dice_loss(logits: Tensor, masks: Tensor, per_image: bool = False) -> Tensor:
    """1 - soft Dice on probabilities; a scalar in [0, 1].

    Pooled over the batch, or the mean over images. On empty masks it is p / (p + 1) for a sum of probabilities p:
    a false positive costs there too, and its gradient does not vanish.
    Source: Milletari et al. 2016 (arXiv 1606.04797), with a smooth term.
    """
    probabilities = torch.sigmoid(logits)
    axes = tuple(range(1, logits.ndim)) if per_image else tuple(range(logits.ndim))
    overlap = (probabilities * masks).sum(axes)
    dice = (2 * overlap + SMOOTH) / (probabilities.sum(axes) + masks.sum(axes) + SMOOTH)
    return (1 - dice).mean()


def focal_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Binary focal loss, mean over pixels; a scalar. Source: Lin et al. 2017 (arXiv 1708.02002), eq. 4, gamma 2."""
    cross_entropy = functional.binary_cross_entropy_with_logits(logits, masks, reduction="none")
    wrong = torch.sigmoid(torch.where(masks > 0.5, -logits, logits))
    return (wrong**GAMMA * cross_entropy).mean()
