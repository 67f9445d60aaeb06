"""Weights that others published, as plain tensors. Nothing but tensors is ever unpickled."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pleura.errors import InputError

UNREADABLE = (
    SafetensorError,
    pickle.UnpicklingError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    ValueError,
    struct.error,
)
"""What safetensors and torch.load raise on files that are cut, damaged, or something else."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict from .safetensors, or from a .pth / .pt file that holds nothing but tensors.

    Raises: InputError if the file is missing, damaged, or holds other objects.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no such file of weights")
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        state = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"{path}: cannot be read as weights ({reason})") from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise InputError(f"{path}: holds no state dict of tensors")
    return {str(key): tensor for key, tensor in state.items()}


def not_finite(weights: Mapping[str, Tensor]) -> list[str]:
    """The tensors that hold NaN or infinity as the float32 that nets take, in the order of their names."""
    real = {key: tensor for key, tensor in weights.items() if tensor.is_floating_point() or tensor.is_complex()}
    return sorted(key for key, tensor in real.items() if tensor.is_complex() or not _is_finite(tensor))


def _is_finite(tensor: Tensor) -> bool:
    # A sum is one pass without a copy, and infinite or NaN where one number is; it can also overflow, so that a second
    # look decides. What torch cannot look at, or holds more than float32 does, is looked at as float32.
    seen = tensor if tensor.dtype in (torch.float32, torch.float16, torch.bfloat16) else tensor.float()
    return bool(torch.isfinite(seen.sum(dtype=torch.float32))) or bool(torch.isfinite(seen).all())


def fold_to_one_channel(weight: Tensor) -> Tensor:
    """Fold a stem convolution for three equal channels into one for one channel, with equal outputs.

    (out, 3, h, w) -> (out, 1, h, w): the sum, because a convolution is linear and the three inputs are the same.
    """
    return weight.float().sum(dim=1, keepdim=True)
