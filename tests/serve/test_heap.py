"""Large blocks that are freed go back to the system, and not to a heap that a small block keeps from shrinking."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from pleura.serve import heap

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
SIZE_BYTES = 30 << 20
FREED = f"""
import os, sys
import numpy as np
from pleura.serve.heap import give_memory_back

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

given = give_memory_back() if "give" in sys.argv else False
np.ones({SIZE_BYTES}, dtype=np.uint8)  # with the first one that is freed, glibc would keep the next ones
before = resident()
large = [np.ones({SIZE_BYTES}, dtype=np.uint8) for _ in range(4)]
small = [np.ones(10_000, dtype=np.uint8) for _ in range(20)]
del large
print(given, resident() - before)
"""


def held(*words: str, **environment: str) -> tuple[str, int]:
    """Whether a new process gives memory back, and how many bytes more it holds after large arrays were freed."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", FREED, *words], env=plain | environment, capture_output=True, text=True, check=True
    )
    given, held_bytes = done.stdout.split()
    return given, int(held_bytes)


@glibc
def test_large_blocks_are_given_back_and_otherwise_kept_by_a_small_one() -> None:
    given, held_bytes = held("give")
    assert given == "True"
    assert held_bytes < SIZE_BYTES / 4
    assert held()[1] > SIZE_BYTES


@glibc
def test_environment_that_says_how_memory_is_to_be_had_is_followed() -> None:
    assert held("give", MALLOC_TRIM_THRESHOLD_="131072")[0] == "False"


def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not heap.give_memory_back()
