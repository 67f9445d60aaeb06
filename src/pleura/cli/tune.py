"""`pleura tune`: choose the triplet of a model and calibrate it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pleura.cli.options import Alpha, Confidence, Goal, MissCost, Specificity, check_goal
from pleura.cli.printing import calibration as about_calibration
from pleura.cli.printing import show
from pleura.models.default import named

if TYPE_CHECKING:  # --help imports no verb
    from pleura.evaluation.tune import Tuned

TunedOn = Literal["val", "all"]
Scaling = Literal["platt", "beta"]


def tune(
    model: Annotated[Path, typer.Argument(parser=named, help="A checkpoint, or the folder of a run or ensemble.")],
    data: Annotated[Path, typer.Option(help="The dataset folder.")],
    objective: Goal = "siim_dice",
    split: Annotated[
        TunedOn, typer.Option(help="val: the cases that the model was chosen on; all: every case.")
    ] = "val",
    prevalence: Annotated[
        float, typer.Option(help="Share of positives that scores are weighted to; 0: as the cases are.")
    ] = 0.2215,
    specificity: Specificity = None,
    miss_cost: MissCost = None,
    calibration: Annotated[Scaling, typer.Option(help="How the image score is calibrated.")] = "platt",
    alpha: Alpha = 0.05,
    confidence: Confidence = 0.95,
    resamples: Annotated[
        int, typer.Option(min=10, help="Searches on resampled patients, which show how much the triplet varies.")
    ] = 50,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="A tuned copy of the one checkpoint, which stays as it is.")
    ] = None,
) -> None:
    """Find the best triplet for a model and calibrate it; write both into the model, and estimate its score."""
    from pleura.decision.objectives import Objective
    from pleura.evaluation.tune import TuneSettings
    from pleura.evaluation.tune import tune as run

    goal = Objective(objective, prevalence or None, *check_goal(objective, specificity, miss_cost))
    show(messages(run(model, data, TuneSettings(goal, split, calibration, alpha, confidence, resamples), out)))


def messages(done: Tuned) -> Iterator[str]:
    """Yield the old and the new triplet, the score to expect, the spread of the choice, the calibration, the files."""
    yield f"{done.cases} cases, {done.positives} positive; the best for {done.objective}"
    yield f"  triplet before   {done.old}: {done.old_score:.4f}"
    yield f"  triplet now      {done.new}: {done.in_sample:.4f} in sample"
    yield f"  to expect of it  {done.nested}, on patients it was not tuned on; optimism {done.optimism:.4f}"
    if done.objective.name == "dice_on_positives":
        yield f"                   at a specificity of {done.specificity:.4f} on other patients"
    nothing = len(done.spread.triplets) - len(done.spread.finding)
    parts = (("top", "top_threshold", ".3f"), ("pixels", "min_pixels", ".0f"), ("bottom", "bottom_threshold", ".3f"))
    ranges = [(name, done.spread.interval(part), form) for name, part, form in parts]
    chosen = [f"{name} {found[0]:{form}} to {found[1]:{form}}" for name, found, form in ranges if found]
    if chosen:
        yield f"  90 % of {len(done.spread.finding)} resamples choose {', '.join(chosen)}"
    if nothing:
        yield f"  on {nothing} of {len(done.spread.triplets)} resamples the best rule is to find nothing"
    if done.doubt:
        yield f"  whether these cases are new to the model is not known: {done.doubt}"
    yield from about_calibration(done.calibration)
    for number, change in done.bfloat16.items():
        yield f"  {f'{done.written[number]}: ' if len(done.bfloat16) > 1 else ''}{change.verdict}"
    for file in done.written:
        yield f"wrote {file}"
