"""Published weights as plain tensors. Nothing but tensors is ever unpickled."""

from __future__ import annotations

import pickle
import re
import struct
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pleura.errors import InputError
from pleura.models.pickled import keys_of, printable

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

WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")
"""Where a training's checkpoint has its state dict, in the order in which timm's own loader looks (averages first)."""
PREFIXES = ("module.", "_orig_mod.")
"""What DataParallel, or an average, and torch.compile put before every key."""
AVERAGED = "n_averaged"
"""torch's AveragedModel keeps its count beside its `module.` keys."""
_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
_REASON_CHARACTERS, _SHOWN_KEYS = 200, 6


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict from .safetensors, or from a .pth / .pt file that holds nothing but tensors and plain values.

    The content decides, not the suffix. A state dict is taken out of a training's checkpoint where timm's own loader
    looks for it (`WRAPPERS`, nested too), and without the `PREFIXES` of wrapped nets.
    Raises: InputError if the file is missing, damaged, or holds other objects; it says which keys were found, and how
    to save a plain state dict.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no such file of weights")
    try:
        if _is_safetensors(path):
            return _without_prefixes(load_file(path))
        # Of a path, torch would go by the suffix; what it warns of (TorchScript) the refusal says.
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(file, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise InputError(f"{path}: {_why(path, str(error))}") from error
    state = content
    while isinstance(state, dict) and (inner := _wrapped(state)) is not None:
        state = inner
    if not _is_state_dict(state):
        raise InputError(f"{path}: holds no state dict of tensors{_found(path, content, trusted=True)}")
    return _without_prefixes({str(key): tensor for key, tensor in state.items()})


def _is_safetensors(path: Path) -> bool:
    """Source: the safetensors format: 8 bytes for the header's length, and the header, which is JSON."""
    with path.open("rb") as file:
        head = file.read(9)
    is_torchs = head.startswith((b"PK\x03\x04", b"\x80"))
    return head[8:] == b"{" or (path.suffix.lower() == ".safetensors" and not is_torchs)


def _is_state_dict(state: object) -> bool:
    return isinstance(state, dict) and bool(state) and all(isinstance(tensor, Tensor) for tensor in state.values())


def _wrapped(content: Mapping[str, Any]) -> Any:
    return next((content[key] for key in WRAPPERS if isinstance(content.get(key), dict)), None)


def _without_prefixes(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    keys = [key for key in state if key != AVERAGED]
    for prefix in PREFIXES:
        if keys and all(key.startswith(prefix) for key in keys):
            return _without_prefixes({key.removeprefix(prefix): state[key] for key in keys})
    return dict(state)


def _why(path: Path, message: str) -> str:
    """Say why a file was not read, in whole sentences: torch's own text has escapes, tabs and advice to unpickle."""
    if "TorchScript" in message:
        return "is a TorchScript archive, a net with its code; save a plain state dict: " + _way_out(
            "torch.jit.load({file}, map_location='cpu').state_dict()", path
        )
    # torch says "Unsupported global: GLOBAL numpy.core.multiarray.scalar was not ...", "unsupported GLOBAL posix.mkdir
    # whose module ...", and "Unsupported class X".
    if found := re.search(r"GLOBAL (\S+) w|[Uu]nsupported class (\S+)", message):
        name = (found[1] or found[2]).rstrip(".")
        what = "a numpy value" if name.startswith("numpy") else "an object"
        return (
            f"cannot be read as weights: it holds {what} besides tensors ({printable(name)}), and unpickling one can "
            f"run any code{_found(path, keys_of(path), trusted=False)}"
        )
    if kind := _other_kind(path):
        return f"cannot be read as weights: {kind}"
    plain = " ".join(_ESCAPES.sub("", message).split()).rpartition("WeightsUnpickler error: ")[2]
    sentences = re.split(r"(?<=[.;]) ", plain)
    reason = sentences[0] if len(sentences[0]) <= _REASON_CHARACTERS else "damaged"
    return f"cannot be read as weights ({printable(reason, _REASON_CHARACTERS).rstrip('.')}); copy it again"


def _other_kind(path: Path) -> str:
    """What a file is that torch never wrote, and the way out; empty if it looks like none of those."""
    with path.open("rb") as file:
        head = file.read(64)
    if not head:
        return "it is empty; copy it again"
    if head.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS and not the file itself; fetch that with git lfs pull"
    if head.lstrip().startswith(b"<"):
        return "it is a web page, as a download that was refused leaves it; download it again"
    return ""


def _found(path: Path, content: object, trusted: bool) -> str:
    """`, but the keys ...; how to save a plain state dict`. trusted: whether it holds nothing that runs code."""
    load = "torch.load({file}, map_location='cpu'" + (")" if trusted else ", weights_only=False)")
    if not isinstance(content, dict) or not content:
        what = f" ({printable(type(content).__name__)})" if content is not None and trusted else ""
        return f"{what}; have it saved as torch.save(net.state_dict(), 'plain.pth')"
    named = [f"{printable(key)} ({_described(value)})" for key, value in content.items()]
    more = f" and {len(named) - _SHOWN_KEYS} more" if len(named) > _SHOWN_KEYS else ""
    keys = f"; its keys are {', '.join(named[:_SHOWN_KEYS])}{more}"
    where = _path_to_weights(content)
    if where is None:
        return f"{keys}; have it saved as torch.save(net.state_dict(), 'plain.pth')"
    caution = "" if trusted else ", if you trust the file"
    return f"{keys}; save a plain state dict{caution}: {_way_out(load + where, path)}"


def _way_out(expression: str, path: Path) -> str:
    return f"torch.save({expression.format(file=repr(path.name))}, 'plain.pth')"


def _path_to_weights(content: Mapping[Any, Any], depth: int = 3) -> str | None:
    """`['a']['b']` of the largest dict of named things inside, which is taken for the state dict; None without one."""
    inner = [(key, value) for key, value in content.items() if isinstance(value, dict) and value]
    # An optimizer's state has numbers for keys, a net's has names with dots.
    names = {key: sum("." in str(name) for name in value) for key, value in inner}
    for key, value in sorted(inner, key=lambda item: -names[item[0]]):
        if names[key]:
            return f"[{printable(key)!r}]"
        if depth and (below := _path_to_weights(value, depth - 1)):
            return f"[{printable(key)!r}]{below}"
    return None


def _described(value: object) -> str:
    return f"dict of {len(value)}" if isinstance(value, dict) else printable(type(value).__name__)


def not_finite(weights: Mapping[str, Tensor]) -> list[str]:
    """Return the names of tensors that hold NaN or infinity as the float32 that nets take, sorted."""
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
