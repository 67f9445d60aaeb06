"""The command `doctor`: parses, calls its verb, prints."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pleura.cli.printing import show
from pleura.models.default import named

if TYPE_CHECKING:  # --help imports no verb
    from pleura.doctor import Examination


def doctor(
    path: Annotated[
        Path,
        typer.Argument(parser=named, help="Recipe, dataset, run, masks, folds, predictions, model."),
    ],
    patients: Annotated[Path | None, typer.Option(help="Of folds: csv with ImageId, patient; or SIIM to NIH.")] = None,
    masks: Annotated[Path | None, typer.Option(help="Of folds: masks in any form, to tell positives.")] = None,
    images: Annotated[Path | None, typer.Option(help="Of masks: the radiographs that they belong to.")] = None,
    truth: Annotated[Path | None, typer.Option(help="Of predictions: the true masks, in any form.")] = None,
    data: Annotated[Path | None, typer.Option(help="Of a checkpoint: a dataset to run it on.")] = None,
    segment: Annotated[
        list[str] | None,
        typer.Option(help="Of DICOM-SEG: number or label of what outlines a pneumothorax; repeatable."),
    ] = None,
    reported: Annotated[
        float | None, typer.Option(min=0, max=1, help="Of predictions: the Dice that was reported of them.")
    ] = None,
) -> None:
    """Tell what a file or folder is, and what is wrong with it; exits with 1 if there is any error."""
    from pleura.doctor import Against, examine

    found = examine(path, Against(patients, masks, images, truth, data, tuple(segment or ()), reported))
    show(messages(path, found))
    if found.failed:
        raise typer.Exit(1)


def messages(path: Path, found: Examination) -> Iterator[str]:
    """What a path is, and each finding with its way out, errors first."""
    yield f"{path}: {found.kind}"
    yield from (f"  {line}" for line in found.told)
    for finding in found.sorted:
        yield f"{finding.severity}: {finding.what}"
        yield f"  -> {finding.way_out}"
    if not found.findings:
        yield "nothing is wrong that the doctor looks for"
