"""Reads recipes and model cards: YAML, overrides, and every fault of a file at once, by its dotted path."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from annotated_types import Len
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from pleura.errors import ConfigError
from pleura.settings import (
    AugmentConfig,
    AveragingConfig,
    Ensemble,
    LabelsConfig,
    LossConfig,
    MemberConfig,
    ModelConfig,
    Recipe,
    RuleConfig,
    ScheduleConfig,
    StageConfig,
)

NOT_YAML = (yaml.YAMLError, ValueError, RecursionError)
"""What PyYAML raises: ValueError for dates that are none, RecursionError for brackets without end."""


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


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads 1e-4 as text; people who write learning rates mean the number."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


_ALTERNATIVE = re.compile(r"^(function-|constrained-|tuple\[)|^(bool|str|float|int)$")
"""What pydantic puts into the path of a fault for each type that a value may have."""


def _read_yaml(path: Path) -> Any:
    """What a YAML file holds. Raises: ConfigError if it cannot be read."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    except NOT_YAML as error:
        raise ConfigError(f"{path}: is not YAML ({' '.join(str(error).split())})") from error


def load_recipe(path: Path, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe file, apply `dotted.key=value` overrides, and check everything.

    `training.KEY` changes what all stages share; `stages.NAME.KEY` one stage (by name or by position from 0).
    Raises: ConfigError that names every fault by its dotted path.
    """
    document = _read_yaml(path)
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: a recipe is a mapping with the key 'stages'; see recipes/ for examples")
    for override in overrides:
        _override(document, override)
    return parse_recipe(document, str(path))


def parse_recipe(document: Mapping[str, Any], origin: str = "recipe") -> Recipe:
    """Check a recipe given as a mapping: `training` is merged into each stage. Raises: ConfigError."""
    document = dict(document)
    training = document.pop("training", {})
    stages = written = document.get("stages")
    if isinstance(stages, list) and isinstance(training, dict):
        document["stages"] = [_merged(training, stage) if isinstance(stage, dict) else stage for stage in stages]
    faults = [] if isinstance(training, dict) else ["training: must be a mapping of settings"]
    try:
        # JSON, because strict validation of Python objects refuses a list where a pair is meant.
        recipe = Recipe.model_validate_json(json.dumps(document, default=str))
    except ValidationError as error:
        told = [_fault(item, training, written) for item in error.errors()]
        # A value that may be of several types has a fault for each: the first is enough.
        faults += list({fault.split(": ")[0]: fault for fault in reversed(told)}.values())[::-1]
    except (TypeError, ValueError) as error:
        faults.append(f"holds something that no recipe can ({error})")
    if faults:
        raise ConfigError(f"{origin}: " + "; ".join(faults))
    return recipe


def load_ensemble(path: Path) -> Ensemble | None:
    """Read and check the file of an ensemble, its members' recipes apart; None where it names no members.

    What is no ensemble is for `load_recipe` to read, and to refuse. Raises: ConfigError that names every fault.
    """
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (OSError, *NOT_YAML):
        return None
    if not isinstance(document, dict) or "members" not in document:
        return None
    try:
        return Ensemble.model_validate_json(json.dumps(document, default=str))
    except ValidationError as error:
        raise ConfigError(f"{path}: " + "; ".join(_fault(item, {}, []) for item in error.errors())) from error
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{path}: holds something that no ensemble can ({error})") from error


def load_card(path: Path) -> Card:
    """Read and check the card of a model, a YAML file. Raises: ConfigError that names every fault."""
    document = _read_yaml(path)
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
        raise ConfigError("model: " + "; ".join(_fault(item, {}, []) for item in error.errors())) from error


def _merged(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in change.items():
        old = merged.get(key)
        merged[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _override(document: dict[str, Any], override: str) -> None:
    dotted, separator, text = override.partition("=")
    if not separator or not dotted:
        raise ConfigError(f"{override!r} is no override; write key=value, as in training.lr=1e-4")
    try:
        value = yaml.load(text, _Loader)
    except NOT_YAML as error:
        raise ConfigError(f"{override!r}: the value is not YAML") from error
    node: Any = document
    *parents, last = dotted.split(".")
    for key in parents:
        if isinstance(node, list):
            node = _stage_named(node, key, override)
        elif isinstance(node, dict):
            node = node.setdefault(key, {})
        else:
            raise ConfigError(f"{override!r}: {key} lies below a plain value")
    if not isinstance(node, dict):
        raise ConfigError(f"{override!r}: names no setting; write stages.NAME.KEY=value")
    node[last] = value


def _stage_named(stages: list[Any], key: str, override: str) -> Any:
    for position, stage in enumerate(stages):
        if key == str(position) or (isinstance(stage, dict) and stage.get("name") == key):
            return stage
    names = ", ".join(str(stage.get("name")) for stage in stages if isinstance(stage, dict))
    raise ConfigError(f"{override!r}: there is no stage {key!r}; the stages are {names}")


def _fault(item: Any, training: Any, stages: Any) -> str:
    """One fault in one phrase, at the place where the user wrote it: `training`, unless the stage says it itself."""
    path = [str(part) for part in item["loc"] if not _ALTERNATIVE.match(str(part))]
    if len(path) > 2 and path[0] == "stages" and _holds(training, path[2:]) and not _holds(stages, path[1:]):
        path = ["training", *path[2:]]
    dotted = ".".join(path) or "recipe"
    if item["type"] == "extra_forbidden":
        close = difflib.get_close_matches(path[-1], [key for key in _known_keys() if key != path[-1]], n=1)
        return f"{dotted}: unknown setting" + (f"; did you mean {close[0]}?" if close else "")
    message = item["msg"].removeprefix("Value error, ")
    given = "" if item["type"] in ("missing", "value_error") else f" (given: {item['input']!r:.60})"
    return f"{dotted}: {message[:1].lower()}{message[1:]}{given}"


def _holds(tree: Any, path: list[str]) -> bool:
    for key in path:
        if isinstance(tree, list) and key.isdecimal() and int(key) < len(tree):
            tree = tree[int(key)]
        elif isinstance(tree, dict) and key in tree:
            tree = tree[key]
        else:
            return False
    return True


def _known_keys() -> list[str]:
    kinds = (Recipe, StageConfig, ModelConfig, LossConfig, ScheduleConfig, AveragingConfig, AugmentConfig)
    every = (*kinds, LabelsConfig, Ensemble, MemberConfig, RuleConfig)
    return ["training", *dict.fromkeys(key for kind in every for key in kind.model_fields)]
