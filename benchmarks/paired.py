"""Times two sides in turn, so that what else the machine does falls on both; alone, it prints the machine.

Every script here reports ratios of neighbouring runs (A B A B ...), their median and their spread. Seconds are for
scale only: they belong to the machine and to the minute. What runs on one thread is measured in processor time.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from statistics import median
from typing import Any


def seconds(call: Callable[[], Any], repeats: int = 1, clock: Callable[[], float] = time.perf_counter) -> float:
    """How long one call takes by `clock`; the median of `repeats`."""
    taken = []
    for _ in range(repeats):
        began = clock()
        call()
        taken.append(clock() - began)
    return median(taken)


def in_turn(
    calls: Mapping[str, Callable[[], Any]],
    rounds: int,
    warm_up: bool = True,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of every call in every round: each round runs all of them, one after another."""
    if warm_up:
        for call in calls.values():
            call()
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            taken[name].append(seconds(call, clock=clock))
    return taken


def ratio(theirs: Sequence[float], ours: Sequence[float]) -> str:
    """How many times as long theirs takes: the median of the paired ratios, and the least and the most."""
    ratios = [slow / fast for slow, fast in zip(theirs, ours, strict=True)]
    return f"{_digits(median(ratios))} x ({_digits(min(ratios))} to {_digits(max(ratios))})"


def _digits(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def milliseconds(taken: Sequence[float]) -> str:
    """The median in ms."""
    return f"{_digits(median(taken) * 1000)} ms"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a Markdown table, aligned."""
    widths = [max(len(row[at]) for row in [header, *rows]) for at in range(len(header))]
    for row in [header, ["-" * width for width in widths], *rows]:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")


def machine() -> str:
    """The machine in one line: processors, versions, threads, and how busy it is with other work."""
    # torch is looked at only where a script has imported it: workers of prepare import this file too.
    torch = sys.modules.get("torch")
    threads = f", {torch.get_num_threads()} threads" if torch else ", not used"
    versions = f"Python {platform.python_version()}, numpy {version('numpy')}, torch {version('torch')}{threads}"
    return f"{os.cpu_count()} cores ({platform.machine()}), {versions}; load {os.getloadavg()[0]:.1f}"


if __name__ == "__main__":
    print(machine())
