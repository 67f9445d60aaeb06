"""Where a net runs: one rule for Python and the command line.

torch is imported where a device is looked for, so that a net that runs on the CPU without torch starts without it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pleura.errors import InputError
from pleura.extras import is_installed

if TYPE_CHECKING:
    import torch

CPU = ("cpu", "cpu:0")
DRIVERS = ("/proc/driver/nvidia/version", "/dev/nvidiactl", "/dev/nvmap", "/dev/kfd", "/dev/dxg")
"""Of NVIDIA, on a Jetson too, of AMD, and of either under WSL: without them torch finds no GPU on Linux."""

_chosen: str | None = None


def use_device(name: str) -> None:
    """Set the device of this process for callers that name none; `auto`: as `pick_device` chooses.

    Raises: InputError as `pick_device`.
    """
    global _chosen
    _chosen = None
    if name == "auto":
        return
    if name not in CPU and (device := pick_device(name)).type == "cuda":
        import torch

        torch.cuda.set_device(device)  # for whoever asks torch for "cuda", as accelerate does
    _chosen = name


def named_device(name: str | None = None) -> str | None:
    """Return the device that was named, here or by `use_device`; None for `auto`, or where none was."""
    named = name or _chosen
    return None if named == "auto" else named


def chosen_device() -> torch.device | None:
    """Return the device of `use_device`, if one was named."""
    return None if _chosen is None else pick_device(_chosen)


def pick_device(name: str | torch.device | None = None) -> torch.device:
    """Return the device of a name: `cpu`, `cuda`, `cuda:1`, `mps`, `xpu`; by default that of
    `use_device`; for `auto`, or if none was named, the GPU if there is one.

    `auto` chooses between CUDA (ROCm's too) and the CPU; other devices have to be named.
    Raises: InputError, with the devices of this machine, for a name that is none or a device that is not there.
    """
    import torch

    if name is None:
        name = _chosen
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


def is_cpu(name: str | None = None) -> bool:
    """Whether the device of a name, as `pick_device` takes it, is the CPU. torch is asked only where it may be a GPU.

    Raises: as `pick_device`.
    """
    named = named_device(name)
    if named in CPU or (named is None and not (_may_have_gpu() and is_installed("torch"))):
        return True
    return pick_device(name).type == "cpu"


def _may_have_gpu() -> bool:
    """Whether a driver is there through which torch could find a GPU for `auto`; torch says so on Windows."""
    return os.name == "nt" or any(map(os.path.exists, DRIVERS))


def _counts() -> dict[str, int]:
    import torch

    xpu = torch.xpu.device_count() if hasattr(torch, "xpu") else 0
    return {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available()), "xpu": xpu}


def _devices_here() -> str:
    there = [f"{kind}:{number}" for kind, count in _counts().items() for number in range(count)]
    return ", ".join(["cpu", *there])
