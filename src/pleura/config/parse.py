"""Reads recipes and model cards: YAML, overrides, and every fault of a file at once, by its dotted path."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Len
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from pleura.config.document import NOT_YAML, parse_yaml, read_yaml
from pleura.config.faults import in_words
from pleura.config.idle import idle_overrides
from pleura.config.model import ModelConfig
from pleura.config.overrides import apply_overrides, void_overrides
from pleura.config.recipe import Ensemble, Recipe
from pleura.config.training import TrainingConfig
from pleura.errors import ConfigError

Line = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Lines = Line | Annotated[list[Line], Len(1)]


class Card(BaseModel):
    """What whoever is handed a model has to know of it, besides numbers; one text or several in each field."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    title: Line
    intended_use: Lines
    data: Lines
    saw: Lines
    did_not_see: Lines
    known_failures: Lines
    attribution: Lines
    licence: Lines


def load_recipe(path: Path, overrides: Iterable[str] = (), strict: bool = False) -> Recipe:
    """Read a recipe file, apply `dotted.key=value` overrides, and check everything.

    `training.KEY` changes every stage, also those that have a value of their own; `stages.NAME.KEY` one stage (by name
    or by position from 0). strict: for what somebody has typed; an override that changes nothing, because of another
    one or of another setting, is refused with that one.
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
    """The recipe of a document, or None, and what is wrong with it."""
    document = dict(document)
    training = document.pop("training", {})
    stages = written = document.get("stages")
    if isinstance(stages, list) and isinstance(training, dict):
        document["stages"] = [_merged(training, stage) if isinstance(stage, dict) else stage for stage in stages]
    faults = [] if isinstance(training, dict) else ["training: must be a mapping of settings"]
    recipe = None
    try:
        # JSON, because strict validation of Python objects refuses a list where a pair is meant.
        recipe = Recipe.model_validate_json(json.dumps(document, default=str))
    except ValidationError as error:
        faults += in_words(error, training, written)
    except (TypeError, ValueError) as error:
        faults.append(f"holds something that no recipe can ({error})")
    return recipe, list(dict.fromkeys([*faults, *_of_training(training)]))


def _of_training(training: Any) -> list[str]:
    """What is wrong with `training` itself, also where every stage has a value of its own.

    A combination of settings is no fault there: a stage may complete it.
    """
    if not isinstance(training, dict):
        return []
    try:
        TrainingConfig.model_validate_json(json.dumps(training, default=str))
    except ValidationError as error:
        return in_words(error, under=("training",), combinations=False)
    except (TypeError, ValueError):
        return []  # of the whole document it has been said
    return []


def load_ensemble(path: Path) -> Ensemble | None:
    """Read and check the file of an ensemble, its members' recipes apart; None where it names no members.

    What is no ensemble is for `load_recipe` to read, and to refuse. Raises: ConfigError that names every fault.
    """
    try:
        document = parse_yaml(path.read_text(encoding="utf-8"))
    except (OSError, *NOT_YAML):
        return None
    if not isinstance(document, dict) or "members" not in document:
        return None
    try:
        return Ensemble.model_validate_json(json.dumps(document, default=str))
    except ValidationError as error:
        raise ConfigError(f"{path}: " + "; ".join(in_words(error, root=Ensemble))) from error
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{path}: holds something that no ensemble can ({error})") from error


def load_card(path: Path) -> Card:
    """Read and check the card of a model, a YAML file. Raises: ConfigError that names every fault."""
    document = read_yaml(path)
    fields = ", ".join(Card.model_fields)
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: a card is a mapping with the keys {fields}")
    try:
        return Card.model_validate_json(json.dumps(document, default=str))
    except ValidationError as error:
        # A field that may be one text or several has a fault for each: the first is enough.
        faults = {str(item["loc"][0]): item for item in reversed(error.errors())}
        told = (f"{key}: {_in_card(item['type'])}" for key, item in sorted(faults.items()))
        raise ConfigError(f"{path}: {'; '.join(told)}; its keys are {fields}") from error
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{path}: holds something that no card can ({error})") from error


def _in_card(fault: str) -> str:
    return {"extra_forbidden": "unknown key", "missing": "is missing"}.get(fault, "must be a text or a list of texts")


def parse_model(document: Mapping[str, Any]) -> ModelConfig:
    """Check the settings of a net given as a mapping. Raises: ConfigError."""
    try:
        return ModelConfig.model_validate_json(json.dumps(dict(document), default=str))
    except ValidationError as error:
        phrases = [phrase.removeprefix("recipe: ") for phrase in in_words(error, root=ModelConfig)]
        raise ConfigError("model: " + "; ".join(phrases)) from error


def _merged(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in change.items():
        old = merged.get(key)
        merged[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged
