"""`pleura score`: score masks of any tool."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pleura.cli.options import Resamples, Segments
from pleura.cli.printing import Row, measured, pooled, show

if TYPE_CHECKING:  # --help imports no verb
    from pleura.evaluation.metrics.subgroups import Subgroup
    from pleura.evaluation.report.document import AtPrevalence, Surface
    from pleura.evaluation.score import Score

Scored = Literal["truth", "both"]
SCORED = ("siim_dice", "siim_dice_at_siim_prevalence", "dice_on_positives", "sensitivity", "specificity", "ppv", "npv")


def score(
    truth: Annotated[Path, typer.Option(help="True masks: csv of runs, folder of PNG or DICOM-SEG, or a dataset.")],
    pred: Annotated[Path, typer.Option(help="Predicted masks, in any of these forms.")],
    patients: Annotated[Path | None, typer.Option(help="csv with ImageId, patient; or SIIM to NIH.")] = None,
    cases: Annotated[
        Scored,
        typer.Option(help="An image without a prediction counts as predicted empty (truth), or is left out (both)."),
    ] = "truth",
    grid: Annotated[
        str | None, typer.Option(help="ROWSxCOLUMNS of the grid that runs of a csv are on. Default: 1024x1024.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The folder to write score.json and cases.csv to.")
    ] = None,
    segment: Segments = None,
    resamples: Resamples = 1000,
) -> None:
    """Score masks of any tool: metrics with intervals beside the floor, and faults that a score hides."""
    from pleura.evaluation.score import ScoreSettings
    from pleura.evaluation.score import score as run

    shape, segments = _shape(grid), tuple(segment or ())
    settings = ScoreSettings(truth, pred, patients, out, cases, shape, resamples, segments)
    show(messages(run(settings), out))


def _shape(grid: str | None) -> tuple[int, int] | None:
    if grid is None:
        return None
    found = re.fullmatch(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})", grid)
    if not found:
        raise typer.BadParameter(f"{grid!r} is not ROWSxCOLUMNS, such as 1024x1024", param_hint="--grid")
    return int(found[1]), int(found[2])


def messages(done: Score, out: Path | None) -> Iterator[str]:
    """Yield counts of images and patients, the floor, findings, each metric with its interval, and the summary."""
    from pleura.evaluation.metrics.titles import METRICS, floors

    report, estimates = done.report, done.report.metrics
    share = 100 * report.positives / report.images
    yield f"{report.images} images, {report.positives} positive (prevalence {share:.1f} %); floor {report.floor:.6f}"
    known = report.patients_known
    whose = f"the patient of {known} images is known" if known else "none is known: each image counts as one"
    yield f"  intervals are 95 %, by {report.patients} patients ({whose})"
    for finding in report.findings:
        yield f"  {finding}"
    at_floor = floors(report.floor)
    rows = [
        Row(METRICS[key].title, estimates[key], f", floor {at_floor[key]:.4f}" if key in at_floor else "")
        for key in SCORED
    ]
    rows.insert(3, pooled(report.pooled_dice))
    rows += [*_outlines(report.surface), *_lesions(report.subgroups), *_other_shares(report.prevalence.rows)]
    yield from measured(rows, report.positives, report.negatives)
    yield report.summary
    if out:
        yield f"{out / 'score.json'}, {out / 'cases.csv'}"


def _outlines(surface: Surface) -> Iterator[Row]:
    from pleura.evaluation.metrics.titles import outline_titles

    hd95, surface_dice = outline_titles(surface.unit, surface.tolerance)
    counted = f"{surface.hd95_cases} positives, {surface.hd95_left_out} without a prediction left out"
    median = f", median {surface.hd95_median:.1f}; {counted}"
    yield Row(hd95, surface.hd95, median, form=".1f")
    yield Row(surface_dice, surface.surface_dice)


def _lesions(subgroups: Iterable[Subgroup]) -> Iterator[Row]:
    for row in subgroups:
        if row.by == "lesion size":
            yield Row(f"Dice, lesion {row.group}", row.dice, f", {row.positives} images")


def _other_shares(rows: Iterable[AtPrevalence]) -> Iterator[Row]:
    from pleura.evaluation.metrics.titles import METRICS

    for row in rows:
        for key, note in (("ppv", ""), ("siim_dice", f", floor {row.floor:.4f}")):
            title = f"{METRICS[key].title} at {100 * row.prevalence:g} % positives"
            yield Row(title, getattr(row, key), note, family=f"{METRICS[key].title} at other shares")
