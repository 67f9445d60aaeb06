"""`pleura prepare`: make a dataset folder."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pleura.cli.options import Ray, RayCpus, Segments, cluster_options
from pleura.cli.printing import show
from pleura.urls.copies import said
from pleura.urls.url import Place, place_of

if TYPE_CHECKING:  # --help imports no verb
    from pleura.data.prepare import Prepared


def prepare(
    images: Annotated[
        str,
        typer.Option(metavar="<path>", help="Folder of DICOM, PNG or JPEG files, searched to any depth, or a URL."),
    ],
    masks: Annotated[list[Path], typer.Option(help="csv of runs, folder of PNG or DICOM-SEG, dataset; repeatable.")],
    out: Annotated[str, typer.Option("--out", "-o", metavar="<path>", help="The dataset folder to write, or a URL.")],
    size: Annotated[int, typer.Option(min=32, help="Side of the square images; prepare once, at the largest.")] = 1024,
    patients: Annotated[Path | None, typer.Option(help="csv with ImageId, patient; else DICOM PatientID.")] = None,
    folds: Annotated[
        str, typer.Option(help="Number of folds, or a csv with ImageId and fold or split (train, val).")
    ] = "5",
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the folds. Default: 42.")] = None,
    rle_grid: Annotated[
        Literal["siim", "image"] | None,
        typer.Option(
            help="The grid that runs of a csv are on. siim, the default: 1024 x 1024; image: each image's own."
        ),
    ] = None,
    segment: Segments = None,
    workers: Annotated[
        int, typer.Option(min=0, help="Processes; 0 is one for each core. With --ray: workers; 0: as many as fit.")
    ] = 0,
    always_train: Annotated[
        list[str] | None,
        typer.Option(
            help="A label source, such as pseudo for pseudo.csv, to train on in every fold and score in none."
        ),
    ] = None,
    ray: Ray = None,
    ray_cpus: RayCpus = None,
) -> None:
    """Turn radiographs and masks into a dataset folder, with folds that keep patients together."""
    from pleura.data.prepare import PrepareSettings
    from pleura.data.prepare import prepare as run

    if seed is not None and not re.fullmatch(r"-?[0-9]+", folds):
        raise typer.BadParameter(f"does nothing: the folds are those of {said(folds)}", param_hint="--seed")
    cluster = cluster_options(ray, workers or None if ray else None, ray_cpus, None)
    settings = PrepareSettings(
        images=place_of(images),
        masks=tuple(masks),
        out=place_of(out),
        size_px=size,
        patients=patients,
        folds=int(folds) if re.fullmatch(r"-?[0-9]+", folds) else Path(folds),
        seed=42 if seed is None else seed,
        rle_grid=rle_grid,
        segments=tuple(segment or ()),
        workers=workers,
        always_train=tuple(always_train or ()),
    )
    if cluster is None:
        made = run(settings)
    else:
        from pleura.cluster.prepare import prepare_on_cluster

        made = prepare_on_cluster(settings, cluster)
    _report(made, settings.out)


def _report(made: Prepared, out: Place) -> None:
    """Print what was made, and doubts; exit with 1 if a radiograph was left out, or two share an id."""
    show(messages(made, out))
    for line in warnings(made):
        typer.echo(line, err=True)
    if made.count("quarantined") or made.count("same id"):
        raise typer.Exit(1)


def messages(made: Prepared, out: Place) -> Iterator[str]:
    """Yield a dataset in counts, its leaks, and the first problem of each kind."""
    card = made.card
    share = 100 * card["positive"] / card["cases"]
    yield f"{out}: {card['cases']} cases of {card['patients']} patients, {card['positive']} positive ({share:.1f} %)"
    if always := card.get("always_train"):
        yield f"  {always} of them are for training alone, and scored in no fold"
    if made.passed_over:
        yield f"  {made.passed_over}"
    for leak in made.leaks:
        yield f"  {leak}"
    for kind, count in card["problems"].items():
        first = next(problem for problem in made.problems if problem.kind == kind)
        more = " ..." if count > 1 else ""
        yield f"  {count} {kind}: {first.file or first.image_id} ({first.reason}){more}"
    if card["problems"]:
        yield f"  all of them with reasons: {out / 'problems.csv'}"


def warnings(made: Prepared) -> Iterator[str]:
    """Yield a warning for each reason to doubt a mask, with the number of such masks."""
    by_reason: dict[str, list[str]] = {}
    for problem in made.problems:
        if problem.kind == "doubtful mask":
            by_reason.setdefault(problem.reason, []).append(problem.image_id or problem.file)
    for reason, names in by_reason.items():
        yield f"pleura: warning: {len(names)} ({', '.join(names[:3])}{' ...' if len(names) > 3 else ''}): {reason}"
