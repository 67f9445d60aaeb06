"""The command `tune`: parses, calls its verb, prints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from pleura.cli import messages as say
from pleura.cli.options import Alpha, Confidence, Goal, MissCost, Specificity, check_goal
from pleura.models.default import named

TunedOn = Literal["val", "all"]
Scaling = Literal["platt", "beta"]


def tune(
    model: Annotated[Path, typer.Argument(parser=named, help="A checkpoint, or the folder of a run or ensemble.")],
    data: Annotated[Path, typer.Option(help="The dataset folder.")],
    objective: Goal = "siim_dice",
    split: Annotated[TunedOn, typer.Option(help="val: the cases that the model was chosen on.")] = "val",
    prevalence: Annotated[
        float, typer.Option(help="Share of positives that scores are weighted to; 0: as the cases are.")
    ] = 0.2215,
    specificity: Specificity = None,
    miss_cost: MissCost = None,
    calibration: Annotated[Scaling, typer.Option(help="Of the image score.")] = "platt",
    alpha: Alpha = 0.05,
    confidence: Confidence = 0.95,
    resamples: Annotated[int, typer.Option(min=10, help="Searches that tell how much the triplet wavers.")] = 50,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="A tuned copy of the one checkpoint, which stays as it is.")
    ] = None,
) -> None:
    """Find the best triplet for a model and calibrate it; writes both into the model, with an honest estimate."""
    from pleura.decision.objectives import Objective
    from pleura.evaluation.tune import TuneSettings
    from pleura.evaluation.tune import tune as run

    goal = Objective(objective, prevalence or None, *check_goal(objective, specificity, miss_cost))
    done = run(model, data, TuneSettings(goal, split, calibration, alpha, confidence, resamples), out)
    typer.echo("\n".join(say.tuned(done)))
