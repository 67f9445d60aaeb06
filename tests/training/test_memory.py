"""Memory that a training process keeps."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
SIZE_BYTES = 200 << 20
FREED = f"""
import os, sys
import numpy as np
from pleura.training.memory import keep_memory

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

kept = keep_memory() if "keep" in sys.argv else False
before = resident()
tensor = np.ones({SIZE_BYTES}, dtype=np.uint8)
del tensor
print(kept, resident() - before)
"""


def freed(*words: str, **environment: str) -> tuple[str, int]:
    """Whether a new process keeps memory, and how many bytes more it holds after a large array was freed."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", FREED, *words], env=plain | environment, capture_output=True, text=True, check=True
    )
    kept, held_bytes = done.stdout.split()
    return kept, int(held_bytes)


@glibc
def test_memory_of_a_large_array_is_kept_and_otherwise_given_back() -> None:
    kept, held_bytes = freed("keep")
    assert kept == "True"
    assert held_bytes > 0.9 * SIZE_BYTES
    assert freed()[1] < 0.1 * SIZE_BYTES


@glibc
def test_environment_that_says_how_memory_is_to_be_had_is_followed() -> None:
    kept, held_bytes = freed("keep", MALLOC_TOP_PAD_="131072")
    assert kept == "False"
    assert held_bytes < 0.1 * SIZE_BYTES


def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from pleura.training import memory

    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not memory.keep_memory()
