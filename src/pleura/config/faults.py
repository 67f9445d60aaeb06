"""Checks a document against its schema, and explains each fault: its dotted path, and the setting that may be meant."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from pleura.config.strict import Strict

Schema = TypeVar("Schema", bound=BaseModel)

_ALTERNATIVE = re.compile(r"^(function-|constrained-|tuple\[|list\[)|^(bool|str|float|int)$")
"""The parts of a fault's path in which pydantic names a type that the value may have."""

_ELSEWHERE = {
    "amsgrad": "optimizer",
    "arch": "architecture",
    "augmentation": "augment",
    "augmentations": "augment",
    "backbone": "encoder",
    "batch": "batch_size",
    "bs": "batch_size",
    "channels": "in_channels",
    "clip": "gradient_clip",
    "decoder_channels": "decoder_widths",
    "encoder_name": "encoder",
    "encoder_weights": "pretrained",
    "grad_clip": "gradient_clip",
    "image_size": "size_px",
    "imagenet": "pretrained",
    "img_size": "size_px",
    "input_size": "size_px",
    "learning_rate": "lr",
    "loss_fn": "loss",
    "max_epochs": "epochs",
    "n_epochs": "epochs",
    "norm": "normalisation",
    "normalization": "normalisation",
    "num_classes": "classes",
    "num_epochs": "epochs",
    "patience": "early_stopping",
    "random_seed": "seed",
    "random_state": "seed",
    "resolution": "size_px",
    "size": "size_px",
    "scheduler": "schedule",
    "wd": "weight_decay",
}
"""Names of settings in other projects."""
_OPTIONS = ("data", "device", "fold", "out", "parallel", "resume", "stage", "tensorboard", "weights")
"""Options of `pleura train`, which are no settings of a recipe."""


def check(
    schema: type[Schema],
    document: Any,
    *,
    under: str = "",
    training: Any = None,
    stages: Any = None,
    combinations: bool = True,
) -> tuple[Schema | None, list[str]]:
    """Return a document as an instance of its schema, or None and a phrase for each fault, by its dotted path.

    under: the section of a recipe that the document is; a path then begins with it. training, stages: those sections of
    a recipe before the former was merged into the latter; a fault is named where it was written. combinations: whether
    settings that do not fit together are faults.
    """
    try:
        # JSON, because strict validation of Python objects refuses a list where a pair is meant.
        return schema.model_validate_json(json.dumps(document, default=str)), []
    except ValidationError as error:
        root: type[BaseModel] = _of_a_recipe()[0] if under else schema
        phrases: dict[str, str] = {}
        for item in error.errors():
            if combinations or item["type"] != "value_error":
                path = [part for part in (under, *map(str, item["loc"])) if part and not _ALTERNATIVE.match(part)]
                path = _where_written(path, training, stages)
                dotted = ".".join(path) or schema.__name__.lower()
                phrases.setdefault(dotted, f"{dotted}: {_phrase(item, path, root)}")  # pydantic has one for each type
        return None, list(phrases.values())
    except (TypeError, ValueError) as error:
        return None, [f"holds something that JSON cannot represent ({error})"]


def _of_a_recipe() -> tuple[type[BaseModel], type[BaseModel]]:
    """The schemas of a recipe and of `training`, imported where a fault is explained: no model's header needs them."""
    from pleura.config.recipe import Recipe
    from pleura.config.training import TrainingConfig

    return Recipe, TrainingConfig


def _where_written(path: list[str], training: Any, stages: Any) -> list[str]:
    """The path of a stage's setting, or that below `training` where the stage has it from there."""
    if len(path) > 2 and path[0] == "stages" and _holds(training, path[2:]) and not _holds(stages, path[1:]):
        return ["training", *path[2:]]
    return path


def _phrase(item: Any, path: list[str], root: type[BaseModel]) -> str:
    if item["type"] == "missing":
        return "is missing"
    if item["type"] == "extra_forbidden":
        meant = _meant(path, root)
        unknown = "unknown setting" if issubclass(root, Strict) else "unknown key"
        beside = " at the top of the recipe, beside stages" if meant == path[-1] else ""
        return f"{unknown}; did you mean {meant}{beside}?" if meant else unknown
    message = item["msg"].removeprefix("Value error, ")
    given = "" if item["type"] == "value_error" else f" (given: {item['input']!r:.60})"
    if item["type"] == "string_type" and isinstance(item["input"], bool):
        given += ", as YAML reads on, off, yes and no; put it in quotes"
    return f"{message[:1].lower()}{message[1:]}{given}"


def _holds(tree: Any, path: list[str]) -> bool:
    for key in path:
        if isinstance(tree, list) and key.isdecimal() and int(key) < len(tree):
            tree = tree[int(key)]
        elif isinstance(tree, dict) and key in tree:
            tree = tree[key]
        else:
            return False
    return True


def _meant(path: Sequence[str], root: type[BaseModel]) -> str | None:
    """The setting that may be meant by an unknown one: in the same section by its key, in another by its path."""
    *section, key = path
    of_stage = section[:2] if section[:1] == ["stages"] else ["training"]
    names = [part for part in section if not part.isdecimal()]  # without the numbers of a list's items
    section = ["training", *section[2:]] if section[:1] == ["stages"] else names
    if root is _of_a_recipe()[0] and key in _OPTIONS and section in ([], ["training"]):
        return f"the option --{key}"
    known = [list(each) for each in _settings(root)]
    here = [each[-1] for each in known if each[:-1] == section and each[-1] != key]
    elsewhere = [each[-1] for each in known if each[:-1] != section and (each[-1] not in here)]
    plain = key.lower().replace("-", "_")
    wanted = [plain, _ELSEWHERE.get(plain, plain)]
    close = [
        difflib.get_close_matches(plain, keys, n=1) for keys in (here, [each for each in elsewhere if each != key])
    ]
    found = [each for each in wanted if each in here or each in elsewhere] + close[0] + close[1]
    if not found:
        return None
    if found[0] in here:
        return found[0]
    place = min((each for each in known if each[-1] == found[0] and each[:-1] != section), key=len)
    return ".".join([*of_stage, *place[1:]] if place[0] == "training" else place)


@cache
def _settings(kind: type[BaseModel]) -> tuple[tuple[str, ...], ...]:
    """The path of every setting below a schema; those of a stage are under `training`."""
    return tuple(_walk(kind, ()))


def _walk(kind: type[BaseModel], path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    recipe, training = _of_a_recipe()
    for name, field in kind.model_fields.items():
        if kind is recipe and name == "stages":
            yield ("stages",)
            yield ("training",)
            yield from _walk(training, ("training",))
            continue
        yield (*path, name)
        for part in (field.annotation, *get_args(field.annotation)):
            for inner in (part, *get_args(part)):
                if isinstance(inner, type) and issubclass(inner, BaseModel):
                    yield from _walk(inner, (*path, name))
