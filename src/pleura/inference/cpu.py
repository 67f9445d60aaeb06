"""This machine's CPU: its name, and whether it computes faster in bfloat16 than in float32.

That is measured, because it is not in the name: with AMX a step takes half the time, with emulated bfloat16 several
times as long. It takes half a second, once for each CPU, version of torch and number of threads; what was found
is kept in the user's cache. A CPU without units for bfloat16 is never measured.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import time
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from pleura.errors import PleuraError
from pleura.files import user_cache, write_json
from pleura.models.depthwise import keep_strided_depthwise

UNITS = {"AMX": ("amx_bf16", "_is_amx_tile_supported"), "AVX512_BF16": ("avx512_bf16", "_is_avx512_bf16_supported")}
"""What computes in bfloat16 -> Linux's name of it, and that of torch.cpu's question, which has no public name."""
MEASURED_S, BATCH, SIDE_PX = 0.5, 2, 128


def processor() -> str:
    """Return the name of the CPU, such as `Intel(R) Xeon(R) Processor`."""
    # Linux; on other systems `platform` has it
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def bfloat16_units() -> tuple[str, ...]:
    """Return the names of this CPU's units for bfloat16; none where it has none, or nobody can say."""
    flags = _cpuinfo("flags").split()
    return tuple(
        unit for unit, (flag, question) in UNITS.items() if flag in flags or getattr(torch.cpu, question, bool)()
    )


def bfloat16_gain(training: bool) -> float | None:
    """Return how many times as fast as in float32 a small net is in bfloat16; None for a CPU without units for it.

    training: a step, forward and backward; else a prediction. Measured once for this machine, see above.
    """
    units = bfloat16_units()
    return _gain(training, units, torch.get_num_threads()) if units else None


@cache
def _gain(training: bool, units: tuple[str, ...], threads: int) -> float:
    machine = {
        "cpu": processor(),
        "units": [*units, os.environ.get("ONEDNN_MAX_CPU_ISA", "all")],  # a user can take units away from oneDNN
        "torch": torch.__version__,
        "threads": threads,
        "training": training,
    }
    try:
        note = _note_of(machine)
        known = json.loads(note.read_text(encoding="utf-8"))
        if known["machine"] == machine and known["bfloat16_gain"] > 0:
            return float(known["bfloat16_gain"])
    except (OSError, ValueError, LookupError, TypeError, RuntimeError, RecursionError):
        pass  # no note, or a damaged one: it is measured again
    gain = measured_gain(training)
    with contextlib.suppress(PleuraError, OSError, RuntimeError):  # no cache is no fault
        write_json(_note_of(machine), {"machine": machine, "bfloat16_gain": gain})
    return gain


def _note_of(machine: dict[str, object]) -> Path:
    """Raises: RuntimeError where the user has no home."""
    name = hashlib.sha256(json.dumps(machine).encode()).hexdigest()
    return user_cache("bfloat16") / f"{name[:32]}.json"


def measured_gain(training: bool) -> float:
    """Measure a net of the kinds of layers that the default model has: the time in float32 over that in bfloat16.

    In turn, and in processor time: other work on this machine, or another process that trains, falls on neither.
    """
    with torch.random.fork_rng(devices=[]):  # what is random elsewhere must not depend on whether this was known
        net, images = _net().train(training), torch.rand(BATCH, 1, SIDE_PX, SIDE_PX)
    images = images.contiguous(memory_format=torch.channels_last)
    net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    keep_strided_depthwise(net)

    def seconds(bfloat16: bool) -> float:
        began = time.process_time()
        with torch.set_grad_enabled(training):
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                logits: Tensor = net(images)
            if training:
                torch.autograd.backward(logits.float().sum())
                net.zero_grad()
        return time.process_time() - began

    for bfloat16 in (False, True):
        seconds(bfloat16)  # kernels are made here
    took = {False: 0.0, True: 0.0}
    while sum(took.values()) < MEASURED_S * torch.get_num_threads():
        took = {bfloat16: so_far + seconds(bfloat16) for bfloat16, so_far in took.items()}
    return round(took[False] / took[True], 3)


def _net() -> nn.Module:
    """A stem, two inverted residual blocks, one of them with a stride, and a decoder stage, with random weights."""
    layers: list[nn.Module] = [*_convolution(1, 32, 3, stride=2)]
    for ins, between, stride in ((32, 96, 2), (24, 144, 1)):
        layers += [*_convolution(ins, between, 1), *_convolution(between, between, 3, stride, groups=between)]
        layers += [nn.Conv2d(between, 24, 1, bias=False), nn.BatchNorm2d(24)]
    layers += [*_convolution(24, 96, 3), *_convolution(96, 64, 3), nn.Conv2d(64, 1, 1)]
    return nn.Sequential(*layers)


def _convolution(ins: int, width: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    layer = nn.Conv2d(ins, width, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [layer, nn.BatchNorm2d(width), nn.ReLU6(inplace=True)]


def _cpuinfo(name: str) -> str:
    """Return a field of Linux's /proc/cpuinfo, of the first core; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return ""
    fields = (line.partition(":") for line in lines)
    return next((value.strip() for key, _, value in fields if key.strip() == name), "")
