"""Which layers of an int8 export stay in float32: those that hurt, measured on the images that it is calibrated on.

An int8 layer computes with 255 numbers in place of billions, spread over what the calibration images gave there. Some
layers bear that, and others, such as the first ones of a MobileNetV2, do not: so each is tried alone, and as many of
the worst stay float32 as it takes. Weights have 7 bits: a CPU without VNNI adds two products in 16 bits, which 8-bit
weights would overflow, silently. So CPUs with and without it compute the same sums.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from pleura.decision.triplet import Triplet
from pleura.errors import CheckpointError
from pleura.evaluation.metrics.siim import siim_dice
from pleura.evaluation.scoring import on_grid
from pleura.progress import track

LEAST_LIKENESS = 0.9975
"""Mean Dice between the masks in float32 and in int8 on the calibration images: half of what the certificate allows.
A changed decision counts 0, so that of 64 images none may change."""
RANKED_ON = 6
"""Images on which each layer is tried alone."""
TIMED_ON = 7
"""Images by which int8 and float32 are timed."""
Run: TypeAlias = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Squares (n, S, S) -> probabilities (n, h, h) in [0, 1]."""


@dataclass(frozen=True)
class Quantised:
    """A graph in int8."""

    parts: tuple[bytes, ...]
    """As `Form.convert` returns them."""
    int8_layers: tuple[str, ...]
    float_layers: tuple[str, ...]
    """Of those that could be int8."""
    gain: float
    """How many times as fast as the same graph in float32, by `gain_of`."""


class Likeness:
    """How like float32 something is on calibration images."""

    def __init__(self, squares: NDArray[np.uint8], probabilities: NDArray[np.float32], triplet: Triplet) -> None:
        """squares: (n, S, S). probabilities: what float32 gives, (n, h, h)."""
        self.squares, self.probabilities, self.triplet = squares, probabilities, triplet

    def of(self, found: NDArray[np.float32], indices: Sequence[int]) -> NDArray[np.float64]:
        """Return the Dice between both masks of some of the images, (k,) in [0, 1]; 0 where the decision differs.

        found: their probabilities, (k, h, h).
        """
        side_px = self.squares.shape[-1]
        both = [
            np.stack([self.triplet.apply(each, side_px**2) for each in on_grid(_usable(one), side_px)])
            for one in (self.probabilities[list(indices)], found)
        ]
        return siim_dice(*both)

    def distance(self, run: Run, count: int) -> float:
        """Return the mean over the first images of the largest difference of a probability, in [0, 1]."""
        found = _usable(run(self.squares[:count]))
        return float(np.abs(found - self.probabilities[:count]).max(axis=(1, 2)).mean())

    def mean(self, run: Run) -> float:
        """Return the mean of `of` over all images."""
        return float(self.of(run(self.squares), range(len(self.squares))).mean())


def choose_float_layers(
    layers: Sequence[str], build: Callable[[Sequence[str]], Run], like: Likeness, what: str
) -> tuple[str, ...]:
    """Return as few layers as it takes in float32, in the order of `layers`.

    layers: those that can be int8. build: layers that stay float32 -> what the graph computes. what: it is, for a
    refusal.
    Raises: CheckpointError if no layer can be int8.
    """
    harm: dict[str, float] = {}
    for layer in track(layers, "int8: each layer alone"):
        run = build([other for other in layers if other != layer])
        harm[layer] = like.distance(run, RANKED_ON)
    worst_first = sorted(layers, key=lambda layer: -harm[layer])
    # As few of the worst as it takes, by halves: more of them are, but for chance, more like float32.
    least, most = 0, len(layers)
    while least < most:
        tried = (least + most) // 2
        if like.mean(build(worst_first[:tried])) >= LEAST_LIKENESS:
            most = tried
        else:
            least = tried + 1
    if least == len(layers):
        raise none_left(what)
    floats = set(worst_first[:least])
    return tuple(layer for layer in layers if layer in floats)


def gain_of(before: Run, after: Run, squares: NDArray[np.uint8]) -> float:
    """Return how many times as fast `after` is, the median over images in turn, in processor time of all threads.

    Other work on this machine falls on neither then.
    """
    gains = []
    for square in squares[: TIMED_ON + 1]:
        took = []
        for run in (before, after):
            began = time.process_time()
            run(square[None])
            took.append(time.process_time() - began)
        gains.append(took[0] / max(took[1], 1e-9))
    return float(np.median(gains[1:]))  # in the first pass memory is mapped


def none_left(what: str) -> CheckpointError:
    """Return the refusal of a net whose every layer has to stay float32."""
    return CheckpointError(
        f"{what} has no layer that can be int8: with any of them masks or decisions on the calibration images change "
        "too much; leave out --int8"
    )


def _usable(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.clip(np.nan_to_num(probabilities, nan=0.0, posinf=1.0, neginf=0.0), 0, 1)
