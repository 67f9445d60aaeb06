"""The winner's training YAMLs -> one recipe with a stage for each, and a list of what differs and why.

Source: https://github.com/sneddy/pneumothorax-segmentation (its experiments and training script).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from pleura.config.document import read_yaml
from pleura.config.imported.keys import Keys
from pleura.config.imported.order import SECOND_STAGE, ordered
from pleura.config.imported.stage import Part, read_part
from pleura.config.parse import parse_recipe
from pleura.errors import ConfigError, writing

REPOSITORY = "https://github.com/sneddy/pneumothorax-segmentation"


def import_recipe(files: Sequence[Path], out: Path) -> list[str]:
    """Write the recipe of several training files, a stage each, in the order of training, its differences in comments.

    Returns: of several files the order, and its reason (see `order`); then a line for each key that is not taken
    over as it is, `KEY: what differs and why`.
    Raises: ConfigError if a file cannot be read, lacks a key, or holds one without a counterpart; OutputError.
    """
    if not files:
        raise ConfigError("name at least one training YAML, as in train_config_part0.yaml")
    documents = [read_yaml(path, yaml.safe_load) for path in files]
    order, because = ordered(files, documents)
    files = [files[position] for position in order]
    parts: list[Part] = []
    for path, position in zip(files, order, strict=True):
        name = _stage_name(path, [other.name for other in parts])
        parts.append(read_part(Keys(documents[position], str(path)), path, name))
    for part in parts[1:]:
        _same_net(parts[0], part)
    document = _recipe(parts)
    try:
        parse_recipe(document, ", ".join(path.name for path in files))
    except ConfigError as error:
        raise ConfigError(f"{error}; these are pleura's names, see docs/reference.md for the files' keys") from error
    lines = [f"order: {', '.join(path.name for path in files)}, {because}"] if len(files) > 1 else []
    lines += _differences(parts)
    text = f"# From {', '.join(path.name for path in files)}, by pleura import-recipe. What differs and why:\n"
    text += "".join(f"#   {line}\n" for line in lines)
    text += yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=110)
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("x", encoding="utf-8") as file:
            file.write(text)
    return lines


def _stage_name(path: Path, taken: list[str]) -> str:
    stem = path.stem.lower()
    if re.search(SECOND_STAGE, stem):
        stem = "second_stage"
    elif match := re.search(r"part[_-]?(\d+)", stem):
        stem = f"part{match[1]}"
    name = re.sub(r"[^a-z0-9_-]+", "_", stem.removeprefix("train_config_")).strip("_-") or "stage"
    number = 2
    unique = name
    while unique in taken:
        unique, number = f"{name}-{number}", number + 1
    return unique


def _same_net(first: Part, other: Part) -> None:
    for key in ("architecture", "encoder", "bottleneck", "decoder_widths", "last_width"):
        if first.model.get(key) != other.model.get(key):
            raise ConfigError(
                f"{other.file}: MODEL is another net than that of {first.file.name} ({key}: {other.model.get(key)}, "
                f"not {first.model.get(key)}); a recipe has one net, import them apart"
            )
    if first.model["input_scaling"] != other.model["input_scaling"]:
        other.note(
            "TRAIN_TRANSFORMS",
            f"scales its input as {other.model['input_scaling']!r}, unlike {first.file.name}; "
            f"a net has one scaling, {first.model['input_scaling']!r} throughout",
        )
    if first.seed != other.seed:
        other.note("SEED", f"{other.seed} is left out; the recipe has the one of {first.file.name}")
    if first.pipeline != other.pipeline:
        other.note("PIPELINE_NAME", f"{other.pipeline} is left out; the recipe is named {first.pipeline}")


def _recipe(parts: list[Part]) -> dict[str, Any]:
    """The recipe, with what all stages share in `training`."""
    stages = [dict(part.stage) for part in parts]
    shared = {
        key: value
        for key, value in stages[0].items()
        if len(stages) > 1 and all(key in stage and stage[key] == value for stage in stages)
    }
    for stage in stages:
        for key in shared:
            del stage[key]
    return {
        "name": parts[0].pipeline,
        "source": f"{', '.join(part.file.name for part in parts)}, training files as those of {REPOSITORY}",
        "unknown": "see the comments above: what of the files could not be taken over as it is",
        "seed": parts[0].seed,
        "model": parts[0].model,
        **({"training": shared} if shared else {}),
        "stages": [{"name": part.name, **stage} for part, stage in zip(parts, stages, strict=True)],
    }


def _differences(parts: list[Part]) -> list[str]:
    """`KEY: what`, once where it holds for all files, else with the stages that it holds for."""
    stages_of: dict[tuple[str, str], list[str]] = {}
    for part in parts:
        for difference in part.differs:
            stages_of.setdefault(difference, []).append(part.name)
    lines = []
    for (key, what), names in stages_of.items():
        where = "" if len(set(names)) == len(parts) else f" ({', '.join(dict.fromkeys(names))})"
        lines.append(f"{key}{where}: {what}")
    return lines
