"""Faults of masks themselves: exchanged colours, cells that a spreadsheet cut, and a Dice that is not the mean."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pleura.measure.guards import Finding
from pleura.measure.metrics import Outcomes

Numbers = NDArray[np.float64]
REPORTED_WITHIN = 6e-4
"""A reported number is taken for one of ours within so much: three decimals, and a little."""

EXCHANGED_SHARE = 0.5
"""No pneumothorax covers more of an image: SIIM's largest covers 0.154."""
EXCHANGED = (
    "the mask covers more than half of the image, and SIIM's largest 15.4 %: are black and white exchanged, mask and "
    "background?"
)


def exchanged(shares: Mapping[str, float], side: str = "") -> Finding | None:
    """Whether masks cover more of their image than any pneumothorax does; shares in [0, 1] by name."""
    large = {name: share for name, share in shares.items() if share > EXCHANGED_SHARE}
    if not large:
        return None
    low, high = (100 * bound for bound in (min(large.values()), max(large.values())))
    cover = f"{low:.0f} %" if f"{low:.0f}" == f"{high:.0f}" else f"{low:.0f} to {high:.0f} %"
    return Finding(
        "warning",
        f"{len(large)} {side}masks cover {cover} of the image ({_some(large)}); SIIM's largest covers 15.4 %",
        "black and white look exchanged, mask and background: invert these masks",
    )


def about_source(
    blank: Sequence[str], cut: Sequence[str], without_segment: Sequence[str], side: str = ""
) -> Iterator[Finding]:
    """What is to be known of a source of masks as a whole: names of images with blank and with cut cells, and so on."""
    if cut:
        yield Finding(
            "warning",
            f"{len(cut)} cells {side}have 32,767 characters, the most that a spreadsheet keeps: the masks of "
            f"{_some(cut)} are cut",
            "take the csv from its source, and do not save it in a spreadsheet",
        )
    if blank:
        yield Finding(
            "note",
            f"{len(blank)} rows {side}have no runs: each counts as the empty mask ({_some(blank)})",
            "write -1, as SIIM does",
        )
    if without_segment:
        yield Finding(
            "note",
            f"{len(without_segment)} segmentations {side}have no such segment: each counts as the empty mask "
            f"({_some(without_segment)})",
            "check that the segment is named there as in the others",
        )


def _some(names: Iterable[str]) -> str:
    first = list(names)
    return ", ".join(first[:3]) + (" ..." if len(first) > 3 else "")


def pooled_dice(dice: Numbers, sizes: Numbers) -> float:
    """Dice of the pixels of all images together, in [0, 1]; NaN where there are none.

    dice: (N,) of each image. sizes: (N,) the area of both its masks together, as a share of the image. Images that are
    rightly called empty add nothing, and large masks count more than small ones: it compares with no mean over images.
    """
    total = float(sizes.sum())
    return float(dice @ sizes) / total if total else float("nan")


def reported_dice(reported: float, outcomes: Outcomes, pooled: float) -> Finding | None:
    """Whether a Dice that was reported as the mean is another number of the same predictions.

    Such as the pooled Dice of pixels, which the .8241 of arXiv 2509.03950 is.
    """
    positive, called, dice = outcomes.positive, outcomes.called, outcomes.dice
    either = positive | called
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
