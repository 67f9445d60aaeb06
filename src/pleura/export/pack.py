"""`pleura pack`: a checkpoint made small, to be handed to others with all that they have to know of it.

Weights of convolutions go to float16, half their size; what rounding does to the probabilities is measured, not
assumed. Biases and BatchNorm's numbers stay float32: they are few, and variances may be too small for float16.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pleura import __version__
from pleura.config.parse import load_card
from pleura.data.phantoms.radiographs import make_phantom
from pleura.errors import CheckpointError, InputError, OutputError
from pleura.files import hash_files, read_records
from pleura.inference.model_files import find_checkpoint
from pleura.inference.predictor import Predictor
from pleura.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from pleura.training.run import METRICS

PHANTOM_SEEDS = (11, 12)
"""Of the radiographs on which the difference is measured: one with a pneumothorax, one without."""


@dataclass(frozen=True)
class Packed:
    """What packing did."""

    source: Path
    out: Path
    source_bytes: int
    out_bytes: int
    difference: float
    """The largest of any pixel's probability on two phantoms, float32 against packed."""
    sha256: str
    """Of the packed file."""


def pack(model: Path, out: Path, card: Path | None = None) -> Packed:
    """Write a checkpoint with its large tensors in float16, its header as it was; equal input gives equal bytes.

    model: a checkpoint, or a folder of one. card: YAML with the fields of `config.card.Card`, for the header.
    Raises: CheckpointError if it is several checkpoints, or holds numbers that float16 has not; ConfigError for the
    card; OutputError if `out` is there already.
    """
    source = find_checkpoint(model)
    if out.exists():
        raise OutputError(f"{out}: is there already; choose another --out")
    whole = load_checkpoint(source)
    packed = replace(
        whole,
        weights={key: _packed(key, tensor, source) for key, tensor in whole.weights.items()},
        recipe=_without_folders(whole.recipe),
        provenance={
            **whole.provenance,
            **_seconds(source, whole.provenance.get("stage")),
            "packed": __version__,
            "packed_from": hash_files(source),
        },
        card=load_card(card).model_dump() if card else whole.card,
    )
    difference = _difference(whole, packed)
    save_checkpoint(out, packed)
    return Packed(source, out, source.stat().st_size, out.stat().st_size, difference, hash_files(out))


def _packed(key: str, tensor: Tensor, source: Path) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    if tensor.ndim < 2:
        return tensor.float()
    half = tensor.half()
    if not torch.isfinite(half).all():
        largest = float(tensor.abs().max())
        raise CheckpointError(f"{source}: {key} reaches {largest:.4g}, and float16 ends at 65504; it cannot be packed")
    return half


def _seconds(checkpoint: Path, stage: str | None) -> dict[str, int]:
    """What training took up to the end of the checkpoint's stage, by the table of epochs beside it; {} without one.

    Validation of each epoch included; what a killed run had not saved is not in the table.
    """
    try:
        rows = [(row["stage"], float(row["seconds"])) for row in read_records(checkpoint.parent / METRICS)]
    except (InputError, ValueError, KeyError):
        return {}
    last = max((number for number, (name, _) in enumerate(rows) if name == stage), default=None)
    return {} if last is None else {"training_seconds": round(sum(seconds for _, seconds in rows[: last + 1]))}


def _without_folders(recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe with weights and teachers by name alone: the folders of one machine are of no use on another."""
    found = dict(recipe)
    if "model" in recipe:
        found["model"] = _by_name(recipe["model"], "pretrained")
    if "stages" in recipe:
        found["stages"] = [
            {**stage, "labels": _by_name(stage["labels"], "teacher")} if "labels" in stage else stage
            for stage in recipe["stages"]
        ]
    return found


def _by_name(settings: dict[str, Any], key: str) -> dict[str, Any]:
    value = settings.get(key)
    return {**settings, key: PurePath(value).name} if isinstance(value, str) else settings


def _difference(whole: Checkpoint, packed: Checkpoint) -> float:
    found = []
    for seed, has_pneumothorax in zip(PHANTOM_SEEDS, (True, False), strict=True):
        image = make_phantom(seed, whole.preprocessing.size_px, has_pneumothorax).image
        square = np.rint(image * 255).astype(np.uint8)[None]
        one, two = (
            Predictor([each], tta="none", precision="float32").probabilities(square) for each in (whole, packed)
        )
        found.append(float(np.abs(one - two).max()))
    return max(found)
