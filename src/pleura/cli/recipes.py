"""`pleura recipes`: list the recipes."""

from __future__ import annotations

from typing import Annotated

import typer


def recipes(
    name: Annotated[str | None, typer.Argument(help="The name of one, to print it in full.")] = None,
) -> None:
    """List the recipes that come with pleura, with their scores to compare with, cost and source."""
    from pleura.config.bundled import describe_recipe, list_recipes

    typer.echo(describe_recipe(name) if name else list_recipes())
