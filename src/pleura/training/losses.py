"""Losses on logits. The sigmoid is applied here, and nowhere before.

All of them are computed in float32 (float64 stays) even where logits are bfloat16 or autocast is on, because sums over
a million pixels do not fit bfloat16; no matrix product is used, which autocast would shorten.

`smooth`, in pixels, decides what Dice, Jaccard and Tversky make of empty masks. There they are p / (p + smooth) for a
sum of probabilities p: with smooth 1 a false positive of one pixel costs 0.5, and the gradient lives until nothing is
left. With the winner's 1e-6 they are 1 whatever is predicted, with a gradient of 1e-6 / p ** 2, which is none: a false
positive costs nothing there beyond BCE and focal. Pooled over a batch with one positive this matters less.

Targets are soft, in [0, 1]: the share of a pixel that a mask covers, or a teacher's probability. Every term but Lovász
is least where the probabilities equal them: the overlap of Dice, Jaccard and Tversky is the sum of the smaller of the
two, because their product would pull a probability of 0.3 that a target has everywhere to 1; focal is weighted by the
distance from the target. Lovász, which is about masks, is least where each pixel is on the side of its larger share;
a pixel that is half covered is drawn to neither. On masks in {0, 1} all are as in their papers.

Images may have weights. A mean over images or pixels is then a weighted one, over the global batch of all processes,
and what is pooled over the batch has them inside its sums: an image of weight 0 is as good as not there.

    >>> import torch
    >>> logits = torch.tensor([[[[4.0, -4.0], [-4.0, -4.0]]]])
    >>> masks = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
    >>> round(soft_dice_loss(logits, masks).item(), 3), round(soft_dice_loss(-logits, masks).item(), 3)
    (0.024, 0.791)
    >>> from pleura.config.training import LossConfig
    >>> round(combo_loss(logits, masks, LossConfig(bce=3, dice=1)).item(), 3)
    0.078
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from pleura.config.training import LossConfig

AllReduce = Callable[[Tensor], Tensor]
"""Sum of a tensor over processes, its gradient summed as well: `pleura.training.distributed.sum_over_processes`."""


@dataclass(frozen=True)
class BatchWeights:
    """Weights of the images of a batch, and how to sum over the processes that share it."""

    all_reduce: AllReduce | None = None
    """Sums over processes; None: this process has the whole batch."""
    weights: Tensor | None = None
    """(N,) of each image, not negative; None: all count alike."""
    shares: Tensor | None = None
    """(N,) weights over their mean in the global batch; 0 where all are 0."""

    @classmethod
    def of(cls, all_reduce: AllReduce | None, weights: Tensor | None) -> BatchWeights:
        """Set weights (N,) against their mean in the global batch; with `all_reduce`, every process has to call it."""
        if weights is None:
            return cls(all_reduce)
        sums = torch.stack([weights.sum(), weights.new_tensor(len(weights))])
        total, count = (sums if all_reduce is None else all_reduce(sums)).unbind()
        # Where no image counts there is nothing to learn, and nothing to divide by.
        return cls(all_reduce, weights, weights * count / torch.where(total > 0, total, 1))


ALIKE = BatchWeights()
"""Images of equal weight, in one process."""


def total_loss(
    logits: Tensor,
    masks: Tensor,
    config: LossConfig,
    presence: Tensor | None = None,
    deep: Sequence[Tensor] = (),
    all_reduce: AllReduce | None = None,
    weights: Tensor | None = None,
    present: Tensor | None = None,
    image: Tensor | None = None,
) -> Tensor:
    """Return the loss of a net: `combo_loss`, and the losses of its image, presence and deep outputs; a scalar.

    logits: (N, C, H, W). masks: the same shape in [0, 1]. presence: (N, 1), logits of "is there any". deep: one
    (N, C, H, W) of logits for each decoder stage. all_reduce, weights: see `combo_loss`. present: (N,) in [0, 1], what
    `presence` and `image` shall be; masks do not show it, because a warp or a smaller size may leave nothing of a small
    finding. image: (N, 1), logits of `image_logits`.
    Raises: ValueError if `config` has a weight for an output that is not given.
    """
    batch = BatchWeights.of(all_reduce, weights)
    total = _combo(logits, masks, config, batch)
    if config.presence:
        if presence is None or present is None:
            raise ValueError("loss.presence has a weight, but the net gives no presence; set model.presence_head=true")
        total = total + config.presence * presence_loss(presence, present, batch)
    if config.image:
        if image is None or present is None:
            raise ValueError("loss.image has a weight, but no logits of images are given")
        total = total + config.image * presence_loss(image, present, batch)
    if config.deep:
        if not deep:
            raise ValueError("loss.deep has a weight, but the net gives none; set model.deep_supervision=true")
        parts = [_combo(stage, masks, config, batch) for stage in deep]
        total = total + config.deep * torch.stack(parts).mean()
    return total


def combo_loss(
    logits: Tensor,
    masks: Tensor,
    config: LossConfig,
    all_reduce: AllReduce | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    """Return the weighted sum of the terms of `TERMS`; a scalar.

    logits: (N, C, H, W), any float dtype. masks: the same shape in [0, 1], any dtype.
    all_reduce: sums a tensor over processes, for the terms that are pooled over the batch; every process then has to
    call this. None: the images of this process are the batch. weights: (N,) float32, of each image; None: all count
    alike.
    Source: 1st place of SIIM-ACR 2019 (weights BCE, Dice, focal).
    """
    return _combo(logits, masks, config, BatchWeights.of(all_reduce, weights))


def _combo(logits: Tensor, masks: Tensor, config: LossConfig, batch: BatchWeights) -> Tensor:
    logits, masks = _precise(logits, masks)
    total = logits.new_zeros(())
    for name, term in TERMS.items():
        if weight := getattr(config, name):
            total = total + weight * term(logits, masks, config, batch)
    return total


def bce_loss(logits: Tensor, masks: Tensor, batch: BatchWeights = ALIKE) -> Tensor:
    """Return the binary cross-entropy, mean over pixels; a scalar."""
    logits, masks = _precise(logits, masks)
    if batch.shares is None:
        return functional.binary_cross_entropy_with_logits(logits, masks)
    return _mean(functional.binary_cross_entropy_with_logits(logits, masks, reduction="none"), batch)


def presence_loss(presence: Tensor, present: Tensor, batch: BatchWeights = ALIKE) -> Tensor:
    """Return the binary cross-entropy of "is there any", mean over images; a scalar.

    presence: (N, 1) logits; present: (N,).
    Source: 4th place of SIIM-ACR 2019.
    """
    return bce_loss(presence, present[:, None], batch)


def soft_dice_loss(
    logits: Tensor, masks: Tensor, per_image: bool = False, smooth: float = 1.0, batch: BatchWeights = ALIKE
) -> Tensor:
    """Return 1 - soft Dice on probabilities, in [0, 1]; a scalar, pooled over the batch or the mean over images.

    On empty masks it is p / (p + smooth) for a sum of probabilities p: see the head of this file.
    Source: Milletari et al. 2016 (arXiv 1606.04797), with a smooth term.
    """
    overlap, predicted, true = _sums(logits, masks, per_image, batch)
    return _mean(1 - (2 * overlap + smooth) / (predicted + true + smooth), batch)


def soft_jaccard_loss(
    logits: Tensor, masks: Tensor, per_image: bool = False, smooth: float = 1.0, batch: BatchWeights = ALIKE
) -> Tensor:
    """Return 1 - soft Jaccard index on probabilities, in [0, 1]; a scalar, as `soft_dice_loss`."""
    overlap, predicted, true = _sums(logits, masks, per_image, batch)
    return _mean(1 - (overlap + smooth) / (predicted + true - overlap + smooth), batch)


def tversky_loss(
    logits: Tensor,
    masks: Tensor,
    alpha: float = 0.3,
    beta: float = 0.7,
    per_image: bool = False,
    smooth: float = 1.0,
    batch: BatchWeights = ALIKE,
) -> Tensor:
    """Return 1 - soft Tversky index; a scalar in [0, 1]. `alpha` weighs false positives, `beta` false negatives.

    Source: Salehi et al. 2017 (arXiv 1706.05721); alpha = beta = 0.5 is Dice, alpha = beta = 1 Jaccard.
    """
    overlap, predicted, true = _sums(logits, masks, per_image, batch)
    wrong = alpha * (predicted - overlap) + beta * (true - overlap)
    return _mean(1 - (overlap + smooth) / (overlap + wrong + smooth), batch)


def focal_loss(logits: Tensor, masks: Tensor, gamma: float = 2.0, batch: BatchWeights = ALIKE) -> Tensor:
    """Return the binary focal loss, mean over pixels; a scalar.

    Source: Lin et al. 2017 (arXiv 1708.02002), eq. 4; for soft targets Li et al. 2020 (arXiv 2006.04388), eq. 4.
    """
    logits, masks = _precise(logits, masks)
    # From below, because the power of a distance of 0 has no gradient where gamma is below 1.
    distance = (torch.sigmoid(logits) - masks).abs().clamp(min=1e-6)
    entropy = functional.binary_cross_entropy_with_logits(logits, masks, reduction="none")
    return _mean(distance**gamma * entropy, batch)


def lovasz_loss(logits: Tensor, masks: Tensor, batch: BatchWeights = ALIKE) -> Tensor:
    """Return the symmetric Lovász hinge, the mean of that of masks and of background, mean over images; a scalar.

    Each is the Lovász extension of the Jaccard loss at the hinge errors max(0, 1 - y logit), y = +-1: convex, and the
    Jaccard loss itself where errors are 0 or 1. The hinge is the paper's relu and not elu + 1, which others train
    with: a pixel right by a margin of 1 costs nothing, so that healthy pixels by the million stop pulling, and the
    loss bounds the Jaccard loss from above. On an empty image the masks' half sees the worst pixel alone; the
    background's half is the mean over all pixels, so that every false positive has a gradient.
    Of a pixel that is covered in part the error is the mean of both hinges by its shares, and each share counts in the
    Jaccard index where it belongs.
    Source: Berman et al. 2018 (arXiv 1705.08790), algorithm 1; the shares are ours.
    """
    logits, masks = (each.flatten(1) for each in _precise(logits, masks))
    errors = masks * functional.relu(1 - logits) + (1 - masks) * functional.relu(1 + logits)
    with torch.no_grad():
        # Both halves have the same errors: one sort of each image does.
        order = errors.argsort(dim=1, descending=True)
        true = masks.gather(1, order)
        weights = (_jaccard_steps(true) + _jaccard_steps(1 - true)) / 2
        weights = torch.empty_like(weights).scatter_(1, order, weights)
    return _mean((errors * weights).sum(1), batch)


def _jaccard_steps(true: Tensor) -> Tensor:
    """What each further wrong pixel adds to the Jaccard loss of a row, (N, pixels) shares of truth, worst pixel first.

    In closed form: neighbours' differences of float32 would lose the steps of a millionth.
    """
    overlap = (true.sum(1, keepdim=True) - true.cumsum(1)).clamp(min=0)
    union = true.sum(1, keepdim=True) + (1 - true).cumsum(1)
    before = union - (1 - true)
    steps = (true * union + overlap * (1 - true)) / (union * before).clamp(min=1e-12)
    # Where there is nothing to find, the first false positive takes the loss from 0 to 1.
    return torch.where(before > 1e-6, steps, 1 - true)


def _precise(logits: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Logits in float32 at least, masks alike."""
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return logits, masks.to(logits.dtype)


def _mean(losses: Tensor, batch: BatchWeights) -> Tensor:
    """The mean over images, (N,) or (N, ...), by weight; of what is pooled over the batch, (), it is itself."""
    if batch.shares is None or losses.ndim == 0:
        return losses.mean()
    return (losses.reshape(len(losses), -1).mean(1) * batch.shares.to(losses.dtype)).mean()


def _sums(logits: Tensor, masks: Tensor, per_image: bool, batch: BatchWeights) -> tuple[Tensor, Tensor, Tensor]:
    """Overlap, probabilities and masks, summed over the batch (scalars) or over each image (N,)."""
    logits, masks = _precise(logits, masks)
    probabilities = torch.sigmoid(logits)
    overlaps = torch.minimum(probabilities, masks)
    each = per_image or batch.weights is not None
    axes = tuple(range(1, logits.ndim)) if each else tuple(range(logits.ndim))
    sums = torch.stack([overlaps.sum(axes), probabilities.sum(axes), masks.sum(axes)])
    if not per_image:
        if batch.weights is not None:
            sums = (sums * batch.weights.to(sums.dtype)).sum(1)
        if batch.all_reduce is not None:
            sums = batch.all_reduce(sums)
    overlap, predicted, true = sums.unbind()
    return overlap, predicted, true


def _blend(term: Callable[[bool], Tensor], share: float) -> Tensor:
    """The mean of a term per image and pooled over the batch, the former by `share`."""
    if share in (0, 1):
        return term(bool(share))
    return share * term(True) + (1 - share) * term(False)


def _dice(logits: Tensor, masks: Tensor, config: LossConfig, batch: BatchWeights) -> Tensor:
    return _blend(
        lambda per_image: soft_dice_loss(logits, masks, per_image, config.smooth, batch), float(config.per_image)
    )


def _jaccard(logits: Tensor, masks: Tensor, config: LossConfig, batch: BatchWeights) -> Tensor:
    return _blend(
        lambda per_image: soft_jaccard_loss(logits, masks, per_image, config.smooth, batch), float(config.per_image)
    )


def _tversky(logits: Tensor, masks: Tensor, config: LossConfig, batch: BatchWeights) -> Tensor:
    alpha, beta = config.tversky_alpha, config.tversky_beta
    return _blend(
        lambda per_image: tversky_loss(logits, masks, alpha, beta, per_image, config.smooth, batch),
        float(config.per_image),
    )


TERMS: dict[str, Callable[[Tensor, Tensor, LossConfig, BatchWeights], Tensor]] = {
    "bce": lambda logits, masks, config, batch: bce_loss(logits, masks, batch),
    "dice": _dice,
    "focal": lambda logits, masks, config, batch: focal_loss(logits, masks, config.focal_gamma, batch),
    "jaccard": _jaccard,
    "lovasz": lambda logits, masks, config, batch: lovasz_loss(logits, masks, batch),
    "tversky": _tversky,
}
"""The terms of `combo_loss`, by the name of their weight in `LossConfig`."""
