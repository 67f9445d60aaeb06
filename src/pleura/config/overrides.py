"""Overrides: `dotted.key=value` words of a command line, put into the document of a recipe."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pleura.config.document import NOT_YAML, parse_yaml


@dataclass(frozen=True)
class Override:
    """One setting of a command line."""

    path: tuple[str, ...]
    value: Any
    text: str
    """As it was typed."""

    @property
    def dotted(self) -> str:
        """The setting's name."""
        return ".".join(self.path)


def apply_overrides(document: dict[str, Any], words: Iterable[str]) -> tuple[list[Override], list[str]]:
    """Put `dotted.key=value` words into a recipe's document; return the overrides and all faults.

    `training.KEY` then holds for every stage, and replaces the stages' own values. What is given for one stage wins
    over what is given for all, and a key over its section, in any order; of one key, the last wins. In the overrides
    that are returned, stages have their position from 0.
    """
    overrides, faults = _read(words)
    whole = [each for each in overrides if each.path == ("stages",)]
    for each in whole:
        document["stages"] = each.value
    stages = document.get("stages")
    rest = [replace(each, path=_by_position(each.path, stages)) for each in overrides if each not in whole]
    faults += [fault for each in sorted(rest, key=_generality) if (fault := _apply(document, each))]
    return [*whole, *rest], faults


def _read(words: Iterable[str]) -> tuple[list[Override], list[str]]:
    read, faults = [], []
    for word in words:
        dotted, separator, text = (part.strip() for part in word.partition("="))
        if not separator or not dotted:
            faults.append(f"{word!r} is no override; write key=value, as in training.lr=1e-4")
        elif not text:
            faults.append(f"{dotted}: no value stands after the =; what may be empty is written as null or ''")
        else:
            try:
                read.append(Override(tuple(dotted.split(".")), parse_yaml(text), word))
            except NOT_YAML:
                faults.append(f"{word!r}: the value is not YAML")
    return read, faults


def _by_position(path: tuple[str, ...], stages: Any) -> tuple[str, ...]:
    place = _position(stages, path[1]) if path[0] == "stages" and len(path) > 1 else None
    return path if place is None else ("stages", str(place), *path[2:])


def void_overrides(overrides: Sequence[Override], stages: Any) -> Iterator[str]:
    """A fault for each override that another one of the same command line makes void, in a recipe with these stages."""
    seen: dict[tuple[str, ...], Override] = {}
    for each in overrides:
        earlier = seen.setdefault(each.path, each)
        if earlier.value != each.value:
            yield f"{each.dotted}: is given twice, as {earlier.text!r} and {each.text!r}; leave one of them out"

    for general in (each for each in overrides if each.path[0] == "training" and len(each.path) > 1):
        own = {each.path[1] for each in overrides if each.path[0] == "stages" and each.path[2:] == general.path[1:]}
        if isinstance(stages, list) and stages and own == set(map(str, range(len(stages)))):
            yield f"{general.dotted}: every stage is given a value of its own; leave this one out"


def _generality(override: Override) -> tuple[bool, int]:
    """What all stages share before what one of them has, and sections before the keys in them."""
    return override.path[0] == "stages", len(override.path)


def _apply(document: dict[str, Any], override: Override) -> str | None:
    node: Any = document
    *parents, last = override.path
    for depth, key in enumerate(parents):
        if isinstance(node, dict):
            node = node.setdefault(key, {})
        elif isinstance(node, list) and override.path[:depth] == ("stages",):
            place = _position(node, key)
            if place is None:
                names = ", ".join(str(stage.get("name")) for stage in node if isinstance(stage, dict))
                return f"{override.text!r}: there is no stage {key!r}; the stages are {names}"
            node = node[place]
        elif isinstance(node, list):
            whole = ".".join(override.path[:depth])
            return f"{override.text!r}: {whole} is a list; give all of it, as in {whole}=[...]"
        else:
            return f"{override.text!r}: {parents[depth]} lies below a plain value"
    if isinstance(node, list):
        whole = ".".join(parents)
        way_out = "write stages.NAME.KEY=value" if whole == "stages" else f"give all of it, as in {whole}=[...]"
        return f"{override.text!r}: names no setting; {way_out}"
    if not isinstance(node, dict):
        return f"{override.text!r}: names no setting, {'.'.join(parents)} is a plain value"
    node[last] = override.value
    if override.path[0] == "training":
        _clear_stages(document.get("stages"), override)
    return None


def _clear_stages(stages: Any, override: Override) -> None:
    """Drop the stages' own values of a setting that is given for all of them."""
    given = override.value
    paths = [override.path[1:]]
    if len(override.path) == 1:
        paths = [(key,) for key in given] if isinstance(given, dict) else []
    for stage in stages if isinstance(stages, list) else ():
        for *parents, last in paths:
            node = stage
            for key in parents:
                node = node.get(key) if isinstance(node, dict) else None
            if isinstance(node, dict) and (parents or last != "name"):
                node.pop(last, None)


def _position(stages: Any, key: str) -> int | None:
    """Which stage a key names: its name, or else its position from 0."""
    stages = stages if isinstance(stages, list) else []
    names = [stage.get("name") if isinstance(stage, dict) else None for stage in stages]
    if key in names:
        return names.index(key)
    return int(key) if key.isdecimal() and int(key) < len(stages) else None
