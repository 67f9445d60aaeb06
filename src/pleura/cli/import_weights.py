"""`pleura import-weights`: convert another project's checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from pleura.cli.printing import show

Architecture = Literal["unet", "albunet"]
InputScaling = Literal["encoder", "none"]


def import_weights(
    file: Annotated[Path, typer.Argument(help="A state dict, .pth or .safetensors; only tensors are unpickled.")],
    architecture: Annotated[Architecture, typer.Option(help="Which of the published nets.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The checkpoint to write, a .safetensors file.")],
    encoder: Annotated[str | None, typer.Option(help="Encoder of a unet. Default: found from the file.")] = None,
    size: Annotated[int, typer.Option(min=32, help="Side of the images that it was trained on.")] = 1024,
    input_scaling: Annotated[
        InputScaling | None, typer.Option(help="encoder: ImageNet's; none: [0, 1]. Default: as published.")
    ] = None,
    triplet: Annotated[str | None, typer.Option(help="TOP/PIXELS/BOTTOM. Default: 0.75/2000/0.3.")] = None,
) -> None:
    """Convert another project's checkpoint into one of pleura's, with equal outputs."""
    from pleura.models.import_weights import WeightSettings
    from pleura.models.import_weights import import_weights as run

    made = run(WeightSettings(file, architecture, out, encoder, size, input_scaling, triplet))
    triplet = f"{made.triplet}, {made.provenance['triplet']}"
    show(
        [
            f"{out}: {made.model.architecture} with {made.model.encoder}, {len(made.weights)} tensors",
            f"  input scaling {made.model.input_scaling}; triplet {triplet}",
        ]
    )
