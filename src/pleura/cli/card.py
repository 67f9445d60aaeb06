"""`pleura card`: print a model's card, or put an evaluation into its checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pleura.cli.options import check_out
from pleura.cli.printing import show
from pleura.models.default import DEFAULT, named


def card(
    model: Annotated[Path, typer.Argument(parser=named, help="A checkpoint, its folder, or default.")] = Path(DEFAULT),
    evaluation: Annotated[
        Path | None, typer.Option(help="A report.json, or its folder, to put into the checkpoint instead of printing.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The .md file to write; with --evaluation, the checkpoint.")
    ] = None,
) -> None:
    """Print the card of a model: what it is, its training data, its scores with intervals, its failures."""
    from pleura.evaluation.card import attach
    from pleura.evaluation.card import card as run
    from pleura.files import write_atomically

    check_out(out, ".md" if evaluation is None else ".safetensors")
    if evaluation is not None:
        show([f"wrote {attach(model, evaluation, out)}"])
        return
    text = run(model)
    if out is None:
        typer.echo(text, nl=False)
        return
    write_atomically(out, text.encode())
    show([f"wrote {out}"])
