"""The command `score`: parses, calls its verb, prints."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pleura.cli.printing import measured, pooled, show

if TYPE_CHECKING:  # --help imports no verb
    from pleura.evaluation.score import Score

Scored = Literal["truth", "both"]


def score(
    truth: Annotated[Path, typer.Option(help="True masks: csv of runs, folder of PNG or DICOM-SEG, or a dataset.")],
    pred: Annotated[Path, typer.Option(help="Predicted masks, in any of these forms.")],
    patients: Annotated[Path | None, typer.Option(help="csv with ImageId, patient; or SIIM to NIH.")] = None,
    cases: Annotated[
        Scored, typer.Option(help="truth: an image without a prediction counts as empty; both: it is left out.")
    ] = "truth",
    grid: Annotated[str | None, typer.Option(help="ROWSxCOLUMNS that runs count; by default 1024x1024.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A folder for score.json and cases.csv.")] = None,
    segment: Annotated[
        list[str] | None,
        typer.Option(help="Of DICOM-SEG: number or label of what outlines a pneumothorax; repeatable."),
    ] = None,
    resamples: Annotated[int, typer.Option(min=10, help="Of the bootstrap.")] = 1000,
) -> None:
    """Score masks that any tool wrote: next to their floor, with intervals, and with the faults that numbers hide."""
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
    """Masks of any tool: who they are of, the floor, findings, each number with its interval, and the verdict."""
    from pleura.decision.triplet import SIIM_PREVALENCE

    facts, estimates = done.document, done.estimates
    share = 100 * facts["positives"] / facts["images"]
    yield f"{facts['images']} images, {facts['positives']} positive (prevalence {share:.1f} %); floor {done.floor:.6f}"
    known = f"{facts['patients_known']} of them told" if facts["patients_known"] else "none told: each image is one"
    yield f"  intervals are 95 %, by {facts['patients']} patients ({known})"
    for finding in done.read.findings:
        yield f"  {finding}"
    floors = {"siim_dice": done.floor, "siim_dice_at_siim_prevalence": 1 - SIIM_PREVALENCE}
    names = {
        "siim_dice": "SIIM mean Dice",
        "siim_dice_at_siim_prevalence": "SIIM mean Dice at 22.15 % positives",
        "dice_on_positives": "Dice on positives",
        "sensitivity": "Sensitivity",
        "specificity": "Specificity",
        "ppv": "PPV",
        "npv": "NPV",
    }
    rows = [
        (
            name,
            estimates[key].value,
            f"  {name:<38}{estimates[key]}{f', floor {floors[key]:.4f}' if key in floors else ''}",
        )
        for key, name in names.items()
    ]
    rows.insert(3, pooled(done.read.pooled_dice, 38))
    rows += _outlines(facts["surface"])
    for row in facts["strata"]:
        if row["by"] == "lesion size":
            name = f"Dice, lesion {row['group']}"
            line = f"  {name:<38}{_estimate(row['dice'])}, {row['positives']} images"
            rows.append((name, row["dice"]["value"], line))
    for row in facts["prevalence"]["rows"]:
        at = f"at {100 * row['prevalence']:g} % positives"
        line = f"  {'SIIM mean Dice ' + at:<38}{_estimate(row['siim_dice'])}, floor {row['floor']:.4f}"
        rows.append(("PPV at other shares", row["ppv"]["value"], f"  {'PPV ' + at:<38}{_estimate(row['ppv'])}"))
        rows.append(("SIIM mean Dice at other shares", row["siim_dice"]["value"], line))
    yield from measured(rows, facts["positives"], facts["negatives"])
    yield done.verdict
    if out:
        yield f"{out / 'score.json'}, {out / 'cases.csv'}"


def _outlines(surface: dict[str, Any]) -> Iterator[tuple[str, float, str]]:
    counted = f"{surface['hd95_cases']} positives, {surface['hd95_left_out']} without a prediction left out"
    median = f"median {surface['hd95_median']:.1f}; {counted}"
    name = f"HD95, {surface['unit']}"
    yield name, surface["hd95"]["value"], f"  {name:<38}{_estimate(surface['hd95'], 1)}, {median}"
    name = f"Surface Dice within {surface['tolerance']:g} {surface['unit']}"
    yield name, surface["surface_dice"]["value"], f"  {name:<38}{_estimate(surface['surface_dice'])}"


def _estimate(found: dict[str, float], digits: int = 4) -> str:
    value, low, high = (f"{found[key]:.{digits}f}" for key in ("value", "low", "high"))
    return f"{value} (95 % {low} to {high})"
