"""Memory that a service gives back as soon as it is free.

glibc maps large blocks apart, and unmaps them when they are freed; but with the first one of up to 32 MB that is freed
it takes blocks of that size from its heap from then on, where a small one that lives on keeps all below it. After two
radiographs of 30 million pixels a service held 100 to 300 MB that nothing was in. A threshold that is set stays.

Source: mallopt(3) of glibc (M_MMAP_THRESHOLD).
"""

from __future__ import annotations

import ctypes
import os
import platform

M_MMAP_THRESHOLD = -3
"""Source: glibc, malloc.h."""
LARGE_BYTES = 1 << 22
"""Blocks from here on are mapped apart: a radiograph of a million pixels as floats."""


def give_memory_back() -> bool:
    """Let this process give large blocks back when they are freed; returns whether it does.

    It does not where the C library is not glibc, or the environment already says how memory is to be had.
    """
    told = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    if told or platform.libc_ver()[0] != "glibc":
        return False
    return bool(ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE_BYTES) == 1)
