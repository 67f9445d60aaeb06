"""Claim: `predict --write mask,seg,sc,gsps,sr` takes less than 1.5 x the time of `--write mask` alone.

The default model on one thread, in processor time, on radiographs of 1024 px: the DICOM files of ../shared/data where
they are, else phantoms. Every run starts with an empty --out. Run: python benchmarks/dicom_objects.py
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import torch
from paired import in_turn, machine, milliseconds, ratio, table

from pleura.data.phantoms.dicom_files import write_phantom_dataset
from pleura.inference.batch import BatchSettings, predict_batch
from pleura.inference.predictor import Predictor

CASES, ROUNDS = 6, 5
DICOM = Path(__file__).resolve().parents[2] / "shared/data/dicom"
OBJECTS = ("seg", "sc", "gsps", "sr")


def main() -> None:
    """Print the ratio of each object, and of all of them, to the mask alone."""
    torch.set_num_threads(1)
    predictor, numbers = Predictor.load(device="cpu"), count()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        inputs = sorted(DICOM.glob("*.dcm"))[:CASES]
        if not inputs:
            write_phantom_dataset(folder / "phantoms", CASES, seed=1, size_px=1024)
            inputs = sorted((folder / "phantoms/dicom").iterdir())[:CASES]

        def writes(*words: str) -> Callable[[], None]:
            def run() -> None:
                out = folder / f"out-{next(numbers)}"
                done = predict_batch(predictor, BatchSettings(tuple(map(str, inputs)), out, "default", words))
                assert (done.predicted, done.problems) == (len(inputs), [])
                shutil.rmtree(out)

            return run

        calls = {"mask": writes("mask")} | {word: writes("mask", word) for word in OBJECTS}
        calls["all of them"] = writes("mask", *OBJECTS)
        taken = in_turn(calls, ROUNDS, clock=time.process_time)
    print(machine())
    print(f"{len(inputs)} radiographs of 1024 px, {ROUNDS} rounds; {milliseconds(taken['mask'])} for the masks alone")
    table(("with the mask", "time, of the mask alone"), [(word, ratio(taken[word], taken["mask"])) for word in calls])


if __name__ == "__main__":
    main()
