"""`pleura evaluate`: score a model and write its report."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pleura.cli.options import Ray, RayCpus, RayGpus, RayWorkers, Resamples, SplitName, Tta, cluster_options
from pleura.cli.printing import Row, measured, pooled, show
from pleura.models.default import named

if TYPE_CHECKING:  # --help imports no verb
    from pleura.evaluation.evaluate import Evaluation


def evaluate(
    model: Annotated[Path, typer.Argument(parser=named, help="A checkpoint, a run's folder, or default.")],
    data: Annotated[Path, typer.Option(help="The dataset folder.")],
    split: Annotated[
        SplitName | None,
        typer.Option(
            help="val: the cases that the model was chosen on. Default: val, or all if the data has none of them."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The report's folder. Default: beside the model.")
    ] = None,
    tta: Annotated[
        Tta | None, typer.Option(help="flip: mean with the mirrored image. Default: as in the recipe.")
    ] = None,
    resamples: Resamples = 1000,
    ray: Ray = None,
    workers: RayWorkers = None,
    ray_cpus: RayCpus = None,
    ray_gpus: RayGpus = None,
) -> None:
    """Score a model beside its floor and with intervals; write report.html and report.json."""
    cluster = cluster_options(ray, workers, ray_cpus, ray_gpus)
    if cluster is None:
        from pleura.evaluation.evaluate import evaluate as run

        done = run(model, data, split, tta, resamples, out)
    else:
        from pleura.cluster.evaluate import evaluate_on_cluster

        done = evaluate_on_cluster(model, data, split, tta, resamples, out, cluster)
    show(messages(done))


def messages(done: Evaluation) -> Iterator[str]:
    """Yield the floor, each metric with its interval, the decision rule, findings, and the summary."""
    from pleura.evaluation.metrics.titles import METRICS, SHOWN

    report = done.report
    yield f"{report.split}: {report.positives} positive, {report.negatives} negative; floor {report.floor:.6f}"
    rows = [Row(METRICS[key].title, report.metrics[key]) for key in SHOWN]
    rows.insert(3, pooled(report.pooled_dice))
    yield from measured(rows, report.positives, report.negatives)
    tuned = ", tuned on these very cases" if report.triplet_tuned_on_these_cases else ""
    yield f"  triplet {report.triplet}{tuned}"
    if report.tuned.cross_fitted is not None:
        in_sample, honest = report.tuned.in_sample, report.tuned.cross_fitted
        yield f"  tuning it here, at 22.15 % positives: {in_sample:.4f} in sample, {honest:.4f} cross-fitted"
    yield f"  computed in {report.computed_in}"
    yield from map(str, report.findings)
    yield report.summary
    yield str(done.page)
