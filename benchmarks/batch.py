"""Claim: `pleura predict` holds no more memory over 3,205 radiographs than over 200.

Each count is a whole process over DICOM phantoms of 256 px, looked at every 20 ms: how much memory of its own it holds
at a time (anonymous pages; those of files, libraries among them, the system takes away and gives back as it likes).
Then what the same command over the same folder holds, which has nothing left to predict. The other checkout of
--against, such as `git worktree add old 6f374b2` makes, runs in turn with this one. Linux only.

Run: python benchmarks/batch.py [--counts 200 800 3205] [--model CHECKPOINT] [--against SRC] [--threads 2]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from paired import machine, table
from predict import OURS, copies_of_phantoms

SIDE_PX = 256
LOOK_EVERY_S = 0.02


def peak_mb(command: Sequence[str], source: Path, threads: int) -> tuple[float, float]:
    """Run a command of a checkout; the most memory of its own that it held, in 10^6 bytes, and its seconds.

    Raises: SystemExit with what it said if it fails.
    """
    surroundings = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": str(threads)}
    highest, began = 0, time.perf_counter()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, env=surroundings)
        status = Path(f"/proc/{process.pid}/status")
        while process.poll() is None:
            lines = status.read_text().splitlines()
            own = [line.split()[1] for line in lines if line.startswith("RssAnon")]  # none while it ends
            highest = max(highest, *map(int, own), 0)
            time.sleep(LOOK_EVERY_S)
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"{' '.join(command)}: {said.read().decode()}")
    return highest * 1024 / 1e6, time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description="The memory of pleura predict, by the number of radiographs.")
    parser.add_argument("--counts", type=int, nargs="+", default=[200, 800, 3205])
    parser.add_argument("--model", type=Path, help="A checkpoint instead of the model that comes with pleura.")
    parser.add_argument("--against", type=Path, help="The src folder of another checkout.")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    print(f"{machine()}\n")
    sides = {"ours": OURS} | ({"theirs": given.against.resolve()} if given.against else {})
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for count in given.counts:
            images = copies_of_phantoms(Path(folder) / f"{count}", count, SIDE_PX)
            for name, source in sides.items():
                out = Path(folder) / f"{name}-{count}"
                command = [sys.executable, "-m", "pleura", "predict", str(images), "--out", str(out)]
                command += ["--model", str(given.model.resolve())] if given.model else []
                first, again = (peak_mb(command, source, given.threads) for _ in range(2))
                lines_mb = (out / "journal.jsonl").stat().st_size / 1e6
                cells = [f"{first[0]:.0f} MB", f"{again[0]:.0f} MB", f"{lines_mb:.1f} MB", f"{first[1]:.0f} s"]
                rows.append([f"{count} radiographs, {name}", *cells])
    table(["pleura predict", "at most", "run again", "journal", "wall"], rows)


if __name__ == "__main__":
    main()
