"""This machine's CPU: its name, and whether it computes faster in bfloat16 than in float32.

That is measured, because it is not in the name: with AMX a step takes half the time, with emulated bfloat16 several
times as long. It takes half a second, once for each CPU, version of torch and number of threads; what was found
is kept in the user's cache. A CPU without units for bfloat16 is never measured. torch is imported where it is asked.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import platform
from functools import cache
from pathlib import Path

from pleura.errors import PleuraError
from pleura.files import user_cache, write_json

UNITS = {"AMX": ("amx_bf16", "_is_amx_tile_supported"), "AVX512_BF16": ("avx512_bf16", "_is_avx512_bf16_supported")}
"""What computes in bfloat16 -> Linux's name of it, and that of torch.cpu's question, which has no public name."""
INT8_UNITS = {"AVX512_VNNI": "avx512_vnni", "AVX_VNNI": "avx_vnni", "AMX": "amx_int8", "I8MM": "i8mm"}
"""What adds products of 8-bit numbers in 32 bits -> Linux's name of it."""
QUOTAS = (
    ("/sys/fs/cgroup/cpu.max",),
    ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu/cpu.cfs_period_us"),
)
"""Files with a quota and a period of processor time: of control groups of version 2, and of version 1."""


def processor() -> str:
    """Return the name of the CPU, such as `Intel(R) Xeon(R) Processor`."""
    # Linux; on other systems `platform` has it
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def threads() -> int:
    """Return how many threads a net may take: the cores that this process is let on, or fewer by OMP_NUM_THREADS.

    A container with a share of the processor's time sees every core, and is stopped for the rest of each tenth of a
    second in which more threads than its share have used it up.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    given = os.environ.get("OMP_NUM_THREADS", "")  # as PyTorch, and the tools that start many processes, have it
    asked = int(given) if given.isdecimal() and int(given) > 0 else cores
    return max(1, math.ceil(min(cores, asked, _share_of_time())))


def _share_of_time() -> float:
    """How many processors' time a container has, by Linux's control groups; infinity where there is no limit.

    Source: cgroup-v2.rst of Linux (cpu.max: `max` or a quota, and the period), and sched-bwc.rst for version 1.
    """
    for names in QUOTAS:
        try:
            words = " ".join(Path(name).read_text(encoding="ascii") for name in names).split()
            quota, period = float(words[0].replace("max", "inf")), float(words[1])
        except (OSError, ValueError, IndexError):
            continue
        if quota > 0 and period > 0:
            return quota / period
    return math.inf


def bfloat16_units() -> tuple[str, ...]:
    """Return the names of this CPU's units for bfloat16; none where it has none, or nobody can say."""
    import torch

    flags = _cpuinfo("flags").split()
    return tuple(
        unit for unit, (flag, question) in UNITS.items() if flag in flags or getattr(torch.cpu, question, bool)()
    )


def int8_units() -> tuple[str, ...] | None:
    """Return the names of this CPU's units for int8, none where it has none; None where nobody can say."""
    flags = (_cpuinfo("flags") or _cpuinfo("Features")).split()  # of x86, and of ARM
    return tuple(unit for unit, flag in INT8_UNITS.items() if flag in flags) if flags else None


def bfloat16_gain(training: bool) -> float | None:
    """Return how many times as fast as in float32 a small net is in bfloat16; None for a CPU without units for it.

    training: a step, forward and backward; else a prediction. Measured once for this machine, see above.
    """
    import torch

    units = bfloat16_units()
    return _gain(training, units, torch.get_num_threads()) if units else None


@cache
def _gain(training: bool, units: tuple[str, ...], threads: int) -> float:
    import torch

    from pleura.inference.engines import gain

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
    measured = gain.measured_gain(training)
    with contextlib.suppress(PleuraError, OSError, RuntimeError):  # no cache is no fault
        write_json(_note_of(machine), {"machine": machine, "bfloat16_gain": measured})
    return measured


def _note_of(machine: dict[str, object]) -> Path:
    """Raises: RuntimeError where the user has no home."""
    name = hashlib.sha256(json.dumps(machine).encode()).hexdigest()
    return user_cache("bfloat16") / f"{name[:32]}.json"


def _cpuinfo(name: str) -> str:
    """Return a field of Linux's /proc/cpuinfo, of the first core; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return ""
    fields = (line.partition(":") for line in lines)
    return next((value.strip() for key, _, value in fields if key.strip() == name), "")
