"""Claim: a warp from the prepared size to the stage's in one step keeps more fine detail than reducing before it.

Against: the mean over area to the stage's size, and the same warp of what is left of it. Detail is gratings of 0.3 to
0.45 cycles to a pixel of the stage, aliases are what is left of gratings of 0.55 to 0.95, which no pixel of the stage
can show: amplitudes after rotations by 7 to 31 degrees, squared for the energy of aliases. Time is of augmenting a
batch by the winner's settings, reduction included, processor time of one thread. Run: python benchmarks/warp.py
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from statistics import mean

import torch
from paired import in_turn, machine, milliseconds, ratio, table
from torch import Tensor

from pleura.config.augmentation import AugmentConfig
from pleura.data.augmentation import AugmentParameters, apply, sample_parameters
from pleura.models.resize import area_mean, mask_shares

BATCH, ROUNDS = 8, 7
SIZES = ((512, 256), (512, 384), (512, 448))
CONFIG = AugmentConfig()
OFF = {"horizontal_flip": 0, "affine_probability": 0, "distortion_probability": 0, "intensity_probability": 0}
DEGREES, DIRECTIONS = (7.0, 13.0, -20.0, 31.0), tuple(math.pi * step / 6 for step in range(6))
DETAIL, TOO_FINE = (0.3, 0.35, 0.4, 0.45), (0.55, 0.65, 0.75, 0.85, 0.95)


def augmented(
    images: Tensor, masks: Tensor, parameters: AugmentParameters, size_px: int, at_once: bool
) -> tuple[Tensor, Tensor]:
    """A batch of the prepared size, reduced and changed."""
    small = area_mean(images, size_px), mask_shares(masks, size_px)
    return apply(*small, parameters, CONFIG, larger=(images, masks) if at_once else None)


def grating(cycles_per_px: float, direction: float, side: int) -> Tensor:
    """(side, side) of a wave around 0.5, of amplitude 0.5."""
    place = torch.arange(side) + 0.5
    phase = place * math.cos(direction) + place[:, None] * math.sin(direction)
    return 0.5 + 0.5 * torch.cos(2 * math.pi * cycles_per_px * phase)


def amplitudes(frequencies: Sequence[float], side: int, size_px: int, at_once: bool) -> list[float]:
    """What is left of gratings of these cycles to a pixel of the stage, as shares of their amplitude."""
    turned = replace(
        sample_parameters(AugmentConfig(**OFF), len(DEGREES), (0,)), rotation_degrees=torch.tensor(DEGREES)
    )
    found = []
    for frequency in frequencies:
        for direction in DIRECTIONS:
            one = grating(frequency * size_px / side, direction, side)
            images = one.expand(len(DEGREES), 1, side, side)
            changed, _ = augmented(images, images, turned, size_px, at_once)
            inside = changed[..., size_px // 4 : -size_px // 4, size_px // 4 : -size_px // 4]
            found += (inside.std(dim=(1, 2, 3)) * math.sqrt(2) / 0.5).tolist()
    return found


@torch.no_grad()
def main() -> None:
    """Detail, aliases and time at each pair of sizes."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"batches of {BATCH}; {machine()}\n")
    rows = []
    for side, size_px in SIZES:
        detail = [mean(amplitudes(DETAIL, side, size_px, at_once)) for at_once in (True, False)]
        aliases = [
            mean(
                each**2 for each in amplitudes([f for f in TOO_FINE if f * size_px < side / 2], side, size_px, at_once)
            )
            for at_once in (True, False)
        ]
        images, masks = torch.rand(BATCH, 1, side, side), torch.zeros(BATCH, 1, side, side)
        masks[..., side // 4 : side // 2, side // 4 : side // 3] = 1
        drawn = sample_parameters(CONFIG, BATCH, (3,))
        calls = {
            name: lambda at_once=at_once, given=(images, masks, drawn, size_px): augmented(*given, at_once)
            for name, at_once in (("one step", True), ("two steps", False))
        }
        taken = in_turn(calls, ROUNDS, clock=time.process_time)
        shares = [f"{100 * one:.0f} % : {100 * two:.0f} %" for one, two in (detail, aliases)]
        times = [milliseconds(taken[name]) for name in calls]
        rows.append([f"{side} to {size_px} px", *shares, *times, ratio(taken["one step"], taken["two steps"])])
    table(("size", "detail kept, one : two steps", "aliases", "one step", "two steps", "one / two, time"), rows)


if __name__ == "__main__":
    main()
