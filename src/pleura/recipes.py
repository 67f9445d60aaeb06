"""Where the recipes that come with pleura are: in the package once installed, in the repository's folder otherwise."""

from __future__ import annotations

from pathlib import Path

from pleura.errors import ConfigError

_PLACES = (Path(__file__).parent / "recipes", Path(__file__).parents[2] / "recipes")


def find_recipe(name: str) -> Path:
    """The file of a recipe that comes with pleura, by its name without suffix. Raises: ConfigError."""
    found = [place / f"{name}.yaml" for place in _PLACES if (place / f"{name}.yaml").is_file()]
    if not found:
        names = sorted({path.stem for place in _PLACES for path in place.glob("*.yaml")})
        raise ConfigError(f"there is no recipe {name!r}; those that come with pleura are {', '.join(names)}")
    return found[0]
