"""URLs among the options of a command: copied for verbs that read files, and refused where none is taken."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from pleura.errors import InputError, PleuraError
from pleura.urls.copies import copied, said
from pleura.urls.kept import DATASET_FILES, MODEL_FILES, kept
from pleura.urls.mirror import changed, written
from pleura.urls.url import Url, place_of

COPIES = {
    "score": ("truth", "pred", "patients"),
    "doctor": ("path", "patients", "masks", "images", "truth"),
    "prepare": ("masks", "patients", "folds"),
    "compare": ("truth", "patients"),
    "train": ("recipe",),
    "pack": ("card",),
    "export": ("images", "calibration"),
    "import_recipe": ("files",),
    "import_weights": ("file",),
    "push": ("inputs",),
}
"""Commands, and those of their options that may be URLs and are copied each time. `predict` takes its own, `prepare`
its radiographs and OUT."""
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
FOLDERS: dict[str, tuple[str, ...] | None] = {"evaluate": (), "compare": (), "score": (), "export": None}
"""Commands whose --out is a folder, which may be a URL, with what they refuse to replace in it. None: anything."""
FILES = {
    **dict.fromkeys(("pack", "card", "recalibrate", "import_recipe", "import_weights"), ()),
    "tune": ("{stem}.tune.json", "{stem}.tune.png"),
}
"""The same of those whose --out is a file, with what they write beside it."""
OWN = ("pull", "train")
"""Commands that write to URLs themselves. `predict` takes texts."""


@contextmanager
def local(options: dict[str, Any], command: str) -> Iterator[dict[str, Any]]:
    """Yield the options of a command with paths of this machine in place of URLs; what it writes goes up at the end.

    Raises: InputError where it takes none.
    """
    with ExitStack() as stack:
        try:
            asked = _Asked(command, stack)
            given = {name: _each(value, partial(asked.place, name)) for name, value in options.items()}
            asked.is_of_masks = given.get("truth") is not None
            out = asked.out(given)
            made = {name: _each(value, partial(asked.copy, name)) for name, value in given.items() if name not in out}
            yield made | (out or asked.beside(given, made))
        except PleuraError as error:
            raise type(error)(said(str(error))) from error


def _each(value: Any, change: Callable[[Any], Any]) -> Any:
    """Return an option, or the list of one that can be repeated, with each value changed."""
    return [change(each) for each in value] if isinstance(value, list) else change(value)


class _Asked:
    """The options of one command."""

    def __init__(self, command: str, stack: ExitStack) -> None:
        """stack: lets go of the copies, and brings up what was written."""
        self.command, self.stack = command, stack
        self.is_of_masks = False
        self.texts: set[str] = set()
        """Options that are no `Path` but a text, which may be a pattern, too."""

    def place(self, name: str, value: Any) -> Any:
        """Return the URL that a value is, or the value. Raises: InputError for a URL where none is taken."""
        is_taken = name in (*COPIES.get(self.command, ()), *KEPT.get(self.command, ()))
        is_out = name == "out" and self.command in (*FOLDERS, *FILES)
        if not isinstance(value, Path) and not (is_taken and isinstance(value, str)):
            return value
        self.texts |= {name} if isinstance(value, str) else set()
        place = place_of(value)
        if not isinstance(place, Url):
            return type(value)(place) if str(value).startswith("file:") else value
        if name == "out" and self.command in OWN:
            return value
        if not is_taken and not is_out:
            verb, option = self.command.replace("_", "-"), name.replace("_", "-")
            raise InputError(f"{place}: pleura {verb} takes no URL as {option}; give a file or folder of this machine")
        return place

    def copy(self, name: str, value: Any) -> Any:
        """Return the copy of what a URL names, as a text where the option is one; or the value."""
        if not isinstance(value, Url):
            return value
        files = KEPT.get(self.command, {}).get(name)
        if files is not None and not (self.is_of_masks and self.command == "compare"):
            return self.stack.enter_context(kept(value, files))
        (path,) = self.stack.enter_context(copied([value]))
        return str(path) if name in self.texts else path

    def out(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options that are written to, where they are URLs, as paths whose files go up at the end."""
        model, out = given.get("model"), given.get("out")
        puts = given.get("evaluation") is not None  # into the model, also where --out names the same
        if isinstance(model, Url) and ((puts and out in (None, model)) or (self.command == "tune" and out is None)):
            return {"model": self.stack.enter_context(changed(model, MODEL_FILES)), "out": None}
        if not isinstance(out, Url):
            return {}
        if self.command in FOLDERS:
            return {"out": self.stack.enter_context(written(out, FOLDERS[self.command]))}
        if len(out.parts) < 2:
            raise InputError(f"{out}: is a bucket; name the object to write in it")
        beside = [name.format(stem=out.name.removesuffix(out.suffix)) for name in FILES[self.command]]
        return {"out": self.stack.enter_context(written(out.parent, [out.name, *beside])) / out.name}

    def beside(self, given: Mapping[str, Any], made: Mapping[str, Any]) -> dict[str, Any]:
        """Return where `evaluate` writes that was not told to: beside its model, wherever that lies."""
        model = given.get("model")
        if self.command != "evaluate" or not isinstance(model, Url) or given["out"] is not None:
            return {}
        folder = model if made["model"].is_dir() else model.parent
        return {"out": self.stack.enter_context(written(folder))}
