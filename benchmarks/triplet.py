"""Search of the best triplet against trying the eight published ones, pixel by pixel, as validation code does.

Published code keeps the probabilities of the validation set and, for each triplet, thresholds every image and takes
its Dice. Ours keeps one histogram of each image and looks at all 256 x areas x 256 triplets. Both sides get the same
probabilities; the time of the histograms, made while the probabilities pass by, is told apart and counts as ours.

Images: phantom masks with probabilities made from them, smoothed, of 512 x 512. Processor time, one thread.
Run: python benchmarks/triplet.py
"""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
from numpy.typing import NDArray
from paired import in_turn, machine, ratio, table
from scipy.ndimage import gaussian_filter

from pleura.data.phantoms.radiographs import make_phantom
from pleura.decision.objectives import Objective
from pleura.decision.search import Histograms
from pleura.decision.triplet import Triplet
from pleura.evaluation.metrics.siim import siim_dice

SIDE_PX, IMAGES, LARGE = 512, 48, 12_000
PUBLISHED = [
    Triplet(top, area, bottom)
    for top, area in ((0.75, 1000), (0.75, 2000), (0.6, 2000), (0.6, 3000))
    for bottom in (0.3, 0.4)
]
"""The eight that the winner tried on validation."""


def images() -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Probabilities and masks (N, 512, 512) of phantoms: masks blurred, moved and with false alarms."""
    generator = np.random.default_rng(2026)
    masks = np.stack([make_phantom(seed, SIDE_PX).mask for seed in range(IMAGES)])
    found = []
    for mask in masks:
        noise = gaussian_filter(generator.normal(size=mask.shape), 25)
        logits = 6 * gaussian_filter(mask.astype(np.float64), 5) - 4 + 60 * noise
        found.append(1 / (1 + np.exp(-logits)))
    return np.stack(found).astype(np.float32), masks


def published(probabilities: NDArray[np.float32], masks: NDArray[np.uint8]) -> list[float]:
    """The mean Dice of each published triplet, image by image."""
    scores = []
    for triplet in PUBLISHED:
        pairs = zip(probabilities, masks, strict=True)
        dice = [siim_dice(mask, triplet.apply(image, SIDE_PX**2))[0] for image, mask in pairs]
        scores.append(float(np.mean(dice)))
    return scores


def many(histograms: Histograms, count: int) -> Histograms:
    """Histograms of `count` images: those at hand, mixed and thinned, so that no two areas need be equal."""
    generator = np.random.default_rng(0)
    rows = generator.integers(len(histograms), size=count)
    counts = generator.binomial(histograms.counts[rows], generator.uniform(0.5, 1, (count, 1, 1)))
    counts[rows % 3 > 0, :, 1] = 0
    counts[:, 0, 0] += SIDE_PX**2 - counts.sum(axis=(1, 2))
    return Histograms(counts)


def main() -> None:
    """Time both in turn on some images, then the search alone on as many as SIIM-ACR has."""
    probabilities, masks = images()
    histograms, objective = Histograms.of(probabilities, masks), Objective(prevalence=None)
    eight, best = published(probabilities, masks), objective.search(histograms)
    assert best.score >= max(eight) - 1e-9, "a published triplet beats the search"
    calls = {
        "theirs": lambda: published(probabilities, masks),
        "histograms": lambda: Histograms.of(probabilities, masks),
        "search": lambda: objective.search(histograms),
    }
    taken = in_turn(calls, rounds=5, clock=time.process_time)
    ours = [sum(pair) for pair in zip(taken["histograms"], taken["search"], strict=True)]
    print(f"{IMAGES} images of {SIDE_PX} px; {machine()}\n")
    rows = [["histograms and search", ratio(taken["theirs"], ours), ratio(taken["theirs"], taken["search"])]]
    table(("ours", "eight by pixels / ours", "eight by pixels / the search alone"), rows)
    print(f"\nscore of the best of the eight {max(eight):.4f}, of the search {best.score:.4f} (in sample)\n")
    crowd = many(histograms, LARGE)
    began = time.process_time()
    objective.search(crowd)
    seconds = time.process_time() - began
    tracemalloc.start()
    objective.search(crowd)
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    size = crowd.counts.nbytes / 2**20
    print(f"{LARGE} images: the search takes {seconds:.1f} s and {peak:.0f} MiB beside the {size:.0f} of histograms")


if __name__ == "__main__":
    main()
