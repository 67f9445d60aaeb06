"""`pleura doctor`: find what is wrong with a file or folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pleura.cli.options import Segments
from pleura.cli.printing import show
from pleura.models.default import named

if TYPE_CHECKING:  # --help imports no verb
    from pleura.doctor import Examination


def doctor(
    path: Annotated[
        Path,
        typer.Argument(parser=named, help="Recipe, dataset, run, masks, folds, predictions, model."),
    ],
    patients: Annotated[Path | None, typer.Option(help="For folds: csv with ImageId, patient; or SIIM to NIH.")] = None,
    masks: Annotated[Path | None, typer.Option(help="For folds: masks in any form, to find positives.")] = None,
    images: Annotated[Path | None, typer.Option(help="For masks: the radiographs that they belong to.")] = None,
    truth: Annotated[Path | None, typer.Option(help="For predictions: the true masks, in any form.")] = None,
    data: Annotated[Path | None, typer.Option(help="For a checkpoint: a dataset to run it on.")] = None,
    segment: Segments = None,
    reported: Annotated[
        float | None, typer.Option(min=0, max=1, help="For predictions: the Dice that was reported for them.")
    ] = None,
) -> None:
    """Identify a file or folder and list what is wrong with it; exit with 1 if there is an error."""
    from pleura.doctor import Against, examine

    found = examine(path, Against(patients, masks, images, truth, data, tuple(segment or ()), reported))
    show(messages(path, found))
    if found.failed:
        raise typer.Exit(1)


def messages(path: Path, found: Examination) -> Iterator[str]:
    """Yield what a path is, and each finding with its way out, errors first."""
    yield f"{path}: {found.kind}"
    yield from (f"  {line}" for line in found.facts)
    for finding in found.sorted:
        yield f"{finding.severity}: {finding.what}"
        yield f"  -> {finding.way_out}"
    if not found.findings:
        yield "nothing is wrong that the doctor looks for"
