"""What several commands share: options of the same meaning, and the words that they take.

The words are those of the verbs' types, named again here because --help is not to wait for the verbs.
"""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer


class SplitName(str, Enum):
    """Parts of a dataset."""

    train = "train"
    val = "val"
    all = "all"


class Tta(str, Enum):
    """Test-time augmentation."""

    none = "none"
    flip = "flip"


class ObjectiveName(str, Enum):
    """What a triplet can be the best for."""

    siim_dice = "siim_dice"
    dice_on_positives = "dice_on_positives"
    youden = "youden"
    expected_cost = "expected_cost"


Goal = Annotated[ObjectiveName, typer.Option(help="What the triplet is to be the best for.")]
Specificity = Annotated[float, typer.Option(help="The least, for dice_on_positives.")]
MissCost = Annotated[float, typer.Option(help="Of a missed pneumothorax in false alarms, for expected_cost.")]
Alpha = Annotated[float, typer.Option(help="The miss rate to stay below when ruling out.")]
Confidence = Annotated[float, typer.Option(help="With which it stays below.")]


def check_out(out: Path | None, suffix: str) -> None:
    """A card must not be written over a model or its own texts, nor a model under the name of a text."""
    if out is not None and out.suffix != suffix:
        raise typer.BadParameter(f"{out} does not end in {suffix}; name a file that does", param_hint="--out")
