"""A short recipe for tests of training, and what tests read of its run."""

from __future__ import annotations

import csv
from pathlib import Path

import torch
from places import SMOKE

from pleura.config.parse import load_recipe
from pleura.config.recipe import Recipe
from pleura.models.checkpoint import load_checkpoint

QUIET = ("samples=0", "training.cases_per_epoch=8")


def smoke(*overrides: str) -> Recipe:
    """The smoke recipe with two steps an epoch and no samples."""
    return load_recipe(SMOKE, (*QUIET, *overrides))


def low_alone(*overrides: str) -> Recipe:
    """`smoke` without its second stage."""
    recipe = smoke(*overrides)
    return recipe.model_copy(update={"stages": recipe.stages[:1]})


def weights_of(fold: Path, name: str = "best") -> dict[str, torch.Tensor]:
    return load_checkpoint(fold / f"{name}.safetensors").weights


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))
