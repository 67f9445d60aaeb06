"""One .safetensors file is one model: weights, and in its header all that is needed to use and to judge it.

Nothing is unpickled on load. The header's values are JSON: `format`, `model`, `recipe`, `preprocessing`, `triplet`,
`calibration`, `scores` (each with its split), `provenance` (data hash, fold, stage, seed, code version), `seen`,
`card`, which models for others have, and `bfloat16`, where that was measured. `models/header.py` checks them.
"""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from pleura.errors import CheckpointError, ConfigError, InputError
from pleura.files import write_atomically
from pleura.models.build import build_model
from pleura.models.default import keep_default
from pleura.models.exported import is_exported
from pleura.models.header import KEYS, ModelHeader, dump, parse
from pleura.models.net import Net
from pleura.models.weights import not_finite


@dataclass(frozen=True)
class Checkpoint(ModelHeader):
    """What a checkpoint file holds."""

    weights: dict[str, Tensor] = field(kw_only=True)


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, atomically. Raises: OutputError."""
    header = dump({key: getattr(checkpoint, key) for key in ("model", *KEYS)})
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in checkpoint.weights.items()}
    write_atomically(path, _sorted_header(save(tensors, header)))


def update_header(path: Path, changes: Mapping[str, Any], out: Path | None = None) -> None:
    """Write some keys of a checkpoint's header anew, atomically; the tensors' bytes stay as they are.

    changes: keys of the header but `format` and `model`, with values as a `Checkpoint` has them. out: another file to
    write to.
    Raises: CheckpointError if it is no checkpoint or would be none then, OutputError; the model that comes with pleura
    stays as it is.
    """
    keep_default(out or path, "write to another file")
    before = load_checkpoint(path)  # nothing is written into what could not be read
    unknown = changes.keys() - set(KEYS)
    if unknown:
        raise CheckpointError(f"{path}: its header has no {', '.join(sorted(unknown))}")
    # A header of an earlier format does not list every origin of its cases; the new one does.
    metadata = dump({key: getattr(before, key) for key in ("model", *KEYS)} | dict(changes))
    parse(metadata, out or path)
    write_atomically(out or path, _sorted_header(path.read_bytes(), metadata))


def _sorted_header(content: bytes, changes: Mapping[str, str] | None = None) -> bytes:
    """Return a safetensors file with the header's own keys in order, some of them with another value.

    safetensors writes them in an order that differs from process to process, and so would the hash of equal models.
    Source: the safetensors format: 8 bytes for the header's length (little-endian), the header as JSON, the tensors.
    """
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted({**header["__metadata__"], **(changes or {})}.items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8 bytes
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def load_checkpoint(path: Path, *, damaged: bool = False) -> Checkpoint:
    """Read a checkpoint. damaged: also one whose weights are not finite, to look at it.

    Raises: CheckpointError if it is missing, damaged, or not one of pleura's.
    """
    if is_exported(path):
        raise CheckpointError(
            f"{path}: is an exported model, which only runs; name the checkpoint that it was made from"
        )
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such checkpoint")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a mapping)
    except (SafetensorError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise CheckpointError(
            f"{path}: is damaged or no safetensors file ({reason}); copy it again or use last.safetensors of its run"
        ) from error
    made = Checkpoint(weights=weights, **parse(metadata, path))
    if not damaged and (wrong := not_finite(weights)):
        raise CheckpointError(
            f"{path}: {len(wrong)} of its {len(weights)} tensors hold NaN or infinity, {wrong[0]} first; copy it again "
            "or take an earlier checkpoint of its run"
        )
    return made


def net_of(checkpoint: Checkpoint) -> Net:
    """Build the net of a checkpoint with its weights, on the CPU.

    Raises: CheckpointError if its settings make no net, or one that has other weights.
    """
    config = checkpoint.model
    largest = max((side for tensor in checkpoint.weights.values() for side in tensor.shape), default=1)
    if widest := [
        width for width in (*(config.decoder_widths or ()), config.last_width, config.classes) if width > largest
    ]:
        raise CheckpointError(  # before a net is built that no memory holds
            f"the net in the header is {widest[0]} channels wide, the widest of the weights {largest}: "
            "they belong to another architecture"
        )
    try:
        net = build_model(config)
    except (ConfigError, InputError) as error:
        raise CheckpointError(f"the net in the header cannot be built: {error}") from error
    load_weights(net, checkpoint.weights, "checkpoint")
    return net


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], origin: Path | str) -> None:
    """Put weights into a net. Raises: CheckpointError if they belong to another architecture."""
    wanted = model.state_dict()
    missing, extra = wanted.keys() - weights.keys(), weights.keys() - wanted.keys()
    differing = [key for key in wanted.keys() & weights.keys() if wanted[key].shape != weights[key].shape]
    if missing or extra or differing:
        first = sorted([*missing, *extra, *differing])[0]
        raise CheckpointError(
            f"{origin}: the weights belong to another architecture ({len(missing)} tensors missing, {len(extra)} "
            f"unknown, {len(differing)} of another shape; {first} first)"
        )
    model.load_state_dict({key: tensor.to(wanted[key].dtype) for key, tensor in weights.items()})


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write what `--resume` needs (tensors, numbers, text), atomically. Raises: OutputError."""
    buffer = BytesIO()
    torch.save(state, buffer)
    write_atomically(path, buffer.getvalue())


def load_state(path: Path) -> dict[str, Any]:
    """Read what `save_state` wrote; nothing but tensors, numbers and text is unpickled. Raises: CheckpointError."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, LookupError, OSError, RuntimeError, ValueError, struct.error) as error:
        reason = " ".join(str(error).split())[:120]
        raise CheckpointError(
            f"{path}: the training state is damaged ({reason}); remove its folder to start anew"
        ) from error
    return state
