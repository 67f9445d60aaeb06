"""What glibc does with memory that is freed: a training keeps it, a service gives it back.

glibc maps blocks of more than 32 MB apart, and unmaps them when they are freed. A training then waits in each step for
pages that the system zeroes one by one, a fifth of its time. Of smaller blocks, with the first one that is freed it
takes those of that size from its heap from then on, where a small one that lives on keeps all below it: after two
radiographs of 30 million pixels a service held 100 to 300 MB that nothing was in. A threshold that is set stays.

Source: mallopt(3) of glibc.
"""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Mapping

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -2, -3, -4
"""Source: glibc, malloc.h."""
TOP_PAD_BYTES = 1 << 28
LARGE_BYTES = 1 << 22
"""Blocks from here on are mapped apart by a service: a radiograph of a million pixels as floats."""


def keep_memory() -> bool:
    """Let this process keep what it frees, until it ends; returns whether it does. See `_set` for where it does not."""
    # No mapping of its own for a tensor, nothing given back, and few requests.
    return _set({M_MMAP_MAX: 0, M_TRIM_THRESHOLD: -1, M_TOP_PAD: TOP_PAD_BYTES})


def give_memory_back() -> bool:
    """Let this process give large blocks back when they are freed; returns whether it does. See `_set`."""
    return _set({M_MMAP_THRESHOLD: LARGE_BYTES})


def _set(parameters: Mapping[int, int]) -> bool:
    """Return whether all of it is set: not where the C library is another, or the environment already says how."""
    told = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    if told or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(parameter, value) == 1 for parameter, value in parameters.items())
