"""URLs among the options of a command: copied for verbs that read files, and refused where none is taken."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from pleura.errors import InputError, PleuraError
from pleura.urls.copies import copied, said
from pleura.urls.kept import DATASET_FILES, MODEL_FILES, kept
from pleura.urls.url import Url, place_of

COPIES = {
    "score": ("truth", "pred", "patients"),
    "doctor": ("path", "patients", "masks", "images", "truth"),
    "compare": ("truth", "patients"),
    "train": ("recipe",),
    "pack": ("card",),
    "export": ("images", "calibration"),
    "import_recipe": ("files",),
    "import_weights": ("file",),
    "push": ("inputs",),
}
"""Commands, and those of their options that may be URLs and are copied each time. `predict` takes its own."""
_RUNS: dict[str, tuple[str, ...]] = {"model": MODEL_FILES}
_SCORES: dict[str, tuple[str, ...]] = _RUNS | {"data": DATASET_FILES}
KEPT: dict[str, dict[str, tuple[str, ...]]] = {
    **dict.fromkeys(("predict", "serve", "listen", "pack"), _RUNS),
    **dict.fromkeys(("evaluate", "tune", "export"), _SCORES),
    "card": _RUNS | {"evaluation": ("report.json",)},
    "recalibrate": {"checkpoint": MODEL_FILES, "data": DATASET_FILES},
    "compare": {"first": MODEL_FILES, "second": MODEL_FILES, "data": DATASET_FILES},
    "train": {"weights": MODEL_FILES, "data": DATASET_FILES},
    "doctor": {"data": DATASET_FILES},
}
"""Commands, and those of their options that may be URLs and whose copies stay in the user's cache, with what is copied
of a folder."""
_TEXTS = ("images", "calibration")
"""Options that are no `Path` but a text, which may be a pattern."""


@contextmanager
def local(options: dict[str, Any], command: str) -> Iterator[dict[str, Any]]:
    """Yield the options of a command with copies in place of URLs. Raises: InputError where it takes none."""
    with ExitStack() as stack:
        try:
            asked = _Asked(command, options, stack)
            given = {name: asked.each(name, value, asked.place) for name, value in options.items()}
            yield {name: asked.each(name, value, asked.copy) for name, value in given.items()}
        except PleuraError as error:
            raise type(error)(said(str(error))) from error


class _Asked:
    """The options of one command."""

    def __init__(self, command: str, options: Mapping[str, Any], stack: ExitStack) -> None:
        """stack: removes the copies, or lets go of them."""
        self.command, self.options, self.stack = command, options, stack

    def each(self, name: str, value: Any, change: Callable[[str, Any], Any]) -> Any:
        """Return an option, or the list of one that can be repeated, with each value changed."""
        return [change(name, one) for one in value] if isinstance(value, list) else change(name, value)

    def place(self, name: str, value: Any) -> Any:
        """Return the URL that a value is, or the value. Raises: InputError for a URL where none is taken."""
        if not isinstance(value, Path) and (name not in self._taken() or not isinstance(value, str)):
            return value
        place = place_of(value)
        if not isinstance(place, Url):
            return type(value)(place) if str(value).startswith("file:") else value
        if name not in self._taken():
            verb, option = self.command.replace("_", "-"), name.replace("_", "-")
            raise InputError(f"{place}: pleura {verb} takes no URL as {option}; give a file or folder of this machine")
        writes = self.command in ("tune", "evaluate") or self.options.get("evaluation") is not None
        if name == "model" and writes and self.options["out"] is None:
            raise InputError(f"{place}: name a place for what pleura {self.command} writes, with --out")
        return place

    def copy(self, name: str, value: Any) -> Any:
        """Return the copy of what a URL names, as a text where the option is one; or the value."""
        if not isinstance(value, Url):
            return value
        files = KEPT.get(self.command, {}).get(name)
        masks = self.command == "compare" and self.options["truth"] is not None  # and no models
        if files is not None and not masks:
            return self.stack.enter_context(kept(value, files))
        (path,) = self.stack.enter_context(copied([value]))
        return str(path) if name in _TEXTS else path

    def _taken(self) -> tuple[str, ...]:
        return (*COPIES.get(self.command, ()), *KEPT.get(self.command, ()))
