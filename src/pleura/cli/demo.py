"""`pleura demo`: run the whole flow on phantoms."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(out: Annotated[Path, typer.Option("--out", "-o", help="The folder to write.")] = Path("demo")) -> None:
    """Run the whole flow on phantom radiographs, in minutes: prepare, train, evaluate, predict, a page of results."""
    from pleura.demo import demo as run

    typer.echo(f"look at {run(out)}")
