"""`pleura pull`: radiographs from an archive that speaks DICOMweb."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pleura.cli.listen import NodesFile, refuse_without_packages
from pleura.cli.printing import show
from pleura.urls.url import place_of


def pull(
    service: Annotated[str, typer.Argument(help="The address of a DICOMweb service, or a name of --nodes.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder of DICOM files, or a URL.")],
    study: Annotated[list[str] | None, typer.Option(help="Study Instance UID; repeatable.")] = None,
    match: Annotated[
        list[str] | None,
        typer.Option(help="What studies have, as AccessionNumber=4711 or StudyDate=20261101-20261130; repeatable."),
    ] = None,
    nodes: NodesFile = None,
) -> None:
    """Fetch the radiographs of studies from an archive, for predict."""
    refuse_without_packages("pull")
    from pleura.config.nodes import node_of, read_nodes
    from pleura.serve.pacs.dicomweb import Service
    from pleura.serve.pacs.pull import pull as run

    pairs = [each.partition("=") for each in match or ()]
    wrong = next((key for key, sign, value in pairs if not (key.isalnum() and sign and value)), None)
    if wrong is not None:
        raise typer.BadParameter(f"{wrong!r:.60} is no KEYWORD=VALUE, as AccessionNumber=4711", param_hint="--match")
    node = node_of(service, read_nodes(nodes) if nodes else {})
    if node.url is None:
        raise typer.BadParameter(f"{service} is no DICOMweb service; give its http(s) address", param_hint="SERVICE")
    place = place_of(out)
    done = run(Service(service, node), place, study or (), {key: value for key, _, value in pairs})
    there = f", {done.there} were there" if done.there else ""
    other = f"; {done.passed_over} other instances passed over" if done.passed_over else ""
    show([f"{place}: {len(done.fetched)} radiographs of {done.studies} studies{there}{other}"])
    for uid, reason in done.problems:
        typer.echo(f"pleura: {uid}: {reason}", err=True)
    if done.problems:
        raise typer.Exit(1)
