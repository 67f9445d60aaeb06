"""What many tests share: phantoms on disk, a dataset made of them, and a run of the smoke recipe."""

from __future__ import annotations

import logging
import math
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings
from places import SMOKE

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny nets: threads cost more than they give
os.environ["PLEURA_PRECISION"] = "float32"  # of commands, in processes of their own too; see below
settings.register_profile("pleura", deadline=None)  # a busy machine is no failure
settings.load_profile("pleura")


@pytest.fixture(scope="session", autouse=True)
def the_users_cache_is_left_alone(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What is known of datasets goes into a folder of the tests."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


_LOG = logging.getLogger("pleura")
_AT_FIRST = list(_LOG.handlers), _LOG.propagate, _LOG.level


@pytest.fixture(autouse=True)
def logging_as_at_first() -> Iterator[None]:
    """The command line sends pleura's log to its own standard output, which ends with the test, and may quiet it."""
    _log_as_at_first()  # a fixture of a module may have run a command
    yield
    _log_as_at_first()


def _log_as_at_first() -> None:
    _LOG.handlers, _LOG.propagate = list(_AT_FIRST[0]), _AT_FIRST[1]
    _LOG.setLevel(_AT_FIRST[2])


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 24 patients: dicom/, masks.csv, patients.csv. Not to be written to."""
    from pleura.data.phantoms.dicom_files import write_phantom_dataset

    folder = tmp_path_factory.mktemp("phantoms")
    write_phantom_dataset(folder, n_patients=24, seed=3, size_px=96)
    return folder


@pytest.fixture(scope="session")
def dataset(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The phantoms as a dataset of 64 px with 3 folds. Not to be written to."""
    from pleura.data.prepare import PrepareSettings, prepare

    out = tmp_path_factory.mktemp("data") / "dataset"
    masks = (phantoms / "masks.csv",)
    prepare(PrepareSettings(phantoms / "dicom", masks, out, size_px=64, folds=3, workers=1))
    return out


@pytest.fixture(scope="session")
def run(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the smoke recipe. Not to be written to."""
    from pleura.config.parse import load_recipe
    from pleura.data.dataset import Dataset
    from pleura.training.train import train

    out = tmp_path_factory.mktemp("run")
    train(load_recipe(SMOKE), Dataset(dataset), out)
    return out


@pytest.fixture(autouse=True)
def curves_are_not_drawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A figure takes longer than a training here. `run`, the notebook and the tests of the monitor have real ones."""
    monitor = sys.modules.get("pleura.training.monitor")
    if monitor is not None and request.path.name != "test_monitor.py":
        monkeypatch.setattr(monitor.Monitor, "draw_curves", lambda *_: None)


@pytest.fixture(autouse=True)
def every_cpu_computes_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` would take bfloat16 on some machines: tests of exact numbers then had other ones there."""
    if "torch" in sys.modules:  # a test that needs no torch does not wait for it
        monkeypatch.setattr("pleura.inference.precision.bfloat16_gain", lambda training: None)
        monkeypatch.setattr("pleura.inference.precision.bfloat16_units", tuple)
        monkeypatch.setattr("pleura.inference.precision._asked", None)  # by a command in this process, before


@pytest.fixture
def bfloat16_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU on which `auto` is bfloat16 in training, and in prediction where a checkpoint shows what that changes."""
    monkeypatch.setattr("pleura.inference.precision.bfloat16_gain", lambda training: 2.0)
    monkeypatch.setattr("pleura.inference.precision.bfloat16_units", lambda: ("AMX",))


@pytest.fixture(autouse=True)
def no_engine_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a command in this process, before."""
    if "pleura.inference.engines.choice" in sys.modules:
        monkeypatch.setattr("pleura.inference.engines.choice._asked", "auto")


@pytest.fixture(autouse=True)
def progress_lines_are_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests compare standard error, where a slow machine would write how far it is."""
    monkeypatch.setattr("pleura.progress.FIRST_LINE_S", math.inf)


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def pleura() -> Callable[..., Done]:
    """Run the command line, in this process: starting one for each command would take most of the tests' time."""
    from typer.testing import CliRunner

    from pleura.cli import app

    def call(*words: object) -> Done:
        result = CliRunner().invoke(app, [*map(str, words)])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Done(result.exit_code, result.stdout, result.stderr)

    return call
