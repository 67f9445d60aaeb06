"""`python tests/base_install.py WORDS`: pleura as `pip install pleura` has it, without the packages of any extra.

Modules of distributions that the dependencies of pyproject.toml do not bring are not found, as if they were not there.
"""

from __future__ import annotations

import sys
import tomllib
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from places import ROOT


def base_distributions() -> set[str]:
    """The distributions that `pip install pleura` brings, by their normal names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found: set[str] = set()
    waiting = [Requirement(line) for line in project["dependencies"]]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        found.add(name)
        try:
            waiting += map(Requirement, requires(name) or [])
        except PackageNotFoundError:  # of another system
            continue
    return found


def without_extras() -> None:
    """Hide from this process every module that the base does not bring."""
    base, find = base_distributions() | {"pleura"}, PathFinder.find_spec
    hidden = {
        module
        for module, owners in packages_distributions().items()
        if not {canonicalize_name(owner) for owner in owners} & base
    }

    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return None if name.partition(".")[0] in hidden else find(name, path, target)

    PathFinder.find_spec = find_spec  # type: ignore[method-assign]
    for name in [name for name in sys.modules if name.partition(".")[0] in hidden]:
        del sys.modules[name]  # what this file itself has needed


if __name__ == "__main__":
    without_extras()
    from pleura.cli import main

    main()
