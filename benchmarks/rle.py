"""Claim: run-length coding of a 1024 x 1024 mask takes under 1 ms; encoding at least 400 times less than published.

Against: `mask2rle` and `rle2mask` as SIIM-ACR 2019 handed them out and as most solutions carry them along, in Python
over numpy arrays: the encoder walks every pixel, the decoder writes a slice for each run. A decoder that walks every
pixel, which nobody published, is there for symmetry. pycocotools stands beside them for scale: C, the same
column-major order, another string format (COCO's compressed counts), so it is no drop-in.

Masks: 200 real ones of SIIM-ACR where ../shared/data holds the csv, else phantoms. Processor time, one thread.
Run: python benchmarks/rle.py
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from paired import machine, milliseconds, ratio, seconds, table
from pycocotools import mask as coco

from pleura.data import rle
from pleura.data.mask_csv import read_table
from pleura.data.phantoms.radiographs import make_phantom

SIDE_PX = 1024
CSV = Path(__file__).resolve().parents[2] / "shared/data/labels/siim-train-rle.csv"
Mask = NDArray[np.uint8]


def published_encode(transposed: Mask, width: int, height: int) -> str:
    """`mask2rle` of SIIM-ACR 2019, but for its 255: expects the mask transposed; drops a run on the last pixel."""
    runs = []
    last_colour, current_pixel, run_start, run_length = 0, 0, -1, 0
    for x in range(width):
        for y in range(height):
            current_colour = transposed[x][y]
            if current_colour != last_colour:
                if current_colour == 1:
                    run_start, run_length = current_pixel, 1
                else:
                    runs += [str(run_start), str(run_length)]
                    run_start, run_length, current_pixel = -1, 0, 0
            elif run_start > -1:
                run_length += 1
            last_colour = current_colour
            current_pixel += 1
    return " ".join(runs)


def per_pixel_decode(text: str, width: int, height: int) -> Mask:
    """The encoder's loop the other way round, over every pixel. Nobody published it: a restatement, for symmetry."""
    transposed = np.zeros((width, height), np.uint8)
    numbers = iter(map(int, text.split()))
    colour, left = 0, next(numbers)
    for x in range(width):
        for y in range(height):
            while left == 0:
                colour, left = 1 - colour, next(numbers, -1)
            if colour == 1 and left > 0:
                transposed[x][y] = 1
            left -= 1
    return transposed.T


def published_decode(text: str, width: int, height: int) -> NDArray[np.float64]:
    """`rle2mask` of SIIM-ACR 2019: one slice for each run."""
    mask = np.zeros(width * height)
    array = np.asarray([int(number) for number in text.split()])
    starts, lengths = array[0::2], array[1::2]
    current = 0
    for index, start in enumerate(starts):
        current += start
        mask[current : current + lengths[index]] = 1
        current += lengths[index]
    return mask.reshape(width, height).T


def masks_to_measure(count: int) -> tuple[list[Mask], str]:
    """Positive masks of 1024 x 1024, and what they are."""
    if CSV.is_file():
        texts = [rows for rows in read_table(CSV).runs.values() if rows[0] != rle.EMPTY]
        chosen = np.random.default_rng(2026).choice(len(texts), count, replace=False)
        return [rle.decode_union(texts[at]) for at in chosen], f"{count} real masks of SIIM-ACR 2019"
    masks = [make_phantom(seed, SIDE_PX).mask for seed in range(count // 8)]
    return [mask for mask in masks if mask.any()], "phantom masks (the csv of SIIM-ACR is not at hand)"


def cpu_seconds(call: Callable[[], object], repeats: int = 1) -> float:
    """Processor time, so that what else the machine does is left out; all of this runs on one thread."""
    return seconds(call, repeats, clock=time.process_time)


def main() -> None:
    """Time every mask once with each loop, and print the ratios mask by mask."""
    masks, what = masks_to_measure(200)
    sides = ("ours", "published", "per pixel", "pycocotools")
    encode: dict[str, list[float]] = {side: [] for side in sides}
    decode: dict[str, list[float]] = {side: [] for side in sides}
    for number, mask in enumerate(masks):
        text, transposed, fortran = rle.encode(mask), mask.T, np.asfortranarray(mask)
        packed = coco.encode(fortran)
        assert np.array_equal(rle.decode(text), mask), "our round trip is not exact"
        encode["ours"].append(cpu_seconds(lambda mask=mask: rle.encode(mask), 5))
        # From a row-major mask, as ours: the copy to column-major order is part of the work.
        encode["pycocotools"].append(cpu_seconds(lambda mask=mask: coco.encode(np.asfortranarray(mask)), 5))
        decode["ours"].append(cpu_seconds(lambda text=text: rle.decode(text), 5))
        decode["published"].append(cpu_seconds(lambda text=text: published_decode(text, SIDE_PX, SIDE_PX), 5))
        decode["pycocotools"].append(cpu_seconds(lambda packed=packed: np.ascontiguousarray(coco.decode(packed)), 5))
        if number % 8 == 0:  # the slow loops take half a second a mask each
            encode["published"].append(cpu_seconds(lambda mask=transposed: published_encode(mask, SIDE_PX, SIDE_PX)))
            decode["per pixel"].append(cpu_seconds(lambda text=text: per_pixel_decode(text, SIDE_PX, SIDE_PX)))
            if not mask[-1, -1]:
                assert published_encode(transposed, SIDE_PX, SIDE_PX) == text, "the published loop says otherwise"
            for loop in (per_pixel_decode, published_decode):
                assert np.array_equal(loop(text, SIDE_PX, SIDE_PX), mask), f"{loop.__name__} says otherwise"
    print(f"{what}; {machine()}\n")
    rows = [["encode, published loop per pixel", *_against(encode, "published", 8)]]
    rows.append(["decode, loop per pixel", *_against(decode, "per pixel", 8)])
    rows.append(["decode, published loop per run", *_against(decode, "published", 1)])
    rows.append(["encode, pycocotools (C)", *_against(encode, "pycocotools", 1)])
    rows.append(["decode, pycocotools (C)", *_against(decode, "pycocotools", 1)])
    table(("against", "theirs", "ours", "theirs / ours, mask by mask"), rows)
    for name, taken in (("encode", encode["ours"]), ("decode", decode["ours"])):
        below = sum(value < 1e-3 for value in taken)
        print(f"\nour {name}: under 1 ms for {below} of {len(taken)} masks; the slowest {max(taken) * 1000:.2f} ms")


def _against(taken: dict[str, list[float]], side: str, step: int) -> list[str]:
    theirs, ours = taken[side], taken["ours"][::step]
    return [milliseconds(theirs), milliseconds(ours), ratio(theirs, ours)]


if __name__ == "__main__":
    main()
