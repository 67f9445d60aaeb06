"""One .safetensors file is one model: weights, and in its header all that is needed to use and to judge it.

Nothing is unpickled on load. The header's values are JSON: `format`, `model`, `recipe`, `preprocessing`, `triplet`,
`calibration`, `scores` (each with its split), `provenance` (data hash, fold, stage, seed, code version), `seen`, and
`card`, which models have that are handed to others.
"""

from __future__ import annotations

import hashlib
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

from pleura.config import parse_model
from pleura.errors import CheckpointError, ConfigError
from pleura.files import write_atomically
from pleura.settings import ModelConfig
from pleura.shipped import keep_default

FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds. `preprocessing` and `triplet` are the fields of the classes of those names."""

    model: ModelConfig
    weights: dict[str, Tensor]
    preprocessing: dict[str, Any]
    triplet: dict[str, Any]
    recipe: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    calibration: dict[str, Any] | None = None
    seen: dict[str, list[str]] = field(default_factory=dict)
    """`train` and `val`: `case_key` of every case it learned from, and of those it was chosen and tuned on."""
    card: dict[str, Any] | None = None
    """What whoever is handed the model has to know of it, the fields of `config.Card`; None for most."""


KEYS = ("preprocessing", "triplet", "recipe", "scores", "provenance", "calibration", "seen", "card")
LATER_KEYS: dict[str, Any] = {"card": None}
"""What checkpoints of earlier versions do not have, and what stands for it."""


def case_key(image_id: str) -> str:
    """Eight hexadecimal digits for an image id: enough to know a case again, and no list of patients' studies."""
    return hashlib.sha256(image_id.encode("utf-8", "surrogateescape")).hexdigest()[:8]


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, atomically. Raises: OutputError."""
    header = {
        "format": FORMAT,
        # The encoder's weights are in the file: whoever loads it must not look for ImageNet's.
        "model": checkpoint.model.model_copy(update={"pretrained": False}).model_dump(mode="json"),
        **{key: getattr(checkpoint, key) for key in KEYS},
    }
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in checkpoint.weights.items()}
    write_atomically(path, _sorted_header(save(tensors, {key: json.dumps(value) for key, value in header.items()})))


def update_header(path: Path, changes: Mapping[str, Any], out: Path | None = None) -> None:
    """Write some keys of a checkpoint's header anew, atomically; the tensors' bytes stay as they are.

    changes: keys of the header but `format` and `model`, with values that JSON has. out: another file to write to.
    Raises: CheckpointError if it is no checkpoint, OutputError; the model that comes with pleura stays as it is.
    """
    keep_default(out or path, "write to another file")
    load_checkpoint(path)  # nothing is written into what could not be read
    unknown = changes.keys() - set(KEYS)
    if unknown:
        raise CheckpointError(f"{path}: its header has no {', '.join(sorted(unknown))}")
    content = path.read_bytes()
    metadata = {key: json.dumps(value) for key, value in changes.items()}
    write_atomically(out or path, _sorted_header(content, metadata))


def _sorted_header(content: bytes, changes: Mapping[str, str] | None = None) -> bytes:
    """The bytes of a safetensors file with its header's own keys in order, some of them with another value.

    safetensors writes them in an order that differs from process to process, and so would the hash of equal models.
    Source: the safetensors format: 8 bytes for the header's length (little-endian), the header as JSON, the tensors.
    """
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted({**header["__metadata__"], **(changes or {})}.items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8 bytes
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint. Raises: CheckpointError if it is missing, damaged, or not one of pleura's."""
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
    if metadata.get("format") != json.dumps(FORMAT):
        raise CheckpointError(f"{path}: is no checkpoint of this version of pleura (its header has no such format)")
    try:
        header = LATER_KEYS | {key: json.loads(value) for key, value in metadata.items()}
        model = parse_model(header["model"])
        return Checkpoint(
            model=model,
            weights=weights,
            **{key: header[key] for key in KEYS},
        )
    except (KeyError, ValueError, TypeError, ConfigError) as error:
        raise CheckpointError(f"{path}: the header is incomplete or of another version ({error})") from error


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
