"""Memory of large tensors that a process on CPUs keeps, instead of asking the system for it anew in each step.

glibc maps what is larger than 32 MB, and unmaps it when it is freed: each step then waits for pages that the system
zeroes one by one, a fifth of its time.

Source: mallopt(3) of glibc.
"""

from __future__ import annotations

import ctypes
import os
import platform

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
"""Source: glibc, malloc.h."""
TOP_PAD_BYTES = 1 << 28


def keep_memory() -> bool:
    """Let this process keep what it frees, until it ends; returns whether it does.

    It does not where the C library is not glibc, or the environment already says how memory is to be had.
    """
    told = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    if told or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # No mapping of its own for a tensor, nothing given back, and few requests.
    settings = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: -1, M_TOP_PAD: TOP_PAD_BYTES}
    return all(mallopt(parameter, value) == 1 for parameter, value in settings.items())
