"""Validation while a net trains: what is scored, and that it is what `pleura evaluate` scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
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


@pytest.mark.parametrize("deviations", [0.0, 1000.0])
def test_a_net_that_cancels_is_validated_in_float32_as_it_is_predicted(dataset: Path, deviations: float):
    data, samples = Dataset(dataset), []
    for precision in ("float32", "bfloat16"):
        recipe = load_recipe(SMOKE, (f"precision={precision}",))
        learner = Learner(recipe, data, build_accelerator(recipe), 0)
        norm = next(layer for layer in learner.net.modules() if isinstance(layer, torch.nn.BatchNorm2d))
        norm.running_mean[0] = deviations * (norm.running_var[0] + norm.eps).sqrt() / norm.weight[0].detach().abs()
        validator = Validator(learner.accelerator, data, data.indices("val", 0), False)
        low = recipe.stages[0]
        samples.append(validator.samples(learner.net, low, learner.batches.preprocessing(low), 4)[2])
    assert np.array_equal(*samples) is (deviations > 0)


def test_samples_are_drawn_with_the_masks_as_they_were_prepared(dataset: Path):
    data, recipe = Dataset(dataset), load_recipe(SMOKE)
    learner = Learner(recipe, data, build_accelerator(recipe), 0)
    low = recipe.stages[0]
    validator = Validator(learner.accelerator, data, data.indices("val", 0), False)
    ids, images, probabilities, masks = validator.samples(learner.net, low, learner.batches.preprocessing(low), 4)
    rows = {case.image_id: row for row, case in enumerate(data.cases)}
    assert np.array_equal(masks, data.masks([rows[each] for each in ids]))
    assert images.shape == probabilities.shape == masks.shape == (4, 64, 64)
