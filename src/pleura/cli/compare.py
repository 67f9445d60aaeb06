"""`pleura compare`: compare two models, or two sets of masks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pleura.cli.options import Segments
from pleura.cli.printing import show
from pleura.models.default import named

if TYPE_CHECKING:  # --help imports no verb
    from pleura.evaluation.compare import Comparison


def compare(
    context: typer.Context,
    first: Annotated[Path, typer.Argument(parser=named, help="A checkpoint or run; with --truth, masks.")],
    second: Annotated[Path, typer.Argument(parser=named, help="The other, of the same kind.")],
    data: Annotated[Path | None, typer.Option(help="For models: the dataset folder.")] = None,
    truth: Annotated[
        Path | None, typer.Option(help="For masks: the true ones, in any form that pleura score reads.")
    ] = None,
    patients: Annotated[Path | None, typer.Option(help="For masks: csv with ImageId, patient.")] = None,
    segment: Segments = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The folder to write compare.json to.")] = None,
    resamples: Annotated[
        int, typer.Option(min=10, help="Resamples of the bootstrap, and exchanges of the test.")
    ] = 1000,
) -> None:
    """Compare two models, or two sets of masks, on the same cases: differences, intervals and p-values by metric."""
    from pleura.evaluation.compare import compare_masks, compare_models

    _check_kinds(data, truth, patients)
    for name in ("device", "precision", "engine"):
        asked = context.get_parameter_source(name)
        if truth is not None and asked is not None and asked.name == "COMMANDLINE":
            raise typer.BadParameter(
                "does nothing with --truth: masks are compared, and no net runs", param_hint=f"--{name}"
            )
    if data is not None:
        show(messages(compare_models(first, second, data, resamples, out)))
    elif truth is not None:
        show(messages(compare_masks(first, second, truth, patients, resamples, out, tuple(segment or ()))))


def _check_kinds(data: Path | None, truth: Path | None, patients: Path | None) -> None:
    if (data is None) == (truth is None):
        raise typer.BadParameter("give --data for two models, or --truth for two sets of masks", param_hint="--data")
    if data is not None and patients is not None:
        raise typer.BadParameter("goes with --truth; a dataset has its patients", param_hint="--patients")


def messages(done: Comparison) -> Iterator[str]:
    """Yield each metric of both, the difference, and the summary."""
    from pleura.evaluation.metrics.titles import METRICS

    yield done.cases
    yield f"  {'':<38}{'first':>9}{'second':>9}   first - second, 95 %              p, adjusted for all"
    for each in done.differences:
        ps = f"{each.p:.4f}, {each.p_adjusted:.4f}"
        better = f"  {each.better} is better" if each.better else ""
        values = f"{METRICS[each.name].title:<38}{each.first:>9.4f}{each.second:>9.4f}"
        yield f"  {values}   {each.difference.short('+.4f'):<32}  {ps}{better}"
    yield done.summary
