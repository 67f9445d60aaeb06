"""Claim: `pleura predict` over 29 DICOM files is 1.6 times as fast as that of pleura 0.1.0, to the same decisions.

Whole processes in turn, from their start to their last table: this checkout, and the source of another by --against,
such as `git worktree add old 67d0162` makes. Without --against it prints what this one takes. The files are phantoms of
1024 px unless a folder is named. Both sides run the default model, or ours that of --model, on as many threads as
--threads says; with one, the processor time is that of the work, with more it has what threads wait for each other too.

Run: python benchmarks/predict.py [FOLDER] [--files 29] [--against SRC] [--model FILE] [--threads 1] [--rounds 3]
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from first_use import PHANTOM, SIZE_PX, Cost
from paired import machine, ratio, table

N_PHANTOMS = 29
OURS = Path(__file__).parents[1] / "src"
COPIES = """
import sys
from pathlib import Path
import pydicom
from pydicom.uid import generate_uid

folder, count = Path(sys.argv[1]), int(sys.argv[2])
originals = [pydicom.dcmread(path) for path in sorted((folder / "dicom").iterdir())]
(folder / "copies").mkdir()
for number in range(count):
    one = originals[number % len(originals)]
    one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[f"copy {number}"])
    one.save_as(folder / "copies" / f"{number}.dcm")
"""


def make_phantoms(folder: Path, patients: int = N_PHANTOMS, side_px: int = SIZE_PX) -> Path:
    """Phantoms as DICOM files, one or two of each patient, in a process of its own."""
    code = PHANTOM.replace(", 1, seed", f", {patients}, seed")
    subprocess.run([sys.executable, "-c", code, str(folder), str(side_px)], check=True)
    return folder / "dicom"


def copies_of_phantoms(folder: Path, count: int, side_px: int = SIZE_PX) -> Path:
    """So many DICOM files of the phantoms of 20 patients, each with a UID of its own."""
    make_phantoms(folder, 20, side_px)
    subprocess.run([sys.executable, "-c", COPIES, str(folder), str(count)], check=True)
    return folder / "copies"


def predict(source: Path, images: Path, out: Path, threads: int, *options: str) -> Cost:
    """One run of the command of a checkout. Raises: SystemExit with what it said if it fails."""
    command = [sys.executable, "-m", "pleura", "predict", str(images), "--out", str(out), *options]
    surroundings = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": str(threads)}
    with tempfile.TemporaryFile() as said:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=said, stderr=said, env=surroundings)
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"{' '.join(command)}: {said.read().decode()}")
    return Cost(wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e6)


def rows_of(out: Path) -> dict[str, dict[str, str]]:
    """predictions.csv by the path of the file: ids are not the same in every version."""
    with (out / "predictions.csv").open(newline="") as file:
        return {row["source"]: row for row in csv.DictReader(file)}


def differences(theirs: Path, ours: Path) -> str:
    """How the results of two runs differ, in words."""
    before, now = rows_of(theirs), rows_of(ours)
    if before.keys() != now.keys():
        return f"of {len(before)} and {len(now)} files: not the same"
    decisions = sum(before[file]["is_positive"] != row["is_positive"] for file, row in now.items())
    areas = [abs(int(before[file]["area_px"]) - int(row["area_px"])) for file, row in now.items()]
    scores = [abs(float(before[file]["score"]) - float(row["score"])) for file, row in now.items()]
    return (
        f"{len(now)} files: {decisions} decisions differ, areas by at most {max(areas)} px, scores by at most "
        f"{max(scores):.6f}"
    )


def cells(costs: Sequence[Cost]) -> list[str]:
    """Medians of wall, processor time and peak."""
    wall_s, cpu_s, peak_mb = (median(getattr(cost, name) for cost in costs) for name in ("wall_s", "cpu_s", "peak_mb"))
    return [f"{wall_s:.1f} s", f"{cpu_s:.1f} s", f"{peak_mb:.0f} MB"]


def main() -> None:
    parser = argparse.ArgumentParser(description="pleura predict, whole, against another checkout.")
    parser.add_argument("images", type=Path, nargs="?", help="A folder of DICOM files instead of phantoms.")
    parser.add_argument("--files", type=int, default=N_PHANTOMS, help="How many phantoms.")
    parser.add_argument("--model", type=Path, help="What this checkout runs, such as an exported model.")
    parser.add_argument("--against", type=Path, help="The src folder of another checkout.")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    print(f"{machine()}\n")
    sides = {"ours": OURS} | ({"theirs": given.against.resolve()} if given.against else {})
    costs: dict[str, list[Cost]] = {name: [] for name in sides}
    with tempfile.TemporaryDirectory() as folder:
        images = given.images or copies_of_phantoms(Path(folder) / "phantoms", given.files)
        for number in range(given.rounds):
            for name, source in sides.items():
                options = ["--model", str(given.model.resolve())] if given.model and name == "ours" else []
                out = Path(folder) / f"{name}-{number}"
                costs[name].append(predict(source, images, out, given.threads, *options))
        table(["pleura predict", "wall", "processor", "peak memory"], [[name, *cells(costs[name])] for name in sides])
        if given.against:
            ours, theirs = costs["ours"], costs["theirs"]
            print(f"\nprocessor: {ratio([one.cpu_s for one in theirs], [one.cpu_s for one in ours])}")
            print(f"wall: {ratio([one.wall_s for one in theirs], [one.wall_s for one in ours])}")
            print(differences(Path(folder) / "theirs-0", Path(folder) / "ours-0"))


if __name__ == "__main__":
    main()
