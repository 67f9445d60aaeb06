"""The command `recalibrate`: parses, calls its verb, prints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pleura.cli import messages as say
from pleura.cli.options import Alpha, Confidence, Goal, MissCost, Specificity, check_goal
from pleura.models.default import named


def recalibrate(
    checkpoint: Annotated[
        Path,
        typer.Argument(parser=named, help="The checkpoint to begin with; it is left as it is."),
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
    """Fit a model to a site: triplet and calibration, moved towards local cases as far as their number warrants."""
    from pleura.decision.objectives import Objective
    from pleura.evaluation.recalibrate import SiteSettings
    from pleura.evaluation.recalibrate import recalibrate as run

    goal = Objective(objective, prevalence or None, *check_goal(objective, specificity, miss_cost))
    typer.echo("\n".join(say.recalibrated(run(checkpoint, data, out, SiteSettings(goal, alpha, confidence)))))
