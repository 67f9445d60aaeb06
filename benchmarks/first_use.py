"""Claim: on 2 cores `pleura predict one.dcm --out out` takes under 1.5 s and under 250 MB from a cold start.

Against the same by PyTorch (`--engine torch`), and `import torch` alone, in turn. Then what every command costs before
it does anything: its `--help`, and all that its function in the command line imports (`train`: on any of its ways; timm
comes on top where a net of it is built).

Every number is of a new process with its files in the system's cache; the phantom has 1024 x 1024 px.
Run: python benchmarks/first_use.py [--rounds 5]
"""

from __future__ import annotations

import argparse
import ast
import inspect
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from paired import machine, ratio, table
from typer.main import get_command

from pleura.cli import app

SIZE_PX = 1024
PEAK_UNIT_BYTES = 1 if sys.platform == "darwin" else 1024
PHANTOM = (
    "import sys; from pathlib import Path; from pleura.data.phantoms.dicom_files import write_phantom_dataset; "
    "write_phantom_dataset(Path(sys.argv[1]), 1, seed=1, size_px=int(sys.argv[2]))"
)
PLEURA = "import sys; from pleura.cli import main; sys.exit(main())"


@dataclass(frozen=True)
class Cost:
    """What one process took, from its start to its end."""

    wall_s: float
    cpu_s: float
    """Processor time of all its threads."""
    peak_mb: float
    """The most memory that it held at a time, in 10^6 bytes."""


def cost(code: str, *words: str) -> Cost:
    """Run `code` in a new Python. Raises: CalledProcessError if it fails, with what it said."""
    command = [sys.executable, "-c", code, *words]
    with tempfile.TemporaryFile() as said:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=said, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise subprocess.CalledProcessError(process.returncode, command, said.read().decode())
    return Cost(wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * PEAK_UNIT_BYTES / 1e6)


def predict_once(dicom: Path, out: Path, words: Sequence[str]) -> Cost:
    """One radiograph into an empty folder."""
    shutil.rmtree(out, ignore_errors=True)
    return cost(PLEURA, "predict", str(dicom), "--out", str(out), *words)


def imports_of(command: Callable[..., Any]) -> list[str]:
    """The modules that a command's function imports, by its source."""
    nodes = list(ast.walk(ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(command))))))
    named = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    return sorted(named | {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names})


def middle(costs: Sequence[Cost]) -> list[str]:
    """Medians as cells: wall, processor time, peak."""
    wall_s, cpu_s, peak_mb = (median(getattr(each, name) for each in costs) for name in ("wall_s", "cpu_s", "peak_mb"))
    return [f"{wall_s:.2f} s", f"{cpu_s:.2f} s", f"{peak_mb:.0f} MB"]


def first_use(folder: Path, rounds: int) -> None:
    """Print what one radiograph costs, beside the same by PyTorch and `import torch`."""
    # In a process of its own: Linux counts what a parent held before its child began to the child's peak.
    subprocess.run([sys.executable, "-c", PHANTOM, str(folder), str(SIZE_PX)], check=True)
    dicom = min((folder / "dicom").glob("*.dcm"))
    ways: dict[str, Callable[[], Cost]] = {
        "pleura predict one.dcm --out out": lambda: predict_once(dicom, folder / "out", []),
        "the same, --engine torch": lambda: predict_once(dicom, folder / "out", ["--engine", "torch"]),
        "import torch": lambda: cost("import torch"),
    }
    for way in ways.values():
        way()  # so that all files are in the system's cache
    costs: dict[str, list[Cost]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            costs[name].append(way())
    table(
        ["from a cold start", "wall", "processor", "peak memory"],
        [[name, *middle(each)] for name, each in costs.items()],
    )
    print()
    ours, *others = costs
    for other in others:
        for name, what in (("processor", "cpu_s"), ("wall", "wall_s")):
            pair = ([getattr(each, what) for each in costs[way]] for way in (other, ours))
            print(f"{name}: `{other}` takes {ratio(*pair)} as long")


def every_command(rounds: int) -> None:
    """Print what each command costs before it does anything."""
    rows = []
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        modules = ["pleura.cli.app", *imports_of(command.callback)]
        told = [cost(PLEURA, name, "--help") for _ in range(rounds)]
        imported = [cost("import " + ", ".join(modules)) for _ in range(rounds)]
        rows.append([f"`{name}`", middle(told)[1], *middle(imported)[1:]])
    table(["command", "--help", "its imports", "peak memory"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description="What the first use costs.")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    print(f"{machine()}\n")
    with tempfile.TemporaryDirectory() as folder:
        first_use(Path(folder), arguments.rounds)
    print()
    every_command(max(1, arguments.rounds // 2))
    print("\nprocessor time of the whole process, Python's own start included")


if __name__ == "__main__":
    main()
