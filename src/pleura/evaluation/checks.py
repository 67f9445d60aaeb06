"""Checks of scores, for faults that the numbers hide: each check finds one kind of fault, and returns it in words.

A check returns None where there is no fault, and where it cannot decide: too few cases, or nothing known.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from pleura.data.problems import Finding
from pleura.decision.search import Histograms
from pleura.decision.triplet import LEVELS
from pleura.evaluation.metrics.siim import CaseResults, empty_floor

Numbers = NDArray[np.float64]

ORIENTATIONS = (
    "as it is",
    "turned by 90 degrees to the left",
    "turned by 180 degrees",
    "turned by 90 degrees to the right",
    "flipped left to right",
    "transposed",
    "flipped top to bottom",
    "transposed along the other diagonal",
)
"""What `turned` makes of an image, by number."""
MIN_CASES, MIN_GAIN, MIN_ERRORS = 3, 0.1, 4.0
"""Another orientation is a fault if on at least so many cases it is better by so much Dice, and by so many standard
errors of the mean: eight are compared, and neither a symmetric mask nor a weak model is a fault."""
CHECKED_SIDE_PX = 128
REPORTED_WITHIN = 6e-4
"""A reported number is taken for one of ours within so much: three decimals, and a little."""
TWICE_LOW, TWICE_HIGH = 0.5, 0.7311
"""sigmoid(0) and sigmoid(1): a probability that is put through a sigmoid once more lies between them."""
MOVING_RANGE, LEAST_MOVE = (0.1, 0.9), 0.002
OTHER_SHARE, OTHER_ERRORS = 0.05, 3.0


def empty_predictor(results: CaseResults) -> Finding | None:
    """Whether a predictor is the empty one, or scores no more than it."""
    cases, floor = len(results.positive), empty_floor(results.positive) if len(results.positive) else 1.0
    positives, found = int(results.positive.sum()), int((results.predicted_positive & results.positive).sum())
    if not positives:
        return None
    if not results.predicted_positive.any():
        return Finding(
            "error",
            f"this equals the empty predictor: it finds nothing on any of {cases} images, and its SIIM Dice of "
            f"{floor:.6f} is the share of negatives",
            "look at Dice on positives, and at the thresholds: do the probabilities reach them?",
        )
    if (score := float(np.mean(results.dice))) <= floor:
        return Finding(
            "warning",
            f"its SIIM Dice of {score:.6f} is not above the {floor:.6f} of answering nothing; it finds something on "
            f"{found} of {positives} positives",
            "do not report the mean Dice alone; tune the triplet, or train longer",
        )
    return None


def saturated(histograms: Histograms) -> Finding | None:
    """Whether probabilities went through a sigmoid twice, or hold nothing that a threshold could choose from."""
    levels = histograms.counts.sum(axis=(0, 2))
    there = np.flatnonzero(levels)
    if not there.size:
        return None
    lowest, highest = there[0] / LEVELS, min((there[-1] + 1) / LEVELS, 1.0)
    if lowest >= TWICE_LOW and there[-1] <= int(TWICE_HIGH * LEVELS):
        return Finding(
            "error",
            f"every probability lies in [{lowest:.3f}, {highest:.3f}], where a sigmoid of a sigmoid lies "
            f"([{TWICE_LOW}, {TWICE_HIGH:.3f}])",
            "take the sigmoid out of the net, or out of what follows it (a loss on logits has its own); a net that was "
            "never trained can look so too",
        )
    first, last = (round(share * LEVELS) for share in MOVING_RANGE)
    if not histograms.positive.any() or there[-1] < first:
        return None  # nothing to find, or an empty predictor, which has a check of its own
    dice = histograms.dice()[:, first : last + 1].mean(axis=0)
    if np.ptp(dice) < LEAST_MOVE:
        return Finding(
            "warning",
            f"the score does not move with the threshold: from {MOVING_RANGE[0]} to {MOVING_RANGE[1]} its mean Dice "
            f"changes by {np.ptp(dice):.4f}, the probabilities are 0 or 1",
            "look for masks saved as probabilities, or a sigmoid in the net and in the loss; no threshold can be tuned",
        )
    return None


def not_binary(values: NDArray[np.generic], one: int = 1) -> Finding | None:
    """Whether a mask holds anything but 0 and `one`. values: any shape; its distinct values are enough.

    one: what mask pixels are written as: 1 in arrays, 255 in PNG files.
    """
    levels = np.unique(np.asarray(values))
    if np.isin(levels, (0, one)).all():
        return None
    low, high = levels[0], levels[-1]
    if len(levels) <= 2 and low >= 0 and (len(levels) == 1 or low == 0):
        return Finding(
            "error",
            f"mask values are 0 and {high:g}, not 0 and {one}: every loss and Dice is off by that factor",
            f"use mask > 0 instead, once, where the mask is read; or save it with {one}",
        )
    return Finding(
        "error",
        f"a mask has {len(levels)} values from {low:g} to {high:g}, not 0 and {one}: it was resized with "
        "interpolation, or is a probability or a JPEG",
        "resize masks by nearest neighbour, save them as PNG, and threshold what is grey at half of the highest",
    )


class OrientationCheck:
    """Adds up how well predicted masks agree with the truth in each of 8 orientations, batch by batch."""

    def __init__(self) -> None:
        self._dice: list[NDArray[np.float64]] = []

    def add(self, masks: NDArray[np.generic], predicted_masks: NDArray[np.generic]) -> None:
        """Add masks and predicted masks (N, H, W), not 0 is mask; images with one of both empty are left out.

        Only a square image is also turned by 90 degrees. Raises: ValueError if the shapes differ.
        """
        if masks.shape != predicted_masks.shape:
            raise ValueError(f"masks have the shape {masks.shape}, predicted masks {predicted_masks.shape}")
        for mask, predicted in zip(masks, predicted_masks, strict=True):
            if mask.any() and predicted.any():
                self._dice.append(_dice_by_orientation(_reduced(mask != 0), _reduced(predicted != 0)))

    def extend(self, other: OrientationCheck) -> None:
        """Add what another one has added up."""
        self._dice += other._dice

    def finding(self) -> Finding | None:
        """The orientation in which predictions fit far better than as they are, if there is one."""
        if len(self._dice) < MIN_CASES:
            return None
        dice = np.stack(self._dice)
        means = dice.mean(axis=0)
        best = int(means.argmax())
        gain = dice[:, best] - dice[:, 0]
        error = gain.std(ddof=1) / np.sqrt(len(gain))
        if best == 0 or gain.mean() < max(MIN_GAIN, MIN_ERRORS * error):
            return None
        return Finding(
            "error",
            f"predicted masks fit the truth when they are {ORIENTATIONS[best]}: Dice {means[best]:.3f} instead of "
            f"{means[0]:.3f} as they are, over {len(dice)} positives",
            "SIIM runs go down the columns: reading rows transposes; undo the flip of test-time augmentation",
        )


def turned(image: NDArray[np.float32], number: int) -> NDArray[np.float32]:
    """An image (H, W) in one of the 8 `ORIENTATIONS`, by its number."""
    return np.rot90(np.fliplr(image) if number >= 4 else image, number % 4)


def _reduced(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Share of mask in each block of a grid of at most 128 x 128, so that 12,000 masks take seconds."""
    block = -(-max(mask.shape) // CHECKED_SIDE_PX)
    if block == 1:
        return mask.astype(np.float32)
    # The last blocks are filled up on both sides alike, so that a flip meets the same grid.
    pads = [(-side) % block for side in mask.shape]
    filled = np.pad(mask, [(pad // 2, pad - pad // 2) for pad in pads])
    rows, columns = (side // block for side in filled.shape)
    return np.asarray(filled.reshape(rows, block, columns, block).mean(axis=(1, 3)), dtype=np.float32)


def _dice_by_orientation(mask: NDArray[np.float32], predicted: NDArray[np.float32]) -> NDArray[np.float64]:
    sizes = max(float(mask.sum() + predicted.sum()), 1e-9)
    dice = np.zeros(len(ORIENTATIONS))
    for number in range(len(ORIENTATIONS)):
        other = turned(predicted, number)
        if other.shape == mask.shape:
            dice[number] = 2 * float(np.minimum(mask, other).sum()) / sizes
    return dice


def other_prevalence(here: NDArray[np.bool_], training: float) -> Finding | None:
    """Whether the share of positives is unlike training's, by more than 5 points and 3 standard errors.

    here: (N,) whether each case is positive. training: the share of positives in the training data, in [0, 1].
    """
    if not len(here):
        return None
    share, between = float(np.mean(here)), abs(float(np.mean(here)) - training)
    error = np.sqrt(max(training * (1 - training), share * (1 - share)) / len(here))
    if between <= max(OTHER_SHARE, OTHER_ERRORS * error):
        return None
    return Finding(
        "warning",
        f"{100 * share:.1f} % of these {len(here)} cases are positive, {100 * training:.1f} % of the training data: "
        "mean Dice, PPV and the tuned triplet do not carry over",
        "report Dice on positives, AUROC and the score re-weighted to one prevalence; tune on the mixture at hand",
    )


def shared_patients(train: Iterable[str | None], val: Iterable[str | None]) -> Finding | None:
    """Whether patients of validation images are in training too; None, a patient who is not known, equals nobody."""
    known, rated = {patient for patient in train if patient}, list(val)
    shared = sum(patient is not None and patient in known for patient in rated)
    if not shared:
        return None
    share = 100 * shared / len(rated)
    return Finding(
        "error",
        f"{shared} of {len(rated)} validation images ({share:.1f} %) show a patient who is in training too: scores are "
        "too high",
        "make new folds by patient: pleura prepare --patients CSV",
    )


def pooled_dice(dice: Numbers, sizes: Numbers) -> float:
    """Dice of the pixels of all images together, in [0, 1]; NaN where there are none.

    dice: (N,) of each image. sizes: (N,) area of the true mask plus that of the predicted one, as a share of the image.
    Not comparable with a mean over images: large masks count more, and images where both masks are empty not at all.
    """
    total = float(sizes.sum())
    return float(dice @ sizes) / total if total else float("nan")


def reported_dice(reported: float, results: CaseResults, pooled: float) -> Finding | None:
    """Find out whether a Dice that was reported as the mean is another Dice of the same predictions.

    For example, the .8241 of arXiv 2509.03950 is the pooled Dice of all pixels. pooled: see `pooled_dice`.
    """
    positive, predicted_positive, dice = results.positive, results.predicted_positive, results.dice
    either = positive | predicted_positive
    numbers = {
        "the pooled Dice of all pixels": pooled,
        "the mean Dice of the positives alone": float(dice[positive].mean()) if positive.any() else float("nan"),
        "the mean Dice without the images where both masks are empty": float(dice[either].mean())
        if either.any()
        else float("nan"),
        "the mean Dice where empty masks that are rightly empty count 0": float((dice * either).mean()),
    }
    mean = float(dice.mean())
    if abs(reported - mean) <= REPORTED_WITHIN:
        return None
    same = [name for name, value in numbers.items() if abs(value - reported) <= REPORTED_WITHIN]
    if not same:
        return Finding(
            "warning",
            f"the reported Dice of {reported:g} is not the SIIM mean of these masks, {mean:.4f}, nor any other Dice "
            f"of them ({pooled:.4f} pooled)",
            "was it measured on these predictions?",
        )
    return Finding(
        "error",
        f"the reported Dice of {reported:g} is {same[0]}, and not the SIIM mean over images, which is {mean:.4f}",
        "do not compare it with mean scores; report the mean, its floor and Dice on positives (pleura score)",
    )
