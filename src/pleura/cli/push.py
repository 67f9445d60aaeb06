"""`pleura push`: DICOM files to an archive."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pleura.cli.listen import AeTitle, NodesFile, destinations, refuse_without_packages
from pleura.cli.printing import show
from pleura.urls.copies import said


def push(
    inputs: Annotated[list[Path], typer.Argument(help="DICOM files, or folders of them.")],
    to: Annotated[
        str, typer.Option("--to", help="HOST:PORT:AE_TITLE, the address of a DICOMweb service, or a name of --nodes.")
    ],
    nodes: NodesFile = None,
    ae_title: AeTitle = "PLEURA",
) -> None:
    """Send DICOM files, such as results of predict, to an archive."""
    refuse_without_packages("push")
    from pleura.serve.pacs.push import push as run

    (destination,) = destinations([to], nodes, ae_title)
    done = run(inputs, destination)
    other = f"; {done.passed_over} files are no DICOM" if done.passed_over else ""
    show([f"{to}: {done.sent} sent{other}"])
    for file, reason in done.problems:
        typer.echo(said(f"pleura: {file}: {reason}"), err=True)
    if done.problems:
        raise typer.Exit(1)
