"""The command `evaluate`: parses, calls its verb, prints."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pleura.cli.options import SplitName, Tta
from pleura.cli.printing import Row, measured, pooled, show
from pleura.models.default import named

if TYPE_CHECKING:  # --help imports no verb
    from pleura.evaluation.evaluate import Evaluation


def evaluate(
    model: Annotated[Path, typer.Argument(parser=named, help="A checkpoint, a run's folder, or default.")],
    data: Annotated[Path, typer.Option(help="The dataset folder.")],
    split: Annotated[SplitName | None, typer.Option(help="By default val, or all if the model met none.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The report's folder; by default beside the model.")
    ] = None,
    tta: Annotated[Tta | None, typer.Option(help="flip: mean with the mirrored image; by default as trained.")] = None,
    resamples: Annotated[int, typer.Option(min=10, help="Of the bootstrap.")] = 1000,
) -> None:
    """Score a model, next to its floor and with intervals; writes report.html and report.json."""
    from pleura.evaluation.evaluate import evaluate as run

    show(messages(run(model, data, split, tta, resamples, out)))


def messages(done: Evaluation) -> Iterator[str]:
    """Scores with their floor and intervals, the rule behind them, and the verdict."""
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
