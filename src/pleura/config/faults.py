"""What is wrong with a recipe, in words: one phrase a fault, by its dotted path, with the setting that may be meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from pleura.config.recipe import Recipe
from pleura.config.training import TrainingConfig

_ALTERNATIVE = re.compile(r"^(function-|constrained-|tuple\[)|^(bool|str|float|int)$")
"""What pydantic puts into the path of a fault for each type that a value may have."""

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
"""What other projects call a setting."""
_OPTIONS = ("data", "device", "fold", "out", "parallel", "resume", "stage", "tensorboard", "weights")
"""What is no setting of a recipe but an option of `pleura train`."""


def in_words(
    error: ValidationError,
    training: Any = None,
    stages: Any = None,
    *,
    root: type[BaseModel] = Recipe,
    under: Sequence[str] = (),
    combinations: bool = True,
) -> list[str]:
    """A phrase for each fault, at the place where the user wrote it.

    training, stages: the document before the former was merged into the latter. root: the schema that it was checked
    against; under: the path to the part that was. combinations: whether settings that do not fit together count.
    """
    phrases: dict[str, str] = {}
    for item in error.errors():
        if combinations or item["type"] != "value_error":
            dotted, phrase = _phrase(item, training, stages, root, under)
            phrases.setdefault(dotted, f"{dotted}: {phrase}")  # a value of several types has a fault for each
    return list(phrases.values())


def _phrase(item: Any, training: Any, stages: Any, root: type[BaseModel], under: Sequence[str]) -> tuple[str, str]:
    path = [*under, *(str(part) for part in item["loc"] if not _ALTERNATIVE.match(str(part)))]
    if len(path) > 2 and path[0] == "stages" and _holds(training, path[2:]) and not _holds(stages, path[1:]):
        path = ["training", *path[2:]]
    dotted = ".".join(path) or "recipe"
    if item["type"] == "extra_forbidden":
        meant = _meant(path, root)
        return dotted, "unknown setting" + (f"; did you mean {meant}?" if meant else "")
    message = item["msg"].removeprefix("Value error, ")
    given = "" if item["type"] in ("missing", "value_error") else f" (given: {item['input']!r:.60})"
    if item["type"] == "string_type" and isinstance(item["input"], bool):
        given += ", as YAML reads on, off, yes and no; put it in quotes"
    return dotted, f"{message[:1].lower()}{message[1:]}{given}"


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
    """The setting that may be meant by an unknown one: of the same section by its key, of another by its path."""
    *section, key = path
    of_stage = section[:2] if section[:1] == ["stages"] else ["training"]
    names = [part for part in section if not part.isdecimal()]  # without the numbers of a list's items
    section = ["training", *section[2:]] if section[:1] == ["stages"] else names
    if root is Recipe and key in _OPTIONS and section in ([], ["training"]):
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
    for name, field in kind.model_fields.items():
        if kind is Recipe and name == "stages":
            yield ("stages",)
            yield ("training",)
            yield from _walk(TrainingConfig, ("training",))
            continue
        yield (*path, name)
        for part in (field.annotation, *get_args(field.annotation)):
            for inner in (part, *get_args(part)):
                if isinstance(inner, type) and issubclass(inner, BaseModel):
                    yield from _walk(inner, (*path, name))
