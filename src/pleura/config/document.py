"""YAML as people write it: numbers as they mean them, and no setting given twice."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from pleura.errors import ConfigError

NOT_YAML = (yaml.YAMLError, ValueError, RecursionError)
"""What PyYAML raises: ValueError for dates that are none, RecursionError for brackets without end."""


class _Twice(yaml.YAMLError):
    """A mapping names one key two times, and YAML's own loader would keep the last without a word."""


class _Loader(yaml.SafeLoader):
    """Reads numbers as YAML 1.2 does, and refuses a key that a mapping has twice.

    YAML 1.1, which PyYAML reads, takes 1e-4 for text, 010 for eight and 1:30 for ninety: people who write settings mean
    the first as a number, and nobody knows what is meant by the others, so that these stay text and no number setting
    takes them.
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
    """What YAML says. Raises: one of NOT_YAML if it is none."""
    return yaml.load(text, _Loader)


def read_yaml(path: Path) -> Any:
    """What a YAML file holds. Raises: ConfigError if it cannot be read."""
    try:
        return parse_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    except _Twice as error:
        raise ConfigError(f"{path}: {error}") from error
    except NOT_YAML as error:
        raise ConfigError(f"{path}: is not YAML ({' '.join(str(error).split())})") from error
