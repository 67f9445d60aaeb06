"""The command `predict`: parses, calls its verb, prints."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from pleura.cli import messages as say
from pleura.cli.options import Tta
from pleura.models.default import DEFAULT, is_default, model_path, named


def predict(
    inputs: Annotated[list[str], typer.Argument(help="DICOM, PNG or JPEG files, folders, or patterns.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder of results.")],
    model: Annotated[
        Path, typer.Option(parser=named, metavar="<path>", help="A checkpoint, or a run's folder.")
    ] = Path(DEFAULT),
    tta: Annotated[Tta | None, typer.Option(help="flip: mean with the mirrored image; by default as trained.")] = None,
    write: Annotated[str, typer.Option(help="What to write: mask, rle, overlay.")] = "mask,rle,overlay",
    batch_size: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 4,
    prevalence: Annotated[
        float | None, typer.Option(help="Share of positives where it is used, for the reported probabilities.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document, and nothing else.")] = False,
) -> None:
    """Find pneumothorax on radiographs: masks, overlays and tables."""
    from pleura.inference.batch import WRITES, BatchSettings, model_name, predict_batch
    from pleura.inference.predictor import Predictor

    wanted = tuple(word.strip() for word in write.split(",") if word.strip())
    unknown = [word for word in wanted if word not in WRITES]
    if unknown:
        raise typer.BadParameter(f"{unknown[0]!r} is none of {', '.join(WRITES)}", param_hint="--write")
    settings = BatchSettings(tuple(inputs), out, model_name(model), wanted, batch_size, prevalence)
    if as_json:
        for handler in logging.getLogger("pleura").handlers:
            if isinstance(handler, logging.StreamHandler):
                handler.setStream(sys.stderr)
    done = predict_batch(Predictor.load(model, tta), settings)
    if as_json:
        typer.echo(json.dumps(say.predicted_document(done, settings), indent=1))
    else:
        typer.echo("\n".join(say.predicted(done, settings, is_default(model_path(model)))))
    for file, reason in done.problems:
        typer.echo(f"pleura: {reason if file in reason else f'{file}: {reason}'}", err=True)
    if done.problems:
        raise typer.Exit(1)
