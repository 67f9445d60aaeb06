"""kill -9 at random points, five times: the run ends in the same files as one that nothing happened to."""

from __future__ import annotations

import hashlib
import os
import random
import time

import pytest
from forked import train_smoke
from processes import forkserver

OVERRIDES = (
    "training.epochs=3",
    "training.positive_rate=[0.7,0.4]",
    "training.freeze_encoder_epochs=1",
    "training.averaging={swa_epochs: 2, ema_decay: 0.9, top_k: 2, soup: true, hand_on: soup}",
    "training.schedule={name: plateau, patience: 0}",
    "save_minutes=0",  # a state after every step
    "samples=0",
)


@pytest.fixture(scope="module")
def start():
    """Starts a process that trains; they are forked from one that has imported torch, which takes seconds."""
    context = forkserver()
    first = context.Process(target=os.getpid)  # ends when the imports are done, which are no part of a training's time
    first.start()
    first.join()

    def begin(dataset, out):
        process = context.Process(target=train_smoke, args=(OVERRIDES, dataset, out, True))
        process.start()
        return process

    return begin


def hashes(out):
    """sha256 of every checkpoint of a run, by its name."""
    files = sorted((out / "fold-0").glob("*.safetensors"))
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def last_saved(out):
    state = out / "fold-0" / "state" / "state.pt"
    return state.stat().st_mtime_ns if state.exists() else 0


def test_a_run_that_is_killed_five_times_ends_in_the_same_files(start, dataset, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    began = time.monotonic()
    process = start(dataset, whole)
    process.join(timeout=200)
    assert process.exitcode == 0
    a_sixth_s, pause = (time.monotonic() - began) / 6, random.Random(7)
    for _ in range(5):
        before = last_saved(killed)
        process = start(dataset, killed)
        until = time.monotonic() + 100
        while last_saved(killed) == before and process.is_alive() and time.monotonic() < until:
            time.sleep(0.002)
        time.sleep(pause.uniform(0, a_sixth_s))
        process.kill()
        process.join(timeout=60)
    process = start(dataset, killed)
    process.join(timeout=200)
    assert process.exitcode == 0
    assert hashes(killed) == hashes(whole)
    made = {f"{stage}-{kind}.safetensors" for stage in ("low", "high") for kind in ("best", "swa", "ema", "soup")}
    assert (
        made | {"low.safetensors", "high.safetensors", "best.safetensors", "last.safetensors"} <= hashes(whole).keys()
    )
    assert (killed / "fold-0" / "log.txt").read_text().count(" resumes after ") >= 2, "no kill fell into the training"
