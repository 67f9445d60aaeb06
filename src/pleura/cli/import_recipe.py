"""`pleura import-recipe`: convert another project's training files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pleura.cli.printing import show


def import_recipe(
    files: Annotated[list[Path], typer.Argument(help="Training YAMLs of the winner's repository, in any order.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The recipe to write.")] = Path("recipe.yaml"),
) -> None:
    """Convert another project's training files into one recipe, and print what differs and why."""
    from pleura.config.imported.recipe import import_recipe as run

    show([*run(files, out), str(out), f"next: pleura train {out} --data DATA --out RUN"])
