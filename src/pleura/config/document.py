"""YAML as people write it: numbers as they mean them, and no setting given twice."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from pleura.errors import ConfigError

NOT_YAML = (yaml.YAMLError, ValueError, RecursionError)
"""What PyYAML raises: ValueError for impossible dates, RecursionError for brackets without end."""


class _Twice(yaml.YAMLError):
    """A mapping has one key twice; YAML's own loader would silently keep the last."""


class _Loader(yaml.SafeLoader):
    """Reads numbers as YAML 1.2 does, and refuses a key that a mapping has twice.

    YAML 1.1, which PyYAML reads, takes 1e-4 for text, 010 for eight and 1:30 for ninety. Who writes settings means the
    first as a number. The other two are ambiguous: they stay text, which settings that are numbers refuse.
    """

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """The mapping of a node. Raises: yaml.YAMLError if it has a key twice."""
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        for number, key in enumerate(keys):
            if key in keys[:number]:
                line = node.value[number][0].start_mark.line + 1
                raise _Twice(f"line {line}: {key} is given twice in one place; leave one of them out")
        return super().construct_mapping(node, deep)


_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if tag not in _NUMBERS]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_NUMBERS[0], re.compile(r"^[-+]?(?:0|[1-9]\d*(?:_\d+)*)$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    _NUMBERS[1],
    re.compile(
        r"^[-+]?(?:\d+(?:_\d+)*\.\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?|\d+(?:_\d+)*[eE][-+]?\d+"
        r"|\.(?:inf|Inf|INF))$|^\.(?:nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)


def parse_yaml(text: str) -> Any:
    """Parse YAML. Raises: one of NOT_YAML."""
    return yaml.load(text, _Loader)


def dotted(document: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Return a nested mapping as dotted path -> value; lists and empty mappings are values."""
    flat: dict[str, Any] = {}
    for key, value in document.items():
        inner = f"{path}.{key}" if path else key
        flat |= dotted(value, inner) if isinstance(value, dict) and value else {inner: value}
    return flat


def leaves(document: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every plain value of a document with its dotted path; items of a list by their place."""
    if not isinstance(document, dict | list):
        yield path, document
        return
    for key, value in document.items() if isinstance(document, dict) else enumerate(document):
        yield from leaves(value, f"{path}.{key}" if path else str(key))


def read_yaml(path: Path, parse: Callable[[str], Any] = parse_yaml) -> Any:
    """Read a YAML file. parse: yaml.safe_load for files of other projects. Raises: ConfigError."""
    try:
        return parse(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    except _Twice as error:
        raise ConfigError(f"{path}: {error}") from error
    except NOT_YAML as error:
        raise ConfigError(f"{path}: is not plain YAML ({' '.join(str(error).split())[:200]})") from error
