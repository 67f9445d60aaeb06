"""Claim: `pleura predict --write mask,seg,sc,gsps,sr` takes less than 1.5 x the time of `--write mask` alone.

Whole commands in turn, from their start to their last table, each over all files and into an empty folder: phantoms of
1024 px unless a folder is named, with the default model. --each measures each object beside the mask, too. With one
thread the processor time is that of the work, whatever else the machine does.

Run: python benchmarks/dicom_objects.py [FOLDER] [--files 300] [--rounds 2] [--each] [--threads 1]
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from first_use import Cost
from paired import machine, ratio, table
from predict import OURS, cells, make_phantoms, predict

OBJECTS = ("seg", "sc", "sc-jpeg-lossless", "gsps", "sr")


def first_files(folder: Path, count: int, out: Path) -> Path:
    """A new folder with links to the first DICOM files of another. Raises: SystemExit where there are none."""
    files = sorted(folder.glob("*.dcm"))[:count]
    if not files:
        raise SystemExit(f"{folder}: no file ends in .dcm")
    out.mkdir()
    for file in files:
        (out / file.name).symlink_to(file.resolve())
    return out


def compared(costs: Sequence[Cost], with_masks_alone: Sequence[Cost]) -> list[str]:
    """How many times as long as the masks alone, of processor time and of wall."""
    return [
        ratio([getattr(one, name) for one in costs], [getattr(one, name) for one in with_masks_alone])
        for name in ("cpu_s", "wall_s")
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="pleura predict with DICOM objects, whole, against masks alone.")
    parser.add_argument("images", type=Path, nargs="?", help="A folder of DICOM files instead of phantoms.")
    parser.add_argument("--files", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--each", action="store_true", help="Each object beside the mask, too.")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    print(f"{machine()}\n")
    alone, whole = "mask", "mask,seg,sc,gsps,sr"
    written = [alone, *(f"mask,{word}" for word in OBJECTS if given.each), whole]
    costs: dict[str, list[Cost]] = {words: [] for words in written}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        there = given.images or make_phantoms(folder / "made", given.files)
        images = first_files(there, given.files, folder / "images")
        for number in range(given.rounds):
            for words in written:
                out = folder / f"out-{number}"
                costs[words].append(predict(OURS, images, out, given.threads, "--write", words))
                shutil.rmtree(out)
        count = len(list(images.iterdir()))
    print(f"{count} radiographs, {given.rounds} rounds, {given.threads} thread(s)\n")
    table(
        ["--write", "wall", "processor", "peak memory", "processor, of masks alone", "wall, of masks alone"],
        [[words, *cells(costs[words]), *compared(costs[words], costs[alone])] for words in written],
    )


if __name__ == "__main__":
    main()
