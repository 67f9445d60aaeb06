"""Checkpoints whose header shows what bfloat16 changes in their results."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from pleura.models.bfloat16 import Bfloat16Change
from pleura.models.checkpoint import Checkpoint
from pleura.models.identity import weights_hash


def shown(checkpoint: Checkpoint, **other: Any) -> Checkpoint:
    """The checkpoint with a change that `auto` accepts on CPUs, but for what is given."""
    values: dict[str, Any] = {
        "weights_sha256": weights_hash(checkpoint.weights),
        "triplet": asdict(checkpoint.triplet),
        "tta": checkpoint.recipe.get("tta", "none"),
        "device": "cpu",
        "cases": 200,
        "positives": 100,
        "dice_on_positives": 0.5,
        "dice_change": -0.001,
        "decisions_changed": 1,
        "largest_score_change": 0.01,
        "data_sha256": "0" * 64,
        "pleura": "0.1.0",
    }
    return replace(checkpoint, bfloat16=Bfloat16Change(**(values | other)))
