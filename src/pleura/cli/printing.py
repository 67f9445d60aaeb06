"""What several commands print."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import TYPE_CHECKING, Any

import typer

from pleura.urls.copies import said
from pleura.urls.mirror import bring_up

if TYPE_CHECKING:  # --help imports no verb
    from pleura.evaluation.metrics.bootstrap import Estimate


def show(lines: Iterable[str]) -> None:
    """Print lines to standard output; a copy of what a URL names goes by the URL.

    What they say was written has gone up before. Raises: StoreError.
    """
    text = said("\n".join(lines))
    bring_up()
    typer.echo(text)


@dataclass(frozen=True)
class Row:
    """A metric in one line."""

    title: str
    estimate: Estimate
    note: str = ""
    """What follows the number and its interval."""
    form: str = ".4f"
    family: str = ""
    """What a metric without a value is named by, where it is one of several; by default its title."""


def pooled(dice: float) -> Row:
    """Return the row of the pooled Dice, which has no interval."""
    from pleura.evaluation.metrics.bootstrap import Estimate
    from pleura.evaluation.metrics.titles import METRICS

    metric = METRICS["pooled_dice"]
    return Row(metric.title, Estimate(dice, float("nan"), float("nan")), f", {metric.meaning}")


def measured(rows: Sequence[Row], positives: int, negatives: int) -> Iterator[str]:
    """Yield the lines of what has a value, and one sentence on the rest."""
    known = [row.estimate.value == row.estimate.value for row in rows]
    for row in compress(rows, known):
        yield f"  {row.title:<38}{row.estimate:{row.form}}{row.note}"
    without = list(dict.fromkeys(row.family or row.title for row, value in zip(rows, known, strict=True) if not value))
    if without:
        missing = [name for name, count in (("positives", positives), ("negatives", negatives)) if not count]
        why = f"there are no {missing[0]} here" if missing else "nothing is found where it would be measured"
        yield f"  {why}, and so no {', no '.join(without)}"


def calibration(header: dict[str, Any]) -> Iterator[str]:
    """Calibration errors before and after, and the threshold for ruling out; header: `calibration` of a checkpoint."""
    from pleura.decision.calibration import Calibration, positives_needed

    yield f"  calibration at {100 * header['prevalence']:.1f} % positives{'':<9}ECE before, after, held out; Brier"
    names = (("images", f"{header['method']} scaling"), ("pixels", f"temperature {header['temperature']:.3f}"))
    for part, how in names:
        found = header["quality"][part]
        numbers = (" ".join(f"{found[when][score]:.4f}" for when in found) for score in ("ece", "brier"))
        yield f"    {part}, {how:<34}{';  '.join(numbers)}"
    asked, rule = header["asked"], Calibration.of(header).conformal
    within = f"under {100 * asked['alpha']:g} % of patients missed, with {100 * asked['confidence']:g} % confidence"
    if rule:
        yield f"  rules out below score {rule.score}: {within} (from {rule.patients} positive patients)"
    else:
        needed = positives_needed(asked["alpha"], asked["confidence"])
        yield f"  there are too few cases to rule out with {within}: it takes {needed} positive patients"
