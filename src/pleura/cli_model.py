"""The commands `pack` and `card`: their options, handed to the verbs of these names."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pleura import say
from pleura.shipped import DEFAULT, named


def pack(
    model: Annotated[Path, typer.Argument(parser=named, help="A checkpoint, or the folder of one.")],
    out: Annotated[Path, typer.Option(help="The .safetensors file to write.")],
    card: Annotated[Path | None, typer.Option(help="A YAML file of what its users have to know.")] = None,
) -> None:
    """Make a checkpoint small, to hand it to others: large tensors in float16, the header as it is, and a card."""
    from pleura.pack import pack as run

    _check_out(out, ".safetensors")
    typer.echo("\n".join(say.packed(run(model, out, card))))


def card(
    model: Annotated[Path, typer.Argument(parser=named, help="A checkpoint, its folder, or default.")] = Path(DEFAULT),
    evaluation: Annotated[
        Path | None, typer.Option(help="A report.json, or its folder, to put into the checkpoint.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The .md file to write; with --evaluation, the checkpoint.")] = None,
) -> None:
    """Print the card of a model: what it is, what it learned from, its scores with intervals, where it fails."""
    from pleura.card import attach
    from pleura.card import card as run
    from pleura.files import write_atomically

    _check_out(out, ".md" if evaluation is None else ".safetensors")
    if evaluation is not None:
        typer.echo(f"wrote {attach(model, evaluation, out)}")
        return
    text = run(model)
    if out is None:
        typer.echo(text, nl=False)
        return
    write_atomically(out, text.encode())
    typer.echo(f"wrote {out}")


def _check_out(out: Path | None, suffix: str) -> None:
    """A card must not be written over a model or its own texts, nor a model under the name of a text."""
    if out is not None and out.suffix != suffix:
        raise typer.BadParameter(f"{out} does not end in {suffix}; name a file that does", param_hint="--out")
