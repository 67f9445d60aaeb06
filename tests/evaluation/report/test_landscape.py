"""The picture of the score around a triplet."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from pleura.decision.objectives import Objective
from pleura.decision.search import Histograms
from pleura.decision.triplet import Triplet
from pleura.evaluation.nested import landscape
from pleura.evaluation.report.landscape import landscape_png

WHITE_DOTS, CROSS = (255, 255, 255), (213, 94, 0)


@pytest.mark.parametrize("name", ["siim_dice", "dice_on_positives"])
def test_the_picture_has_the_chosen_triplet_on_it(name: str):
    generator = np.random.default_rng(0)
    probabilities = generator.random((8, 16, 16)).astype(np.float32)
    masks = (generator.random((8, 16, 16)) < 0.2).astype(np.uint8)
    masks[:3] = 0
    histograms, triplet = Histograms.of(probabilities, masks), Triplet(0.8, 500, 0.4)
    around = landscape(histograms, Objective(name), triplet)
    content = landscape_png(around, triplet, [Triplet(0.7, 90, 0.3)], name)
    with Image.open(BytesIO(content)) as picture:
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    assert (pixels == CROSS).all(axis=1).sum() > 50
    assert len(np.unique(pixels, axis=0)) > 50  # a map, not one colour
    assert content == landscape_png(around, triplet, [Triplet(0.7, 90, 0.3)], name)
