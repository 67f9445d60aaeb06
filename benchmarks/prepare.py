"""Claim: `prepare` on all cores is 0.9 x cores as fast as one process that reads with pydicom and resizes with Pillow.

Against, all in one process: `prepare` itself on one worker (what the workers bring); a bare loop that reads, shows and
resizes into one .npy (no masks, no hashes, no checks: the least that can be done); and the loop that published projects
ship, which writes a PNG for each image and for each mask.

Radiographs: the DICOM files of ../shared/data where they are, else phantoms, copied under new names; 1024 px.
Every run starts with an empty --out. Run: python benchmarks/prepare.py
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from paired import machine, milliseconds, ratio, seconds, table
from PIL import Image
from pydicom.pixels import apply_modality_lut, apply_voi_lut

from pleura.data import rle
from pleura.data.mask_csv import read_table
from pleura.data.phantoms.dicom_files import write_phantom_dataset
from pleura.data.prepare import PrepareSettings, prepare

SIZE_PX, CASES, ROUNDS = 1024, 232, 3
DICOM = Path(__file__).resolve().parents[2] / "shared/data/dicom"


def write_cases(folder: Path) -> str:
    """Fill `folder` with CASES DICOM files and masks.csv; returns what they are."""
    source, table_path = DICOM, DICOM / "labels.csv"
    what = "original SIIM-ACR files (JPEG baseline), copied"
    if not table_path.is_file():
        write_phantom_dataset(folder / "phantoms", 16, seed=1, size_px=SIZE_PX)
        source, table_path = folder / "phantoms/dicom", folder / "phantoms/masks.csv"
        what = "phantoms (uncompressed), copied; no original DICOM is at hand"
    texts = {key: rows for key, rows in read_table(table_path).runs.items() if (source / f"{key}.dcm").is_file()}
    images = folder / "dicom"
    images.mkdir()
    rows = []
    for number in range(CASES):
        image_id = list(texts)[number % len(texts)]
        shutil.copy(source / f"{image_id}.dcm", images / f"case-{number:03d}.dcm")
        rows += [(f"case-{number:03d}", text) for text in texts[image_id]]
    rle.write_csv(folder / "masks.csv", rows)
    return f"{CASES} radiographs: {len(texts)} {what}"


def show(path: Path) -> NDArray[np.uint8]:
    """One radiograph as a plain script reads it: LUTs, MONOCHROME1, stretched to 8 bits, resized."""
    dataset = pydicom.dcmread(path)
    values = apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset).astype(np.float32)
    values = (values - values.min()) / (values.max() - values.min())
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        values = 1 - values
    picture = Image.fromarray((values * 255).astype(np.uint8))
    return np.asarray(picture.resize((SIZE_PX, SIZE_PX), Image.Resampling.BILINEAR))


def bare_loop(folder: Path, out: Path) -> None:
    """Read, show, resize, store; no masks."""
    out.mkdir()
    paths = sorted((folder / "dicom").iterdir())
    shape = (len(paths), SIZE_PX, SIZE_PX)
    images = np.lib.format.open_memmap(out / "images.npy", mode="w+", dtype=np.uint8, shape=shape)
    for row, path in enumerate(paths):
        images[row] = show(path)
    images.flush()


def published_loop(folder: Path, out: Path, step: int) -> None:
    """One PNG for each image and one for each mask, as published solutions prepare theirs; every `step`th case."""
    out.mkdir()
    masks = read_table(folder / "masks.csv").runs
    for path in sorted((folder / "dicom").iterdir())[::step]:
        Image.fromarray(show(path)).save(out / f"{path.stem}.png")
        Image.fromarray(rle.decode_union(masks[path.stem]) * 255).save(out / f"{path.stem}-mask.png")


def cpu_seconds() -> float:
    """Processor time of this process and of the workers that it has waited for."""
    return sum(os.times()[:4])


def main() -> None:
    """Run the four in turn, three times, and print the ratios."""
    cores = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as temporary:
        folder, fresh = Path(temporary), (Path(temporary) / f"out-{number}" for number in count())
        what = write_cases(folder)
        # Eight cases are the fewest that get workers: nearly all of it is the start of the processes.
        rle.write_csv(folder / "few.csv", [(f"case-{number:03d}", "-1") for number in range(8)])

        def ours(workers: int, masks: str = "masks.csv") -> None:
            settings = PrepareSettings(folder / "dicom", (folder / masks,), next(fresh), SIZE_PX, workers=workers)
            assert prepare(settings).count("quarantined") == 0

        sides: dict[str, tuple[int, Callable[[], None]]] = {
            "prepare, all cores": (CASES, lambda: ours(cores)),
            "prepare, 1 worker": (CASES, lambda: ours(1)),
            "bare loop: pydicom, Pillow -> .npy": (CASES, lambda: bare_loop(folder, next(fresh))),
            "published loop: pydicom, Pillow -> PNG": (CASES // 8, lambda: published_loop(folder, next(fresh), 8)),
        }
        wall: dict[str, list[float]] = {side: [] for side in sides}
        cpu: dict[str, list[float]] = {side: [] for side in sides}
        start_s = seconds(lambda: ours(cores, "few.csv"), 3)
        for _ in range(ROUNDS):
            for side, (cases, run) in sides.items():
                before = cpu_seconds()
                wall[side].append(seconds(run) / cases)
                cpu[side].append((cpu_seconds() - before) / cases)
    print(f"{what}; {machine()}\n")
    all_cores = wall["prepare, all cores"]
    without_start = [taken - start_s / CASES for taken in all_cores]
    rows = [
        [side, milliseconds(wall[side]), milliseconds(cpu[side]), ratio(taken, all_cores), ratio(taken, without_start)]
        for side, taken in wall.items()
    ]
    table(("side", "wall, a case", "CPU, a case", "wall / wall on all cores", "the same, less the start"), rows)
    print(f"\n{cores} workers; {start_s:.1f} s for 8 cases, nearly all of it the start of the workers")


if __name__ == "__main__":
    main()
