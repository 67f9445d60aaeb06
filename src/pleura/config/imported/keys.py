"""A mapping of another project, read key by key, so that no key is silently ignored."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pleura.errors import ConfigError

REQUIRED = object()


class Keys:
    """A mapping, and which of its keys were read. Every error names the file and the dotted key."""

    def __init__(self, values: Any, origin: str, path: str = "") -> None:
        """Raises: ConfigError if `values` is no mapping."""
        if not isinstance(values, Mapping):
            raise ConfigError(f"{origin}: {path or 'the file'} is no mapping of keys (found: {_short(values)})")
        self.origin, self.path = origin, path
        self.values = {str(key): value for key, value in values.items()}
        self.asked: dict[str, Keys | None] = {}

    def named(self, key: str) -> str:
        """Return `key` with its parents, dotted."""
        return f"{self.path}.{key}" if self.path else key

    def refuse(self, key: str, reason: str) -> ConfigError:
        """Return the error to raise about one key."""
        return ConfigError(f"{self.origin}: {self.named(key)}: {reason}")

    def take(self, key: str, default: Any = REQUIRED) -> Any:
        """Return the value of a key, of any type. Raises: ConfigError if it is missing and has no default."""
        self.asked.setdefault(key, None)
        if key not in self.values and default is REQUIRED:
            close = difflib.get_close_matches(key, self.values.keys() - self.asked.keys(), n=1)
            raise self.refuse(key, "is missing" + (f"; is it written as {close[0]}?" if close else ""))
        return self.values.get(key, default)

    def text(self, key: str, default: Any = REQUIRED) -> str:
        """Return text. Raises: ConfigError if it is none."""
        value = self.take(key, default)
        if not isinstance(value, str) or not value.strip():
            raise self.refuse(key, f"must be text (given: {_short(value)})")
        return value.strip()

    def flag(self, key: str, default: Any = REQUIRED) -> bool:
        """Return true or false. Raises: ConfigError if it is neither."""
        value = self.take(key, default)
        if not isinstance(value, bool):
            raise self.refuse(key, f"must be true or false (given: {_short(value)})")
        return value

    def number(self, key: str, default: Any = REQUIRED) -> float:
        """Return a number; YAML 1.1 reads 1e-4 as text, which is taken too. Raises: ConfigError if it is none."""
        value = self.take(key, default)
        try:
            number = float("nan" if isinstance(value, bool) or value is None else value)
        except (TypeError, ValueError):
            number = float("nan")
        if not abs(number) < float("inf"):
            raise self.refuse(key, f"must be a number (given: {_short(value)})")
        return number

    def whole(self, key: str, default: Any = REQUIRED) -> int:
        """Return a whole number. Raises: ConfigError if it is none."""
        number = self.number(key, default)
        if number != int(number):
            raise self.refuse(key, f"must be a whole number (given: {_short(self.values.get(key))})")
        return int(number)

    def section(self, key: str, default: Any = REQUIRED) -> Keys:
        """Return the mapping below a key. Raises: ConfigError if there is none."""
        value = self.take(key, default)
        section = self.asked[key] = Keys({} if value is None else value, self.origin, self.named(key))
        return section

    def sections(self, key: str) -> list[Keys]:
        """Return the mappings in the list below a key. Raises: ConfigError if it is no list of mappings."""
        value = self.take(key)
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise self.refuse(key, f"must be a list (given: {_short(value)})")
        return [Keys(item, self.origin, f"{self.named(key)}.{place}") for place, item in enumerate(value)]

    def left(self) -> Iterator[str]:
        """Yield the keys that were not read, dotted, here and in every section that was."""
        for key in self.values:
            if key not in self.asked:
                yield self.named(key)
            elif (section := self.asked[key]) is not None:
                yield from section.left()


def _short(value: object) -> str:
    return f"{value!r:.60}"
