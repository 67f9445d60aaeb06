"""What cannot be learned from, or scored by, is refused before an image is read."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from places import SMOKE, sealed

from pleura.config.parse import load_recipe
from pleura.data.dataset import Dataset
from pleura.errors import ConfigError, InputError, PleuraError
from pleura.training.devices import build_accelerator
from pleura.training.folds import train_folds
from pleura.training.learner import Learner
from pleura.training.refusals import global_batch_size, refuse_lone_images
from pleura.training.train import train


def with_masks(dataset: Path, out: Path, keep: Callable[[dict[str, str]], bool]) -> Dataset:
    """A copy of a dataset in which only some cases are positive."""
    shutil.copytree(dataset, out)
    rows = list(csv.DictReader((dataset / "cases.csv").read_text().splitlines()))
    for row in rows:
        if not keep(row):
            row |= {"has_pneumothorax": "0", "mask_rle": "-1"}
    with (out / "cases.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return Dataset(sealed(out))


def unread(data: Dataset) -> Dataset:
    data.images = None  # type: ignore[assignment]  # whatever reads an image fails
    return data


def smoke(*overrides: str):
    return load_recipe(SMOKE, ("samples=0", *overrides))


def refused(recipe, data: Dataset, out: Path, error: type[PleuraError], message: str) -> None:
    with pytest.raises(error, match=message):
        train(recipe, unread(data), out)
    assert not (out / "fold-0").exists()


def test_a_batch_of_one_under_batchnorm(dataset: Path, tmp_path: Path):
    message = r"^stages\.low\.batch_size: a batch of 1 leaves BatchNorm one image of 32 px .*; set it to 2 or more"
    refused(smoke("training.batch_size=1"), Dataset(dataset), tmp_path, ConfigError, message)
    message = r"^stages\.high\.batch_size: a batch of 1"
    refused(smoke("stages.high.batch_size=1"), Dataset(dataset), tmp_path, ConfigError, message)


def test_an_epoch_of_one_case_under_batchnorm(dataset: Path, tmp_path: Path):
    message = r"^stages\.low\.cases_per_epoch: a batch of 1 .* an epoch has 1 training case; it takes 2 at least$"
    refused(smoke("training.cases_per_epoch=1"), Dataset(dataset), tmp_path, ConfigError, message)


def test_a_share_of_one_image_for_each_process_under_batchnorm():
    low = smoke("training.batch_size=2").stages[0]
    message = r"stages\.low\.batch_size: a batch of 2, shared by 2 processes, .* 4 or more"
    with pytest.raises(ConfigError, match=message):
        refuse_lone_images(low, cases=9, processes=2, apart=2, trains_batchnorm=True)
    refuse_lone_images(low, cases=9, processes=2, apart=1, trains_batchnorm=True)  # as on GPUs
    refuse_lone_images(low, cases=9, processes=2, apart=2, trains_batchnorm=False)


def test_a_batch_of_one_without_batchnorm_that_learns_is_trained(dataset: Path, tmp_path: Path):
    net = ("model.encoder=test_convnext", "model.decoder_widths=[16,16,8]", "model.normalisation=none")
    few = ("training.batch_size=1", "training.cases_per_epoch=2", "training.augment.horizontal_flip=0")
    assert (train(smoke(*net, *few), Dataset(dataset), tmp_path) / "best.safetensors").is_file()


def test_a_frozen_encoder_needs_no_second_image(dataset: Path):
    frozen = ("training.freeze_encoder_epochs=1", "model.normalisation=none", "training.batch_size=1")
    recipe = smoke(*frozen)
    Learner(recipe, Dataset(dataset), build_accelerator(recipe), 0)
    thawed = smoke(*frozen, "training.epochs=2")
    with pytest.raises(ConfigError, match=r"stages\.low\.batch_size"):
        Learner(thawed, Dataset(dataset), build_accelerator(thawed), 0)


def test_training_cases_without_a_positive(dataset: Path, tmp_path: Path):
    data = with_masks(dataset, tmp_path / "data", lambda row: row["fold"] == "0")
    count = len(data.indices("train", 0))
    message = rf"none of the {count} training cases of fold 0 has a pneumothorax: stages\.low has nothing to learn from"
    refused(smoke(), data, tmp_path / "run", InputError, message)


def test_a_share_of_positives_where_a_teacher_has_only_negatives_to_fill(dataset: Path, run: Path, tmp_path: Path):
    data = with_masks(dataset, tmp_path / "data", lambda row: row["fold"] == "0")
    taught = (f"training.labels.teacher={run}", "stages.high.positive_rate=0.5")
    refused(
        smoke(*taught), data, tmp_path / "run", ConfigError, r"^stages\.high\.positive_rate: none of the \d+ training"
    )


def test_validation_cases_without_a_positive(dataset: Path, tmp_path: Path):
    data = with_masks(dataset, tmp_path / "data", lambda row: row["fold"] != "0")
    message = (
        r"validation cases of fold 0 has a pneumothorax: by stages\.low\.select=siim_dice finding nothing would be"
    )
    refused(smoke(), data, tmp_path / "run", InputError, message)


def test_a_later_fold_that_cannot_be_scored_is_refused_before_the_first_trains(dataset: Path, tmp_path: Path):
    data = with_masks(dataset, tmp_path / "data", lambda row: row["fold"] != "2")
    with pytest.raises(InputError, match="of fold 2 has a pneumothorax"):
        train_folds(smoke(), unread(data), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_score_that_needs_negatives_too(dataset: Path, tmp_path: Path):
    data = Dataset(dataset)
    data.positive = np.ones_like(data.positive)
    refused(
        smoke("training.select=auroc"), data, tmp_path, InputError, "positives alone, so that stages.low.select=auroc"
    )


def test_fewer_cases_than_processes():
    message = r"stages\.low: an epoch has 2 training cases, fewer than the 4 processes that share it"
    with pytest.raises(ConfigError, match=message):
        global_batch_size(smoke().stages[0], cases=2, processes=4)
