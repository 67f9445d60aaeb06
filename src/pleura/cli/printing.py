"""What several commands print."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import typer


def show(lines: Iterable[str]) -> None:
    """Print lines to standard output."""
    typer.echo("\n".join(lines))


def pooled(value: float, width: int) -> tuple[str, float, str]:
    """The row of the pooled Dice, for `measured`; width: of its title in characters."""
    note = "of the pixels of all images together: not a mean, and not to be compared with one"
    return "pooled Dice", value, f"  {'pooled Dice':<{width}}{value:.4f}, {note}"


def measured(rows: Sequence[tuple[str, float, str]], positives: int, negatives: int) -> Iterator[str]:
    """The lines of what has a value, and one sentence on the rest. rows: name, value, line."""
    yield from (line for _, value, line in rows if value == value)
    without = list(dict.fromkeys(name for name, value, _ in rows if value != value))
    if without:
        missing = [name for name, count in (("positives", positives), ("negatives", negatives)) if not count]
        why = f"there are no {missing[0]} here" if missing else "nothing is found where it would be measured"
        yield f"  {why}, and so no {', no '.join(without)}"


def calibration(header: dict[str, Any]) -> Iterator[str]:
    """Calibration errors before and after, and the threshold for ruling out; header: `calibration` of a checkpoint."""
    from pleura.decision.calibration import positives_needed

    yield f"  calibration at {100 * header['prevalence']:.1f} % positives{'':<9}ECE before, after, held out; Brier"
    names = (("images", f"{header['method']} scaling"), ("pixels", f"temperature {header['temperature']:.3f}"))
    for part, how in names:
        found = header["quality"][part]
        numbers = (" ".join(f"{found[when][score]:.4f}" for when in found) for score in ("ece", "brier"))
        yield f"    {part}, {how:<34}{';  '.join(numbers)}"
    asked, rule = header["asked"], header["conformal"]
    within = f"under {100 * asked['alpha']:g} % of patients missed, with {100 * asked['confidence']:g} % confidence"
    if rule:
        yield f"  rules out below score {rule['threshold']:.4f}: {within} (from {rule['patients']} positive patients)"
    else:
        needed = positives_needed(asked["alpha"], asked["confidence"])
        yield f"  the data is too few to rule out with {within}: it takes {needed} positive patients"
