"""The command `pack`: parses, calls its verb, prints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pleura.cli import messages as say
from pleura.cli.options import check_out
from pleura.models.default import named


def pack(
    model: Annotated[Path, typer.Argument(parser=named, help="A checkpoint, or the folder of one.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The .safetensors file to write.")],
    card: Annotated[Path | None, typer.Option(help="A YAML file of what its users have to know.")] = None,
) -> None:
    """Make a checkpoint small, to hand it to others: large tensors in float16, the header as it is, and a card."""
    from pleura.export.pack import pack as run

    check_out(out, ".safetensors")
    typer.echo("\n".join(say.packed(run(model, out, card))))
