"""Metrics of masks and image scores, by the rules of SIIM-ACR 2019."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pleura.decision.triplet import SIIM_PREVALENCE


def siim_dice(masks: NDArray[np.generic], predicted_masks: NDArray[np.generic]) -> NDArray[np.float64]:
    """SIIM Dice of each image: 1 where both masks are empty, 0 where exactly one is.

    Both (N, H, W), or (H, W) for one image; not 0 counts as mask. Returns (N,), or (1,).
    Raises: ValueError if the shapes differ.
    """
    if masks.shape != predicted_masks.shape:
        raise ValueError(f"masks have the shape {masks.shape}, predicted masks {predicted_masks.shape}")
    truth = (masks != 0).reshape(-1, masks.shape[-2] * masks.shape[-1])
    predicted = (predicted_masks != 0).reshape(truth.shape)
    sizes = truth.sum(axis=1) + predicted.sum(axis=1)
    return np.where(sizes == 0, 1.0, 2.0 * (truth & predicted).sum(axis=1) / np.maximum(sizes, 1))


def empty_floor(positive: NDArray[np.bool_]) -> float:
    """The SIIM mean Dice of a predictor that always answers "empty": the share of negatives."""
    return float(1 - np.mean(positive))


def auroc(positive: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
    """Area under the ROC curve, ties counted half; NaN where a class is missing.

    Source: Mann-Whitney; the same number as scikit-learn's roc_auc_score, without its import.
    """
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if n_positive == 0 or n_negative == 0:
        return float("nan")
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return float((ranks[positive].sum() - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))


@dataclass(frozen=True)
class CaseResults:
    """What is known of each of N cases after the decision rule."""

    positive: NDArray[np.bool_]
    """Whether the true mask has any pixel."""
    predicted_positive: NDArray[np.bool_]
    """Whether the predicted mask has any pixel."""
    dice: NDArray[np.float64]
    """SIIM Dice."""
    scores: NDArray[np.float64]
    """Image scores in [0, 1]."""

    def summary(self, rows: NDArray[np.int64] | None = None) -> dict[str, float]:
        """The named metrics over some cases (all by default), repeats allowed; NaN where a class is missing."""
        chosen = np.arange(len(self.positive)) if rows is None else rows
        positive, predicted_positive, dice = self.positive[chosen], self.predicted_positive[chosen], self.dice[chosen]
        on_positives, on_negatives = _mean(dice[positive]), _mean(dice[~positive])
        prevalence = SIIM_PREVALENCE
        return {
            "siim_dice": _mean(dice),
            "gain_over_empty": _mean(dice - np.where(positive, 0.0, 1.0)),
            "siim_dice_at_siim_prevalence": prevalence * on_positives + (1 - prevalence) * on_negatives,
            "dice_on_positives": on_positives,
            "sensitivity": _mean(predicted_positive[positive]),
            "specificity": _mean(~predicted_positive[~positive]),
            "auroc": auroc(positive, self.scores[chosen]),
        }


def _mean(values: NDArray[np.bool_] | NDArray[np.float64]) -> float:
    return float(np.mean(values)) if values.size else float("nan")
