"""A short recipe for tests of training, and what tests read of its run."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from places import SMOKE

from pleura.config.parse import load_recipe
from pleura.config.recipe import Recipe
from pleura.data.dataset import Dataset
from pleura.models.checkpoint import load_checkpoint
from pleura.training import stage as loop
from pleura.training.train import train

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


def train_until(step: int, recipe: Recipe, data: Dataset, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is stopped in its step number `step`."""
    steps, total_loss = list[int](), loop.total_loss

    def stopped(*arguments: Any) -> Any:
        steps.append(1)
        if len(steps) == step:
            raise KeyboardInterrupt
        return total_loss(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "total_loss", stopped)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, data, out)
