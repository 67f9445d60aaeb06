"""Validation while a net trains: what is scored, and that it is what `pleura evaluate` scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from places import SMOKE

from pleura.config.parse import load_recipe
from pleura.data.dataset import Dataset
from pleura.evaluation.evaluate import evaluate
from pleura.models.checkpoint import load_checkpoint
from pleura.training.devices import build_accelerator
from pleura.training.learner import Learner
from pleura.training.train import train
from pleura.training.validation import Validator


def test_a_stage_of_another_size_is_scored_as_evaluate_scores_its_checkpoint(dataset: Path, tmp_path: Path):
    fold = train(load_recipe(SMOKE, ("samples=0", "stages.high.size_px=40")), Dataset(dataset), tmp_path)
    best = fold / "best.safetensors"
    scores, found = load_checkpoint(best).scores, evaluate(best, dataset, resamples=2).report.metrics
    for name in ("siim_dice", "dice_on_positives", "auroc", "sensitivity", "specificity"):
        assert scores[name] == pytest.approx(found[name].value, abs=1e-6), name


def test_samples_are_drawn_with_the_masks_as_they_were_prepared(dataset: Path):
    data, recipe = Dataset(dataset), load_recipe(SMOKE)
    learner = Learner(recipe, data, build_accelerator(recipe), 0)
    low = recipe.stages[0]
    validator = Validator(learner.accelerator, data, data.indices("val", 0), False)
    ids, images, probabilities, masks = validator.samples(learner.net, low, learner.batches.preprocessing(low), 4)
    rows = {case.image_id: row for row, case in enumerate(data.cases)}
    assert np.array_equal(masks, data.masks([rows[each] for each in ids]))
    assert images.shape == probabilities.shape == masks.shape == (4, 64, 64)
