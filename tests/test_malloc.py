"""Memory that is freed: a training keeps it; a service gives large blocks back though a small one lives on."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Callable

import pytest

from pleura import malloc

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
PROGRAM = """
import os, sys
import numpy as np
from pleura import malloc

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

done = getattr(malloc, sys.argv[1])() if sys.argv[1:] else False
"""
LARGE_BYTES, MANY_BYTES = 200 << 20, 30 << 20
ONE_TENSOR = f"""
before = resident()
tensor = np.ones({LARGE_BYTES}, dtype=np.uint8)
del tensor
print(done, resident() - before)
"""
RADIOGRAPHS = f"""
np.ones({MANY_BYTES}, dtype=np.uint8)  # with the first one that is freed, glibc would keep the next ones
before = resident()
large = [np.ones({MANY_BYTES}, dtype=np.uint8) for _ in range(4)]
small = [np.ones(10_000, dtype=np.uint8) for _ in range(20)]
del large
print(done, resident() - before)
"""


def held(work: str, *words: str, **environment: str) -> tuple[str, int]:
    """What `malloc` says in a new process, and how many bytes more it holds after large arrays were freed."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    line = [sys.executable, "-c", PROGRAM + work, *words]
    done = subprocess.run(line, env=plain | environment, capture_output=True, text=True, check=True)
    said, held_bytes = done.stdout.split()
    return said, int(held_bytes)


@glibc
def test_memory_of_a_large_array_is_kept_and_otherwise_given_back() -> None:
    said, held_bytes = held(ONE_TENSOR, "keep_memory")
    assert said == "True"
    assert held_bytes > 0.9 * LARGE_BYTES
    assert held(ONE_TENSOR)[1] < 0.1 * LARGE_BYTES


@glibc
def test_large_blocks_are_given_back_and_otherwise_kept_by_a_small_one() -> None:
    said, held_bytes = held(RADIOGRAPHS, "give_memory_back")
    assert said == "True"
    assert held_bytes < MANY_BYTES / 4
    assert held(RADIOGRAPHS)[1] > MANY_BYTES


@glibc
def test_environment_that_says_how_memory_is_to_be_had_is_followed() -> None:
    said, held_bytes = held(ONE_TENSOR, "keep_memory", MALLOC_TOP_PAD_="131072")
    assert said == "False"
    assert held_bytes < 0.1 * LARGE_BYTES
    assert held(RADIOGRAPHS, "give_memory_back", MALLOC_TRIM_THRESHOLD_="131072")[0] == "False"


@pytest.mark.parametrize("set_it", [malloc.keep_memory, malloc.give_memory_back])
def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch, set_it: Callable[[], bool]) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not set_it()
