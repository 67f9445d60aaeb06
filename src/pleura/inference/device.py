"""Where a net runs: one rule for Python and the command line."""

from __future__ import annotations

import torch

from pleura.errors import InputError

_chosen: torch.device | None = None


def use_device(name: str) -> None:
    """Set the device of this process for callers that name none; `auto`: as `pick_device` chooses.

    Raises: InputError as `pick_device`.
    """
    global _chosen
    _chosen = None if name == "auto" else pick_device(name)
    if _chosen is not None and _chosen.type == "cuda":
        torch.cuda.set_device(_chosen)  # for whoever asks torch for "cuda", as accelerate does


def chosen_device() -> torch.device | None:
    """Return the device of `use_device`, if one was named."""
    return _chosen


def pick_device(name: str | torch.device | None = None) -> torch.device:
    """Return the device of a name: `cpu`, `cuda`, `cuda:1`, `mps`, `xpu`; by default that of
    `use_device`; for `auto`, or if none was named, the GPU if there is one.

    `auto` chooses between CUDA (ROCm's too) and the CPU; other devices have to be named.
    Raises: InputError, with the devices of this machine, for a name that is none or a device that is not there.
    """
    if name is None and _chosen is not None:
        return _chosen
    if name is None or name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"device {name!r} is none that torch knows; here are {_devices_here()}") from error
    if device.type == "cpu" and device.index in (None, 0):
        return device
    count = _counts().get(device.type, 0)
    if not count:
        raise InputError(f"device {name}: torch finds none on this machine; here are {_devices_here()}")
    if device.index is not None and device.index >= count:
        raise InputError(f"device {name}: torch counts {count}, from {device.type}:0; here are {_devices_here()}")
    return device


def _counts() -> dict[str, int]:
    xpu = torch.xpu.device_count() if hasattr(torch, "xpu") else 0
    return {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available()), "xpu": xpu}


def _devices_here() -> str:
    there = [f"{kind}:{number}" for kind, count in _counts().items() for number in range(count)]
    return ", ".join(["cpu", *there])
