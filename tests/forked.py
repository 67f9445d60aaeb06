"""What tests run in processes of their own; those are forked from one that has imported this already."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from places import SMOKE

from pleura.cli import app
from pleura.config.parse import load_recipe
from pleura.data.dataset import Dataset
from pleura.training.monitor import Monitor
from pleura.training.train import train


def train_smoke(
    overrides: Sequence[str],
    dataset: Path,
    out: Path,
    resume: bool = False,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Train the smoke recipe, without curves: a figure takes longer than a training here."""
    os.environ |= environment or {}
    torch.set_num_threads(1)
    Monitor.draw_curves = lambda *_: None  # type: ignore[assignment]
    train(load_recipe(SMOKE, overrides), Dataset(dataset), out, resume=resume)


def run_command(words: Sequence[str], errors: Path, resampling: Path) -> None:
    """Run the command line with its standard error in `errors`, and Ctrl-C as in a terminal.

    resampling: is written when `evaluate` begins to resample.
    """
    import pleura.evaluation.evaluate as module

    signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts in the background ignores Ctrl-C
    for descriptor, file in ((1, Path(os.devnull)), (2, errors)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), descriptor)
    Monitor.draw_curves = lambda *_: None  # type: ignore[assignment]
    resample = module.bootstrap

    def noted(*arguments: object) -> object:
        resampling.touch()
        return resample(*arguments)  # type: ignore[arg-type]

    module.bootstrap = noted  # type: ignore[assignment]
    sys.argv = ["pleura", *words]
    app()
