"""`pleura pack`: make a checkpoint small."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pleura.cli.options import check_out
from pleura.cli.printing import show
from pleura.models.default import named

if TYPE_CHECKING:  # --help imports no verb
    from pleura.export.pack import Packed


def pack(
    model: Annotated[Path, typer.Argument(parser=named, help="A checkpoint, or the folder of one.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The .safetensors file to write.")],
    card: Annotated[Path | None, typer.Option(help="A YAML file with the texts of its card.")] = None,
) -> None:
    """Make a checkpoint small enough to share: large tensors as float16, the header unchanged, and a card."""
    from pleura.export.pack import pack as run

    check_out(out, ".safetensors")
    show(messages(run(model, out, card)))


def messages(done: Packed) -> Iterator[str]:
    """Yield the sizes before and after, the effect of rounding, and the file."""
    before, after = done.source_bytes / 1e6, done.out_bytes / 1e6
    yield f"{done.source}: {before:.2f} MB, packed {after:.2f} MB"
    yield f"  largest difference of a probability on two phantoms: {done.difference:.2g}"
    yield f"wrote {done.out}, sha256 {done.sha256}"
