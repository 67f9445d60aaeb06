"""The command `evaluate`: parses, calls its verb, prints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pleura.cli import messages as say
from pleura.cli.options import SplitName, Tta
from pleura.models.default import named


def evaluate(
    model: Annotated[Path, typer.Argument(parser=named, help="A checkpoint, a run's folder, or default.")],
    data: Annotated[Path, typer.Option(help="The dataset folder.")],
    split: Annotated[SplitName | None, typer.Option(help="By default val, or all if the model met none.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The report's folder; by default beside the model.")
    ] = None,
    tta: Annotated[Tta | None, typer.Option(help="flip: mean with the mirrored image; by default as trained.")] = None,
    resamples: Annotated[int, typer.Option(min=10, help="Of the bootstrap.")] = 1000,
) -> None:
    """Score a model, next to its floor and with intervals; writes report.html and report.json."""
    from pleura.evaluation.evaluate import evaluate as run

    done = run(model, data, split, tta, resamples, out)
    typer.echo("\n".join(say.evaluation(done)))
