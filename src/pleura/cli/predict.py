"""The command `predict`: parses, calls its verb, prints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pleura.cli.options import Tta
from pleura.shipped import DEFAULT, is_default, model_path, named


def predict(
    inputs: Annotated[list[str], typer.Argument(help="DICOM, PNG or JPEG files, folders, or patterns.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder of results.")],
    model: Annotated[
        Path, typer.Option(parser=named, metavar="<path>", help="A checkpoint, or a run's folder.")
    ] = Path(DEFAULT),
    tta: Annotated[Tta | None, typer.Option(help="flip: mean with the mirrored image; by default as trained.")] = None,
    write: Annotated[str, typer.Option(help="What to write: mask, rle, overlay.")] = "mask,rle,overlay",
    batch_size: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 4,
) -> None:
    """Find pneumothorax on radiographs: masks, overlays and tables."""
    from pleura.batch import WRITES, BatchSettings, model_name, predict_batch
    from pleura.predict import Predictor

    wanted = tuple(word.strip() for word in write.split(",") if word.strip())
    unknown = [word for word in wanted if word not in WRITES]
    if unknown:
        raise typer.BadParameter(f"{unknown[0]!r} is none of {', '.join(WRITES)}", param_hint="--write")
    settings = BatchSettings(tuple(inputs), out, model_name(model), wanted, batch_size)
    done = predict_batch(Predictor.load(model, tta.value if tta else None), settings)
    earlier = f", {done.earlier} were done by an earlier run" if done.earlier else ""
    typer.echo(f"{out}: {done.predicted} radiographs{earlier}; pneumothorax found on {done.positive} of all")
    if is_default(model_path(model)):
        typer.echo(f"found by {settings.model_name}")
    for note in done.notes:
        typer.echo(note)
    typer.echo("research software, not a medical device")
    for file, reason in done.problems:
        typer.echo(f"pleura: {reason if file in reason else f'{file}: {reason}'}", err=True)
    if done.problems:
        raise typer.Exit(1)
