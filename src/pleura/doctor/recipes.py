"""Recipes: ours, and the training YAMLs of the SIIM-ACR winner."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from pleura.config.bundled import load_experiment
from pleura.config.document import leaves, read_yaml
from pleura.config.idle import idle_settings
from pleura.config.imported.recipe import import_recipe
from pleura.config.recipe import Ensemble, Recipe
from pleura.doctor.examination import Examination
from pleura.errors import ConfigError
from pleura.extras import is_installed
from pleura.inference.device import pick_device
from pleura.inference.precision import choose_precision

THEIRS = ("PIPELINE_NAME", "TRAIN_TRANSFORMS", "CRITERION", "MODEL")
"""Keys of the winner's training files."""
ON_LOGITS = re.compile(r"logit|bce|focal|combo", re.IGNORECASE)
"""Names of losses that put a sigmoid before them."""


def examine_recipe(path: Path) -> Examination:
    """Examine a recipe, an ensemble, or a training file of another project.

    Raises: ConfigError if it is no YAML; InputError for a precision that the device does not have.
    """
    document = read_yaml(path, yaml.safe_load)
    if isinstance(document, dict) and sum(key in document for key in THEIRS) >= 2:
        return _theirs(path, document)
    try:
        experiment = load_experiment(path)
    except ConfigError as error:
        found = Examination("a recipe")
        found.error(str(error), "docs/settings.md has every setting")
        return found
    if isinstance(experiment, Ensemble):
        return Examination("an ensemble", [f"{experiment.name}: {len(experiment.members)} members"])
    return _ours(experiment)


def _ours(recipe: Recipe) -> Examination:
    found = Examination("a recipe", [f"{recipe.name}: {recipe.model.architecture} {recipe.model.encoder}"])
    if is_installed("torch"):  # nothing else here needs it
        precision = choose_precision(recipe.precision, pick_device(), training=True)
        found.facts.append(f"here it trains in {precision}")
    if recipe.model.input_scaling == "none" and recipe.model.pretrained and recipe.model.architecture == "unet":
        found.note(
            "images go in as [0, 1], the encoder's ImageNet weights have learned from another scaling",
            "set model.input_scaling=encoder, unless it repeats a published net",
        )
    for idle in idle_settings(recipe):
        found.warn(f"{idle.path} ({idle.value}) does nothing", idle.reason)
    for stage in recipe.stages:
        if stage.select == "siim_dice":
            found.note(
                f"stage {stage.name} chooses epochs by the SIIM mean Dice, which depends on the share of positives",
                "where validation has not SIIM's 22 %, set training.select=siim_dice_at_siim_prevalence",
            )
            break
    for before, after in zip(recipe.stages, recipe.stages[1:], strict=False):
        if after.lr > 10 * before.lr:
            found.note(
                f"stage {after.name} starts at {after.lr / before.lr:.0f} times the rate before it", "is it meant?"
            )
    return found


def _theirs(path: Path, document: dict[str, Any]) -> Examination:
    found = Examination("a training file of the SIIM-ACR winner's kind")
    activations = [where for where, value in leaves(document) if _is_sigmoid(where, value)]
    losses = [str(value) for where, value in leaves(document.get("CRITERION")) if ON_LOGITS.search(f"{where} {value}")]
    if activations and losses:
        found.error(
            f"{activations[0]}: a sigmoid in the net, and {losses[0]:.40} puts another before the loss",
            "let the net give logits; probabilities of such a net lie in [0.5, 0.73], or are all 0 or 1",
        )
    for key in ("TRAIN_TRANSFORMS", "VALID_TRANSFORMS"):
        _scaling(path, document.get(key), key, found)
    with tempfile.TemporaryDirectory() as folder:
        try:
            lines = import_recipe([path], Path(folder) / "recipe.yaml")
        except ConfigError as error:
            found.error(str(error), "pleura import-recipe cannot take it over")
            return found
    found.facts += lines
    found.warn(
        "FOLD.FILE: the widely copied folds are by image, and leak patients",
        "pleura doctor FOLDS.csv --patients CSV counts them; pleura prepare makes folds by patient",
    )
    return found


def _is_sigmoid(where: str, value: Any) -> bool:
    return isinstance(value, str) and value.lower() == "sigmoid" and "activ" in where.lower()


def _scaling(path: Path, named: Any, key: str, found: Examination) -> None:
    """Whether a file of transforms divides by 255 more than once: ToFloat, then Normalize with its own 255."""
    file = next((folder / str(named) for folder in path.resolve().parents if (folder / str(named)).is_file()), None)
    if file is None:
        return
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return  # import_recipe names the reason
    steps = list(_divisions(document))
    if len(steps) > 1:
        found.error(
            f"{key}: {named} divides by 255 more than once ({', '.join(steps)})",
            "take ToFloat out, or give Normalize max_pixel_value 1.0",
        )


def _divisions(document: Any) -> Iterator[str]:
    """The steps of albumentations that divide by 255, in order: ToFloat; Normalize, unless max_pixel_value is 1."""
    if isinstance(document, list):
        for item in document:
            yield from _divisions(item)
    elif isinstance(document, dict):
        kind = str(document.get("__class_fullname__", "")).rsplit(".", 1)[-1]
        if kind == "ToFloat" or (kind == "Normalize" and document.get("max_pixel_value", 255) != 1):
            yield kind
        for value in document.values():
            yield from _divisions(value)
