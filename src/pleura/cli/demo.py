"""The command `demo`: parses, calls its verb, prints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(out: Annotated[Path, typer.Option("--out", "-o", help="The folder to write.")] = Path("demo")) -> None:
    """The whole flow on phantom radiographs, in minutes: prepare, train, evaluate, predict, one page to look at."""
    from pleura.demo import demo as run

    typer.echo(f"look at {run(out)}")
