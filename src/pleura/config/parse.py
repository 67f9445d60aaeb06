"""Reads recipes, ensembles and model cards: YAML, overrides, and every fault of a file in one refusal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pleura.config.card import Card
from pleura.config.document import NOT_YAML, parse_yaml, read_yaml
from pleura.config.faults import check
from pleura.config.idle import idle_overrides
from pleura.config.model import ModelConfig
from pleura.config.overrides import apply_overrides, void_overrides
from pleura.config.recipe import Ensemble, Recipe
from pleura.config.training import TrainingConfig
from pleura.errors import ConfigError


def load_recipe(path: Path, overrides: Iterable[str] = (), strict: bool = False) -> Recipe:
    """Read a recipe file, apply `dotted.key=value` overrides, and check everything.

    `training.KEY` changes every stage, also those that have a value of their own; `stages.NAME.KEY` one stage (by name
    or by position from 0). strict: an override without effect, because of another override or setting, is refused.
    Raises: ConfigError that names every fault of file and overrides by its dotted path.
    """
    document = read_yaml(path)
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: a recipe is a mapping with the key 'stages'; see recipes/ for examples")
    given, faults = apply_overrides(document, overrides)
    recipe, wrong = _checked(document)
    if strict:
        wrong += [*void_overrides(given, document.get("stages")), *(idle_overrides(recipe, given) if recipe else ())]
    if faults or wrong or recipe is None:
        raise ConfigError(f"{path}: " + "; ".join([*faults, *wrong]))
    return recipe


def parse_recipe(document: Mapping[str, Any], origin: str = "recipe") -> Recipe:
    """Check a recipe given as a mapping: `training` is merged into each stage. Raises: ConfigError."""
    recipe, faults = _checked(document)
    if faults or recipe is None:
        raise ConfigError(f"{origin}: " + "; ".join(faults))
    return recipe


def _checked(document: Mapping[str, Any]) -> tuple[Recipe | None, list[str]]:
    """The recipe of a document, or None, and its faults."""
    document = dict(document)
    training = document.pop("training", {})
    stages = written = document.get("stages")
    if not isinstance(training, dict):
        recipe, faults = check(Recipe, document, stages=written)
        return recipe, ["training: must be a mapping of settings", *faults]
    if isinstance(stages, list):
        document["stages"] = [_merged(training, stage) if isinstance(stage, dict) else stage for stage in stages]
    recipe, faults = check(Recipe, document, training=training, stages=written)
    # `training` itself too, since every stage may have values of its own. A combination is no fault in it: a stage may
    # complete it.
    _, of_training = check(TrainingConfig, training, under="training", combinations=False)
    return recipe, list(dict.fromkeys([*faults, *of_training]))


def load_ensemble(path: Path) -> Ensemble | None:
    """Read and check the file of an ensemble, not its members' recipes; None where the file names no members.

    Any other file is left to `load_recipe`, which refuses what it cannot read. Raises: ConfigError that names every
    fault.
    """
    try:
        document = parse_yaml(path.read_text(encoding="utf-8"))
    except (OSError, *NOT_YAML):
        return None
    if not isinstance(document, dict) or "members" not in document:
        return None
    ensemble, faults = check(Ensemble, document)
    if ensemble is None:
        raise ConfigError(f"{path}: " + "; ".join(faults))
    return ensemble


def load_card(path: Path) -> Card:
    """Read and check the card of a model, a YAML file. Raises: ConfigError that names every fault."""
    document = read_yaml(path)
    fields = ", ".join(Card.model_fields)
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: a card is a mapping with the keys {fields}")
    card, faults = check(Card, document)
    if card is None:
        raise ConfigError(f"{path}: {'; '.join(faults)}; its keys are {fields}")
    return card


def parse_model(document: Mapping[str, Any]) -> ModelConfig:
    """Check the settings of a net given as a mapping. Raises: ConfigError."""
    model, faults = check(ModelConfig, dict(document), under="model")
    if model is None:
        raise ConfigError("; ".join(faults))
    return model


def _merged(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in change.items():
        old = merged.get(key)
        merged[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged
