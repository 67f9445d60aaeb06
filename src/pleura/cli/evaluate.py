"""`pleura evaluate`: score a model and write its report."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pleura.cli.options import Resamples, SplitName, Tta
from pleura.cli.printing import Row, measured, pooled, show
from pleura.models.default import named

if TYPE_CHECKING:  # --help imports no verb
    from pleura.evaluation.evaluate import Evaluation


def evaluate(
    model: Annotated[Path, typer.Argument(parser=named, help="A checkpoint, a run's folder, or default.")],
    data: Annotated[Path, typer.Option(help="The dataset folder.")],
    split: Annotated[
        SplitName | None,
        typer.Option(help="val: the cases that chose the model. Default: val, or all without such cases."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The report's folder. Default: beside the model.")
    ] = None,
    tta: Annotated[
        Tta | None, typer.Option(help="flip: mean with the mirrored image. Default: as in the recipe.")
    ] = None,
    resamples: Resamples = 1000,
) -> None:
    """Score a model beside its floor and with intervals; write report.html and report.json."""
    from pleura.evaluation.evaluate import evaluate as run

    show(messages(run(model, data, split, tta, resamples, out)))


def messages(done: Evaluation) -> Iterator[str]:
    """Yield the floor, each metric with its interval, the decision rule, findings, and the verdict."""
    from pleura.evaluation.metrics.titles import METRICS, SHOWN

    yield f"{done.split}: {done.positives} positive, {done.negatives} negative; floor {done.floor:.6f}"
    rows = [Row(METRICS[key].title, done.estimates[key]) for key in SHOWN]
    rows.insert(3, pooled(done.pooled_dice))
    yield from measured(rows, done.positives, done.negatives)
    tuned = ", tuned on these very cases" if done.in_sample else ""
    yield f"  triplet {done.triplet}{tuned}"
    if done.tuned["cross_fitted"] is not None:
        in_sample, honest = done.tuned["in_sample"], done.tuned["cross_fitted"]
        yield f"  tuning it here, at 22.15 % positives: {in_sample:.4f} in sample, {honest:.4f} cross-fitted"
    yield from map(str, done.findings)
    yield done.verdict
    yield str(done.report)
