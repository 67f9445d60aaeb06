"""The recipes that come with pleura: finds, lists, describes and reads them by name.

They lie in the installed package, or in the repository's folder.
"""

from __future__ import annotations

import difflib
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path

import yaml

from pleura.config.parse import load_ensemble, load_recipe
from pleura.config.recipe import Ensemble, Recipe
from pleura.errors import ConfigError

_PLACES = (Path(__file__).parents[1] / "recipes", Path(__file__).parents[3] / "recipes")
_COLUMNS, _INDENT = 100, 10
_NOTES = ("source", "anchor", "unknown", "cost")


def find_recipe(name: str) -> Path:
    """Return the file of a recipe that comes with pleura, by its name without suffix. Raises: ConfigError."""
    close = difflib.get_close_matches(name, recipe_names(), n=1)
    meant = f"; did you mean {close[0]}?" if close else ""
    found = [place / f"{name}.yaml" for place in _PLACES if (place / f"{name}.yaml").is_file()]
    if not found:
        known = ", ".join(recipe_names())
        raise ConfigError(f"there is no recipe {name!r}; those that come with pleura are {known}{meant}")
    return found[0]


def recipe_names() -> list[str]:
    """Return the names of the recipes and ensembles that come with pleura, sorted."""
    return sorted({path.stem for place in _PLACES for path in place.glob("*.yaml")})


def recipe_path(recipe: Path | str) -> Path:
    """Return the file that a user means: a path as it is, a bare name as one of the recipes that come with pleura.

    Raises: ConfigError for a bare name that none of them has, or a missing file of such a name.
    """
    path = Path(recipe)
    # `pleura demo` makes a folder demo, which must not hide the recipe of that name.
    if path.is_file() or path.suffix or len(path.parts) != 1:
        if not path.exists() and path.suffix in (".yaml", ".yml") and path.stem in recipe_names():
            raise ConfigError(f"{path}: there is no such file; the recipe that comes with pleura is named {path.stem}")
        return path
    return find_recipe(path.name)


def load_experiment(recipe: Path | str, overrides: Iterable[str] = (), strict: bool = False) -> Recipe | Ensemble:
    """Read a recipe, or an ensemble with the recipes of its members; a path, or the name of one that comes with pleura.

    overrides, strict: as in `load_recipe`; those of an ensemble change every member. Paths of its members are returned
    absolute. Raises: ConfigError that names every fault by its dotted path.
    """
    path, overrides = recipe_path(recipe), list(overrides)
    ensemble = load_ensemble(path)
    if ensemble is None:
        return load_recipe(path, overrides, strict)
    members = [
        member.model_copy(update={"recipe": str(_member_path(path, member.recipe))}) for member in ensemble.members
    ]
    ensemble = ensemble.model_copy(update={"members": members})
    load_members(ensemble, overrides, strict)
    return ensemble


def load_members(ensemble: Ensemble, overrides: Iterable[str] = (), strict: bool = False) -> dict[str, Recipe]:
    """Return the recipe of each member of an ensemble, by the member's name, in order. Raises: ConfigError."""
    overrides = list(overrides)
    recipes = {}
    for member in ensemble.members:
        path = recipe_path(member.recipe)
        if load_ensemble(path) is not None:
            raise ConfigError(f"{ensemble.name}: its member {member.name} is an ensemble; name the recipes of that one")
        recipes[member.name] = load_recipe(path, overrides, strict)
    return recipes


def _member_path(ensemble: Path, recipe: str) -> Path:
    beside = ensemble.parent / recipe
    return beside.resolve() if beside.suffix else find_recipe(recipe)


def list_recipes() -> str:
    """Return a table of the recipes that come with pleura, in 100 columns: net, stages, score, cost, source."""
    parts = []
    for name in recipe_names():
        experiment = load_experiment(name)
        rows = [("anchor", experiment.anchor), ("cost", experiment.cost), ("source", experiment.source)]
        parts.append("\n".join([_heading(experiment), *_rows(rows)]))
    return "\n\n".join(parts)


def describe_recipe(name: str) -> str:
    """Describe a recipe: its file, its notes, and its settings that are not the defaults. Raises: ConfigError."""
    path = recipe_path(name)
    experiment = load_experiment(path)
    rows = [("file", str(path)), *((key, getattr(experiment, key)) for key in _NOTES)]
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    settings = {key: value for key, value in document.items() if key not in (*_NOTES, "name")}
    written = yaml.safe_dump(settings, sort_keys=False, default_flow_style=None, width=_COLUMNS)
    differs = "what differs from the defaults (docs/settings.md):"
    return "\n".join([_heading(experiment), *_rows(rows), "", differs, "", written.rstrip()])


def _heading(experiment: Recipe | Ensemble) -> str:
    """The net and the sizes of its stages, or the members of an ensemble."""
    if isinstance(experiment, Ensemble):
        what = "ensemble of " + ", ".join(f"{member.weight:g} {member.name}" for member in experiment.members)
    else:
        what = f"{experiment.model.architecture} {experiment.model.encoder}; "
        what += ", ".join(f"{stage.name} {stage.size_px} px" for stage in experiment.stages)
    return textwrap.fill(f"{experiment.name}: {what}", _COLUMNS, subsequent_indent="  ")


def _rows(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    for key, text in rows:
        yield textwrap.fill(
            text or "-",
            _COLUMNS,
            initial_indent=f"  {key:<{_INDENT - 2}}",
            subsequent_indent=" " * _INDENT,
            break_long_words=False,
            break_on_hyphens=False,
        )
