"""What several commands share: options of the same meaning, and the words that they take.

The words are those of the verbs' types, named again here because --help is not to wait for the verbs.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import typer

SplitName = Literal["train", "val", "all"]
Tta = Literal["none", "flip"]
ObjectiveName = Literal["siim_dice", "dice_on_positives", "youden", "expected_cost"]

Goal = Annotated[ObjectiveName, typer.Option(help="What the triplet is to be the best for.")]
Specificity = Annotated[float | None, typer.Option(help="The least, for dice_on_positives; by default 0.95.")]
MissCost = Annotated[
    float | None, typer.Option(help="Of a missed pneumothorax in false alarms, for expected_cost; by default 10.")
]
Alpha = Annotated[float, typer.Option(help="The miss rate to stay below when ruling out.")]
Confidence = Annotated[float, typer.Option(help="With which it stays below.")]


def check_goal(objective: ObjectiveName, specificity: float | None, miss_cost: float | None) -> tuple[float, float]:
    """The specificity and the cost of a miss; one that the objective does not use would do nothing, and is refused."""
    for given, of, option in (
        (specificity, "dice_on_positives", "--specificity"),
        (miss_cost, "expected_cost", "--miss-cost"),
    ):
        if given is not None and objective != of:
            raise typer.BadParameter(f"does nothing for {objective}; add --objective {of}", param_hint=option)
    return 0.95 if specificity is None else specificity, 10.0 if miss_cost is None else miss_cost


def check_out(out: Path | None, suffix: str) -> None:
    """A card must not be written over a model or its own texts, nor a model under the name of a text."""
    if out is not None and out.suffix != suffix:
        raise typer.BadParameter(f"{out} does not end in {suffix}; name a file that does", param_hint="--out")


Device = Annotated[str, typer.Option("--device", envvar="PLEURA_DEVICE", help="auto, cpu, cuda, cuda:1, mps.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Say nothing of progress, only results and refusals.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Say what a refusal comes from, for a bug report.")]


def with_habits(command: Callable[..., None], runs_a_net: bool) -> Callable[..., None]:
    """A command with the options that all have, --quiet and --verbose, and --device if it runs a net."""

    @wraps(command)
    def run(*, quiet: bool, verbose: bool, device: str = "auto", **options: Any) -> None:
        logging.getLogger("pleura").setLevel(logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO)
        if runs_a_net:
            _use(device)
        command(**options)

    habits: dict[str, tuple[Any, Any]] = {"quiet": (Quiet, False), "verbose": (Verbose, False)}
    if runs_a_net:
        habits = {"device": (Device, "auto"), **habits}
    hints = get_type_hints(command, include_extras=True)
    own = [each.replace(annotation=hints[name]) for name, each in inspect.signature(command).parameters.items()]
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, (kind, default) in habits.items()
    ]
    run.__signature__ = inspect.Signature([*own, *added])  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in (*own, *added)}
    return run


def _use(device: str) -> None:
    import sys

    if device == "auto" and "pleura.inference.device" not in sys.modules:
        return  # nothing to undo, and torch takes its time
    from pleura.inference.device import use_device

    use_device(device)
