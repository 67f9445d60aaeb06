"""`pleura predict`: find pneumothorax on radiographs."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pleura.cli.options import Ray, RayCpus, RayGpus, RayWorkers, ScCompression, SegType, Tta, cluster_options
from pleura.cli.printing import show
from pleura.models.default import DEFAULT, is_default, model_path, named
from pleura.urls.url import Place, place_of

if TYPE_CHECKING:  # --help imports no verb
    from pleura.dicom.deidentify import Secret
    from pleura.inference.batch import BatchResult
    from pleura.inference.part import BatchSettings


def predict(
    inputs: Annotated[list[str], typer.Argument(help="DICOM, PNG or JPEG files, folders, patterns, or URLs of them.")],
    out: Annotated[str, typer.Option("--out", "-o", metavar="<path>", help="The folder of results, or a URL.")],
    model: Annotated[
        Path, typer.Option(parser=named, metavar="<path>", help="A checkpoint, or a run's folder.")
    ] = Path(DEFAULT),
    tta: Annotated[
        Tta | None, typer.Option(help="flip: mean with the mirrored image. Default: as in the recipe.")
    ] = None,
    write: Annotated[
        str, typer.Option(help="What to write: mask, rle, overlay, probabilities, seg, sc, gsps, sr.")
    ] = "mask,rle,overlay",
    seg_type: Annotated[
        SegType, typer.Option(help="What seg holds: the mask, in bits or in bytes, or probabilities.")
    ] = "binary",
    sc_compression: Annotated[
        ScCompression, typer.Option(help="How the pixels of sc are compressed: not at all, or without loss.")
    ] = "none",
    batch_size: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 4,
    prevalence: Annotated[
        float | None,
        typer.Option(
            help="Re-weight reported probabilities to this share of positives, that of where the model is used."
        ),
    ] = None,
    deidentify: Annotated[
        bool, typer.Option("--deidentify", help="Write new ids, no paths, and nothing that a header says of a patient.")
    ] = False,
    deidentify_secret: Annotated[
        Path | None,
        typer.Option(help="File with the secret that new ids follow from. Default: PLEURA_DEIDENTIFY_SECRET."),
    ] = None,
    ray: Ray = None,
    workers: RayWorkers = None,
    ray_cpus: RayCpus = None,
    ray_gpus: RayGpus = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document, and nothing else.")] = False,
) -> None:
    """Find pneumothorax on radiographs: masks, overlays, DICOM objects and tables."""
    from pleura.inference.batch import model_name, predict_batch
    from pleura.inference.part import BatchSettings
    from pleura.inference.predictor import Predictor

    cluster = cluster_options(ray, workers, ray_cpus, ray_gpus)
    wanted, place = _words(write, seg_type, sc_compression), place_of(out)
    secret = _secret(deidentify, deidentify_secret, place)
    settings = BatchSettings(tuple(inputs), place, model_name(model), wanted, batch_size, prevalence, secret)
    if as_json:
        _log_to_standard_error()
    if cluster is None:
        done = predict_batch(Predictor.load(model, tta), settings)
    else:
        from pleura.cluster.predict import predict_on_cluster

        done = predict_on_cluster(model, tta, settings, cluster)
    _report(done, settings, as_json, is_default(model_path(model)))


def _report(done: BatchResult, settings: BatchSettings, as_json: bool, is_default: bool) -> None:
    """Print what was found, and each problem; exit with 1 if there is one."""
    if as_json:
        typer.echo(json.dumps(document(done, settings), indent=1))
    else:
        show(messages(done, settings, is_default))
    for file, reason in done.problems:
        typer.echo(f"pleura: {reason if file in reason else f'{file}: {reason}'}", err=True)
    if done.problems:
        raise typer.Exit(1)


def _log_to_standard_error() -> None:
    for handler in logging.getLogger("pleura").handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setStream(sys.stderr)


def _words(write: str, seg_type: SegType, sc_compression: ScCompression) -> tuple[str, ...]:
    """Return the words of --write, with the forms of seg and sc that are asked for."""
    from pleura.inference.writers import WRITES

    words = tuple(word.strip() for word in write.split(",") if word.strip())
    for word, form, default, option in (
        ("seg", seg_type, "binary", "--seg-type"),
        ("sc", sc_compression, "none", "--sc-compression"),
    ):
        if form != default and word not in words:
            raise typer.BadParameter(f"is for --write {word}", param_hint=option)
        words = tuple(f"{word}-{form}" if form != default and one == word else one for one in words)
    unknown = [word for word in words if word not in WRITES]
    if unknown:
        raise typer.BadParameter(f"{unknown[0]!r} is none of {', '.join(WRITES)}", param_hint="--write")
    return words


def _secret(deidentify: bool, path: Path | None, out: Place) -> Secret | None:
    from pleura.dicom.deidentify import load_secret

    if not deidentify:
        if path is not None:
            raise typer.BadParameter("does nothing alone; add --deidentify", param_hint="--deidentify-secret")
        return None
    if path is not None and isinstance(out, Path) and path.resolve().is_relative_to(out.resolve()):
        raise typer.BadParameter(
            f"{path} lies in the folder of results, and would be handed on with them; keep it elsewhere",
            param_hint="--deidentify-secret",
        )
    return load_secret(path)


def messages(done: BatchResult, settings: BatchSettings, is_default: bool) -> Iterator[str]:
    """Yield how many radiographs were read, on how many a pneumothorax was found, and notes."""
    from pleura.inference.overlay import DISCLAIMER

    count = f"{done.predicted} radiograph{'' if done.predicted == 1 else 's'}"
    was = "was" if done.earlier == 1 else "were"
    earlier = f", {done.earlier} {was} done by an earlier run" if done.earlier else ""
    yield f"{settings.out}: {count}{earlier}; pneumothorax found on {done.positive} of {len(done.rows)}"
    if is_default:
        yield f"found by {settings.model_name}"
    if done.prevalence is not None:
        mixture = "as asked for" if settings.prevalence else "as the cases of the calibration; --prevalence for others"
        yield f"probabilities hold where {100 * done.prevalence:.3g} % are positive, {mixture}"
    yield from dict.fromkeys(f"computed in {each}" for each in done.precisions if each.way_out)
    yield from done.notes
    if noted := [row for row in done.rows if row["notes"]]:
        more = " ..." if len(noted) > 1 else ""
        yield f"{len(noted)} with a note in predictions.csv: {noted[0]['image_id']} ({noted[0]['notes']}){more}"
    yield DISCLAIMER


def document(done: BatchResult, settings: BatchSettings) -> dict[str, Any]:
    """Return what `--json` prints."""
    from pleura.inference.overlay import DISCLAIMER
    from pleura.inference.precision import in_words

    return {
        "out": str(settings.out),
        "model": settings.model_name,
        "predicted": done.predicted,
        "earlier": done.earlier,
        "positive": done.positive,
        "prevalence": done.prevalence,
        "precision": done.precision,
        "computed_in": in_words(done.precisions),
        "predictions": list(done.rows),
        "problems": [{"file": file, "reason": reason} for file, reason in done.problems],
        "notes": done.notes,
        "disclaimer": DISCLAIMER,
    }
