"""The order in which training files follow one another: by the checkpoints they start from, else by their numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pleura.errors import ConfigError

SECOND_STAGE = r"(2nd|second)[_-]?stage"


def ordered(files: Sequence[Path], documents: Sequence[Any]) -> tuple[list[int], str]:
    """Return the positions of the files in the order of training, and the reason for it.

    A file that starts from a checkpoint of another (MODEL.PRETRAINED names the folder or the pipeline of one alone)
    comes after it. Of the rest, part 2 comes before part 10, and a second stage last; names without numbers keep the
    order in which they were given.
    Raises: ConfigError if each of some files starts from another of them.
    """
    chain = _chain(documents)
    numbers = [_number(path) for path in files]
    has_numbers = all(number is not None for number in numbers)
    keys = [(*(number or (0, 0)), position) for position, number in enumerate(numbers)]
    rank = keys if has_numbers else [(0, 0, position) for position in range(len(files))]
    left, order = set(range(len(files))), []
    while left:
        free = [position for position in left if not chain[position] & left]
        if not free:
            names = ", ".join(sorted(files[position].name for position in left))
            raise ConfigError(
                f"{names}: each starts from a checkpoint of another (MODEL.PRETRAINED); import them apart"
            )
        order.append(min(free, key=lambda position: rank[position]))
        left.remove(order[-1])
    if any(chain):
        return order, "by the checkpoints that they start from"
    return order, "by the numbers in their names" if has_numbers else "as they were given"


def _number(path: Path) -> tuple[int, int] | None:
    """(stage, part) by a file's name."""
    stem = path.stem.lower()
    part = re.search(r"part[_-]?(\d+)", stem)
    if re.search(SECOND_STAGE, stem):
        return 2, int(part[1]) if part else 0
    return (1, int(part[1])) if part else None


def _chain(documents: Sequence[Any]) -> list[set[int]]:
    """Of each file, those that it starts from: whose folder of checkpoints, or else whose pipeline, is no other's."""
    folders = [_texts(document, "CHECKPOINTS", ("FULL_FOLDER", "BEST_FOLDER")) for document in documents]
    pipelines = [{str(document["PIPELINE_NAME"])} if "PIPELINE_NAME" in _mapping(document) else set()
                 for document in documents]  # fmt: skip
    chain = []
    for position, document in enumerate(documents):
        before = _mapping(_mapping(document).get("MODEL")).get("PRETRAINED")
        wanted = _texts({"PRETRAINED": before}, "PRETRAINED", ("CHECKPOINTS_FOLDER",))
        named = _texts({"PRETRAINED": before}, "PRETRAINED", ("PIPELINE_NAME",))
        chain.append(_owner(wanted, folders, position) or _owner(named, pipelines, position))
    return chain


def _owner(wanted: set[str], owned: Sequence[set[str]], position: int) -> set[int]:
    owners = {other for other, names in enumerate(owned) if names & wanted}
    return owners if len(owners) == 1 and position not in owners else set()


def _texts(document: Any, section: str, keys: Sequence[str]) -> set[str]:
    values = _mapping(_mapping(document).get(section))
    return {str(values[key]).rstrip("/") for key in keys if values.get(key)}


def _mapping(value: Any) -> Mapping[Any, Any]:
    return value if isinstance(value, Mapping) else {}
