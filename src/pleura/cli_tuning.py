"""The commands `tune` and `recalibrate`: their options, handed to the verbs of these names."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from pleura import say
from pleura.shipped import named


class ObjectiveName(str, Enum):
    """What a triplet can be the best for."""

    siim_dice = "siim_dice"
    dice_on_positives = "dice_on_positives"
    youden = "youden"
    expected_cost = "expected_cost"


class TunedOn(str, Enum):
    """Which cases of a dataset."""

    val = "val"
    all = "all"


class Scaling(str, Enum):
    """How image scores become probabilities."""

    platt = "platt"
    beta = "beta"


Goal = Annotated[ObjectiveName, typer.Option(help="What the triplet is to be the best for.")]
Specificity = Annotated[float, typer.Option(help="The least, for dice_on_positives.")]
MissCost = Annotated[float, typer.Option(help="Of a missed pneumothorax in false alarms, for expected_cost.")]
Alpha = Annotated[float, typer.Option(help="The miss rate to stay below when ruling out.")]
Confidence = Annotated[float, typer.Option(help="With which it stays below.")]


def tune(
    model: Annotated[Path, typer.Argument(parser=named, help="A checkpoint, or the folder of a run or ensemble.")],
    data: Annotated[Path, typer.Option(help="The dataset folder.")],
    objective: Goal = ObjectiveName.siim_dice,
    split: Annotated[TunedOn, typer.Option(help="val: the cases that the model was chosen on.")] = TunedOn.val,
    prevalence: Annotated[
        float, typer.Option(help="Share of positives that scores are weighted to; 0: as the cases are.")
    ] = 0.2215,
    specificity: Specificity = 0.95,
    miss_cost: MissCost = 10.0,
    calibration: Annotated[Scaling, typer.Option(help="Of the image score.")] = Scaling.platt,
    alpha: Alpha = 0.05,
    confidence: Confidence = 0.95,
    resamples: Annotated[int, typer.Option(min=10, help="Searches that tell how much the triplet wavers.")] = 50,
    out: Annotated[Path | None, typer.Option(help="A tuned copy of the one checkpoint, which stays as it is.")] = None,
) -> None:
    """Find the best triplet for a model and calibrate it; writes both into the model, with an honest estimate."""
    from pleura.measure.objectives import Objective
    from pleura.tune import TuneSettings
    from pleura.tune import tune as run

    goal = Objective(objective.value, prevalence or None, specificity, miss_cost)
    done = run(model, data, TuneSettings(goal, split.value, calibration.value, alpha, confidence, resamples), out)
    typer.echo("\n".join(say.tuned(done)))


def recalibrate(
    checkpoint: Annotated[
        Path,
        typer.Argument(parser=named, help="The checkpoint to begin with; it is left as it is."),
    ],
    data: Annotated[Path, typer.Option(help="A dataset of local cases, fifty or more.")],
    out: Annotated[Path, typer.Option(help="The checkpoint to write.")],
    objective: Goal = ObjectiveName.siim_dice,
    prevalence: Annotated[
        float, typer.Option(help="Share of positives that scores are weighted to; 0: as the local cases are.")
    ] = 0.0,
    specificity: Specificity = 0.95,
    miss_cost: MissCost = 10.0,
    alpha: Alpha = 0.05,
    confidence: Confidence = 0.95,
) -> None:
    """Fit a model to a site: triplet and calibration, moved towards local cases as far as their number warrants."""
    from pleura.measure.objectives import Objective
    from pleura.recalibrate import SiteSettings
    from pleura.recalibrate import recalibrate as run

    goal = Objective(objective.value, prevalence or None, specificity, miss_cost)
    typer.echo("\n".join(say.recalibrated(run(checkpoint, data, out, SiteSettings(goal, alpha, confidence)))))
