"""The command `score`: parses, calls its verb, prints."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import typer

from pleura.cli import messages as say

Scored = Literal["truth", "both"]


def score(
    truth: Annotated[Path, typer.Option(help="True masks: csv of runs, folder of PNG or DICOM-SEG, or a dataset.")],
    pred: Annotated[Path, typer.Option(help="Predicted masks, in any of these forms.")],
    patients: Annotated[Path | None, typer.Option(help="csv with ImageId, patient; or SIIM to NIH.")] = None,
    cases: Annotated[
        Scored, typer.Option(help="truth: an image without a prediction counts as empty; both: it is left out.")
    ] = "truth",
    grid: Annotated[str | None, typer.Option(help="ROWSxCOLUMNS that runs count; by default 1024x1024.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A folder for score.json and cases.csv.")] = None,
    segment: Annotated[
        list[str] | None,
        typer.Option(help="Of DICOM-SEG: number or label of what outlines a pneumothorax; repeatable."),
    ] = None,
    resamples: Annotated[int, typer.Option(min=10, help="Of the bootstrap.")] = 1000,
) -> None:
    """Score masks that any tool wrote: next to their floor, with intervals, and with the faults that numbers hide."""
    from pleura.evaluation.score import ScoreSettings
    from pleura.evaluation.score import score as run

    shape, segments = _shape(grid), tuple(segment or ())
    settings = ScoreSettings(truth, pred, patients, out, cases, shape, resamples, segments)
    typer.echo("\n".join(say.scored(run(settings), out)))


def _shape(grid: str | None) -> tuple[int, int] | None:
    if grid is None:
        return None
    found = re.fullmatch(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})", grid)
    if not found:
        raise typer.BadParameter(f"{grid!r} is not ROWSxCOLUMNS, such as 1024x1024", param_hint="--grid")
    return int(found[1]), int(found[2])
