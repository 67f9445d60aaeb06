"""`pleura recalibrate`: fit a model to a site."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pleura.cli.options import Alpha, Confidence, Goal, MissCost, Specificity, check_goal
from pleura.cli.printing import calibration, show
from pleura.models.default import named

if TYPE_CHECKING:  # --help imports no verb
    from pleura.evaluation.recalibrate import Recalibrated


def recalibrate(
    checkpoint: Annotated[
        Path,
        typer.Argument(parser=named, help="The checkpoint to start from; it stays as it is."),
    ],
    data: Annotated[Path, typer.Option(help="A dataset of local cases, fifty or more.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The checkpoint to write.")],
    objective: Goal = "siim_dice",
    prevalence: Annotated[
        float, typer.Option(help="Share of positives that scores are weighted to; 0: as the local cases are.")
    ] = 0.0,
    specificity: Specificity = None,
    miss_cost: MissCost = None,
    alpha: Alpha = 0.05,
    confidence: Confidence = 0.95,
) -> None:
    """Fit a model to a site: move its triplet and calibration towards local cases, the further the more there are."""
    from pleura.decision.objectives import Objective
    from pleura.evaluation.recalibrate import SiteSettings
    from pleura.evaluation.recalibrate import recalibrate as run

    goal = Objective(objective, prevalence or None, *check_goal(objective, specificity, miss_cost))
    show(messages(run(checkpoint, data, out, SiteSettings(goal, alpha, confidence))))


def messages(done: Recalibrated) -> Iterator[str]:
    """Yield the triplet before and after, the gain to expect, the calibration, and the file."""
    share = f"{100 * done.weight:.0f} %"
    yield f"{done.cases} local cases, {done.positives} positive: they weigh {share}, the model's own values the rest"
    yield f"  triplet before   {done.former}"
    yield f"  best locally     {done.local}, for {done.objective}"
    yield f"  triplet now      {done.new}"
    doubt = "" if done.gain.low > 0 else "; its interval includes 0"
    if done.gain.high < 0:
        doubt = "; that is a loss, and the old triplet stays"
    yield f"  gain by moving   {done.gain}, on patients it was not fitted on{doubt}"
    yield f"  image probabilities: Brier score lower by {done.brier_gain}, on the same"
    if done.doubt:
        yield f"  whether these cases are new to the model is not known: {done.doubt}"
    yield from calibration(done.calibration)
    if done.bfloat16:
        yield f"  {done.bfloat16.verdict}"
    yield f"wrote {done.out}"
