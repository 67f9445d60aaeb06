"""Claim: `pleura predict --ray local` takes at most 1.1 times as long as plain processes, in memory that does not grow.

Overhead: `--files` phantoms by as many plain `pleura predict`, each on its share of them and one thread, as there are
workers, and by `--ray local --workers N`, in turn; whole commands, with their start. Growth: each of `--counts`, on two
workers: the most memory of their own (anonymous pages) of the command, of its largest worker and of all processes that
it started, looked at every 0.2 s, and seconds in all. Last, what one more radiograph costs between the least and the
most of the counts: wall, and processor time and memory of the command alone, which a larger cluster does not share.
Linux only.

Run: python benchmarks/scale.py [--files 3205] [--workers 1 2] [--rounds 1] [--counts 1000 3000 10000] [--size 256]
     [--model FILE]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from paired import machine, ratio, table
from predict import OURS, copies_of_phantoms

LOOK_EVERY_S = 0.2


@dataclass
class Watched:
    """What a command and all that it started held and took."""

    wall_s: float = 0.0
    command_mb: float = 0.0
    worker_mb: float = 0.0
    all_mb: float = 0.0
    command_cpu_s: float = 0.0


def surroundings() -> dict[str, str]:
    """Of both sides: one thread for each process, as Ray gives to a worker of one CPU."""
    return {**os.environ, "PYTHONPATH": str(OURS), "OMP_NUM_THREADS": "1"}


def command_of(images: Path, out: Path, model: Path | None, *options: str) -> list[str]:
    """`pleura predict` as a list of arguments."""
    named = ["--model", str(model)] if model else []
    return [sys.executable, "-m", "pleura", "predict", str(images), "--out", str(out), *named, *options]


def own_mb(process: psutil.Process) -> float:
    """Anonymous pages of a process, in 10^6 bytes; 0 when it has ended."""
    try:
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024 / 1e6


def is_worker(process: psutil.Process) -> bool:
    """Whether it is an actor of the command; Ray names its processes after what runs in them."""
    try:
        return "PredictWorker" in " ".join(process.cmdline())
    except psutil.Error:
        return False


def watch(command: Sequence[str]) -> Watched:
    """Run a command, and look at what it and its processes hold. Raises: SystemExit with what it said if it fails."""
    seen, began = Watched(), time.perf_counter()
    with tempfile.TemporaryFile() as said:
        process = psutil.Popen(command, stdout=said, stderr=said, env=surroundings())
        while process.poll() is None:
            try:
                below, times = process.children(recursive=True), process.cpu_times()
            except psutil.Error:
                continue
            held = {one.pid: own_mb(one) for one in below}
            workers = [held[one.pid] for one in below if is_worker(one)]
            command_mb = own_mb(process)
            seen.command_mb = max(seen.command_mb, command_mb)
            seen.worker_mb = max(seen.worker_mb, *workers, 0.0)
            seen.all_mb = max(seen.all_mb, command_mb + sum(held.values()))
            seen.command_cpu_s = times.user + times.system
            time.sleep(LOOK_EVERY_S)
        seen.wall_s = time.perf_counter() - began
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"{' '.join(command)}: {said.read().decode()}")
    return seen


def plain_s(shares: Sequence[Path], out: Path, model: Path | None) -> float:
    """Seconds until a plain command for each share has ended."""
    began = time.perf_counter()
    commands = [command_of(share, out / share.name, model) for share in shares]
    running = [subprocess.Popen(one, stdout=subprocess.DEVNULL, env=surroundings()) for one in commands]
    ended = [process.wait() for process in running]  # of all of them: each is waited for
    if any(ended):
        raise SystemExit("a plain pleura predict failed")
    return time.perf_counter() - began


def shares_of(images: Path, count: int, folder: Path) -> list[Path]:
    """Folders of links to every `count`-th file."""
    shares = [folder / f"share-{number}" for number in range(count)]
    for share in shares:
        share.mkdir(parents=True)
    for number, path in enumerate(sorted(images.iterdir())):
        (shares[number % count] / path.name).symlink_to(path)
    return shares


def same_files(theirs: Sequence[Path], ours: Path) -> str:
    """Whether the masks of the plain commands and of the cluster are the same bytes, in words."""
    before = {path.name: path.read_bytes() for out in theirs for path in (out / "masks").iterdir()}
    now = {path.name: path.read_bytes() for path in (ours / "masks").iterdir()}
    return f"{len(now)} masks, {'the same bytes' if before == now else 'NOT the same'}"


def overhead(images: Path, folder: Path, workers: Sequence[int], rounds: int, model: Path | None) -> None:
    """Print what the cluster adds to plain processes."""
    rows = []
    for count in workers:
        theirs: list[float] = []
        ours: list[float] = []
        for number in range(rounds):
            place = folder / f"overhead-{count}-{number}"
            shares = shares_of(images, count, place)
            theirs.append(plain_s(shares, place / "plain", model))
            by_ray = command_of(images, place / "ray", model, "--ray", "local", "--workers", str(count))
            ours.append(watch(by_ray).wall_s)
        same = same_files([place / "plain" / share.name for share in shares], place / "ray")
        rows.append([f"{count}", f"{min(theirs):.0f} s", f"{min(ours):.0f} s", ratio(ours, theirs), same])
    table(["workers", "plain processes", "--ray local", "ray : plain", "results"], rows)


def growth(folder: Path, counts: Sequence[int], size_px: int, model: Path | None) -> None:
    """Print memory and seconds by the number of radiographs, and what one more costs."""
    found: list[tuple[int, Watched]] = []
    for count in counts:
        images = copies_of_phantoms(folder / f"growth-{count}", count, size_px)
        out = folder / f"growth-{count}" / "out"
        found.append((count, watch(command_of(images, out, model, "--ray", "local", "--workers", "2"))))
    rows = []
    for count, seen in found:
        held = (seen.command_mb, seen.worker_mb, seen.all_mb)
        rows.append(
            [f"{count}", *(f"{one:.0f} MB" for one in held), f"{seen.wall_s:.0f} s", f"{seen.command_cpu_s:.0f} s"]
        )
    table(["radiographs", "command", "largest worker", "all processes", "wall", "processor, command"], rows)
    (few, first), (many, last) = found[0], found[-1]
    if many > few:
        more = many - few
        print(
            f"\none more radiograph: {(last.wall_s - first.wall_s) / more * 1000:.1f} ms of wall; of the command alone "
            f"{(last.command_cpu_s - first.command_cpu_s) / more * 1000:.2f} ms of processor time and "
            f"{(last.command_mb - first.command_mb) / more * 1000:.1f} kB"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="pleura predict on a Ray cluster of this machine.")
    parser.add_argument("--files", type=int, default=3205, help="How many phantoms both sides predict; 0: left out.")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument(
        "--counts", type=int, nargs="*", default=[1000, 3000, 10000], help="Of the growth; none: left out."
    )
    parser.add_argument("--size", type=int, default=256, help="Side of the phantoms in pixels.")
    parser.add_argument("--model", type=Path, help="A model instead of the one that comes with pleura.")
    given = parser.parse_args()
    print(f"{machine()}\n", flush=True)
    model = given.model.resolve() if given.model else None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if given.files:
            images = copies_of_phantoms(folder / "overhead", given.files, given.size)
            overhead(images, folder, given.workers, given.rounds, model)
            print(flush=True)
        if given.counts:
            growth(folder, given.counts, given.size, model)


if __name__ == "__main__":
    main()
