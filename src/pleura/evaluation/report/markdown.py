"""Pieces of Markdown: paragraphs, lists and tables, wrapped alike."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath

WIDTH = 120
_TIE = "\N{NO-BREAK SPACE}"
"""A space at which no line ends; `fill` turns it back."""
_ABSOLUTE, _PART = re.compile(r"/|~|\.{1,2}[/\\]|[A-Za-z]:[/\\]|\\\\"), re.compile(r"[/\\]")
"""How a path begins, blanks in it or not, and what one without blanks has somewhere; sentences have neither."""


def fill(text: str, bullet: str = "") -> str:
    """A paragraph, or an item of a list, in lines of at most 120 characters where no word is longer.

    A number stays with its per cent, and `code` on one line.
    """
    joined = " ".join(text.split()).replace(" %", f"{_TIE}%")
    wrapped = textwrap.fill(
        re.sub("`[^`]*`", lambda code: code[0].replace(" ", _TIE), joined),
        WIDTH,
        initial_indent=bullet,
        subsequent_indent=" " * len(bullet),
        break_long_words=False,
        break_on_hyphens=False,
    )
    return wrapped.replace(_TIE, " ")


def table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """A table; a bar in a cell is escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def in_words(value: object) -> str:
    """Return a JSON value in words; of a path only its last part: folders mean nothing elsewhere."""
    if isinstance(value, Mapping):
        return "(" + ", ".join(f"{key} {in_words(inner)}" for key, inner in value.items()) + ")"
    if isinstance(value, list | tuple):
        return " ".join(map(in_words, value))
    if isinstance(value, str) and (_ABSOLUTE.match(value) or (_PART.search(value) and " " not in value)):
        return PurePath(value.replace("\\", "/")).name
    return f"{value:g}" if isinstance(value, float) else str(value)
