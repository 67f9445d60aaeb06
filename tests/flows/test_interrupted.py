"""Ctrl-C, a kill or a full disk in the middle of a verb: nothing computed is lost, and the next run goes on."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from forked import run_command
from places import ROOT, SMOKE, sealed
from processes import forkserver

from pleura.config.parse import load_recipe
from pleura.data.dataset import Dataset
from pleura.data.prepare import PrepareSettings, prepare
from pleura.demo import MARKER
from pleura.errors import InputError, NonFiniteLossError, OutputError
from pleura.files import hash_files
from pleura.models.checkpoint import load_checkpoint
from pleura.training.train import train


def stop(words, seen, with_signal, patience_s=60.0):
    """Start a command, wait until `seen()`, send a signal; returns the exit code and standard error."""
    command = [sys.executable, "-m", "pleura", *map(str, words)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, preexec_fn=heed_interrupts, **pipes) as process:
        wait(seen, lambda: process.poll() is None, patience_s)
        process.send_signal(with_signal)
        _, errors = process.communicate(timeout=60)
    return process.returncode, errors


def wait(seen, is_alive, patience_s=60.0):
    until = time.monotonic() + patience_s
    while not seen() and is_alive() and time.monotonic() < until:
        time.sleep(0.01)


@pytest.fixture
def interrupt(tmp_path):
    """Like `stop`, in a process that is forked: for commands that take seconds to import what they need."""
    context, errors = forkserver(), tmp_path / "errors.txt"

    def begin(words, seen, with_signal=signal.SIGINT):
        arguments = ([*map(str, words)], errors, tmp_path / "resampling")
        process = context.Process(target=run_command, args=arguments)
        process.start()
        wait(seen, process.is_alive)
        os.kill(process.pid, with_signal)
        process.join(timeout=60)
        return process.exitcode, errors.read_text()

    return begin


def heed_interrupts():
    """What a shell starts in the background ignores Ctrl-C, and so would all that tests start there."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def lines(path):
    return path.read_text().count("\n") if path.exists() else 0


@pytest.mark.parametrize("with_signal", [signal.SIGINT, signal.SIGKILL])
def test_prepare_goes_on_where_it_was_stopped(phantoms, dataset, tmp_path, with_signal):
    out = tmp_path / "data"
    words = ("prepare", "--images", phantoms / "dicom", "--masks", phantoms / "masks.csv", "--out", out)
    words += ("--size", 64, "--folds", 3, "--workers", 1)
    code, errors = stop(words, lambda: lines(out / ".partial" / "journal.jsonl") >= 3, with_signal)
    if with_signal == signal.SIGINT:
        assert code == 130, errors
        assert "run the same command again" in errors
    assert not (out / "card.json").exists()
    prepare(PrepareSettings(phantoms / "dicom", (phantoms / "masks.csv",), out, size_px=64, folds=3, workers=1))
    assert hash_files(out / "images.npy", out / "cases.csv") == Dataset(dataset).data_hash
    assert not (out / ".partial").exists()


def test_prepare_says_what_to_remove_when_an_unfinished_run_had_other_settings(phantoms, tmp_path):
    out = tmp_path / "data"
    words = ("prepare", "--images", phantoms / "dicom", "--masks", phantoms / "masks.csv", "--out", out, "--workers", 1)
    stop((*words, "--size", 64), lambda: lines(out / ".partial" / "journal.jsonl") >= 1, signal.SIGKILL)
    with pytest.raises(OutputError, match="remove this folder"):
        prepare(PrepareSettings(phantoms / "dicom", (phantoms / "masks.csv",), out, size_px=96, workers=1))


def test_a_finished_dataset_is_left_alone(phantoms, dataset):
    before = (dataset / "card.json").stat().st_mtime_ns
    prepare(PrepareSettings(phantoms / "dicom", (phantoms / "masks.csv",), dataset, size_px=64, folds=3))
    assert (dataset / "card.json").stat().st_mtime_ns == before
    with pytest.raises(OutputError, match="other inputs"):
        prepare(PrepareSettings(phantoms / "dicom", (phantoms / "masks.csv",), dataset, size_px=32, folds=3))


def test_a_run_that_was_interrupted_and_resumed_has_the_weights_of_one_that_was_not(interrupt, dataset, tmp_path):
    overrides = ["training.epochs=3", "samples=0"]
    whole = train(load_recipe(SMOKE, overrides), Dataset(dataset), tmp_path / "whole")
    words = ("train", SMOKE, *overrides, "--data", dataset, "--out", tmp_path / "stopped")
    code, errors = interrupt(words, lambda: lines(tmp_path / "stopped" / "fold-0" / "metrics.csv") >= 3)
    assert code == 130, errors
    resumed = train(load_recipe(SMOKE, overrides), Dataset(dataset), tmp_path / "stopped", resume=True)
    ours, theirs = (load_checkpoint(fold / "last.safetensors").weights for fold in (resumed, whole))
    assert all(np.array_equal(ours[key].numpy(), theirs[key].numpy()) for key in theirs)


def test_predict_goes_on_where_it_was_stopped(interrupt, pleura, phantoms, run, tmp_path):
    out = tmp_path / "found"
    words = ("predict", phantoms / "dicom", "--model", run, "--out", out, "--batch-size", 1)
    code, errors = interrupt(words, lambda: lines(out / "journal.jsonl") >= 3)
    assert code == 130, errors
    kept = lines(out / "predictions.csv") - 1
    assert kept >= 1
    again = pleura(*words)
    assert f"{kept} were done by an earlier run" in again.stdout
    assert lines(out / "predictions.csv") - 1 == len(list((phantoms / "dicom").iterdir()))


def contents(out):
    """What a user reads of a folder of predictions, by the path."""
    files = (path for path in out.rglob("*") if path.is_file() and path.name != "journal.jsonl")
    return {path.relative_to(out): path.read_bytes() for path in files}


def test_predict_that_was_killed_ends_in_the_files_of_one_that_was_not(interrupt, pleura, phantoms, run, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    words = ("predict", phantoms / "dicom", "--model", run, "--batch-size", 1, "--write", "mask,rle,probabilities")
    assert pleura(*words, "--out", whole).returncode == 0
    code, _ = interrupt((*words, "--out", killed), lambda: lines(killed / "journal.jsonl") >= 4, signal.SIGKILL)
    assert (code, (killed / "predictions.csv").exists()) == (-signal.SIGKILL, False)
    assert "done by an earlier run" in pleura(*words, "--out", killed).stdout
    assert contents(killed) == contents(whole)


def test_predict_refuses_a_folder_of_another_models_results(phantoms, run, tmp_path):
    from pleura.inference.batch import BatchSettings, predict_batch
    from pleura.inference.predictor import Predictor

    one = next((phantoms / "dicom").iterdir())
    predict_batch(Predictor.load(run), BatchSettings((str(one),), tmp_path, "this model"))
    with pytest.raises(OutputError, match="another model"):
        predict_batch(Predictor.load(run), BatchSettings((str(one),), tmp_path, "that model"))


def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_prepare_names_a_full_disk_before_it_begins(phantoms, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OutputError, match="disk is full"):
        prepare(PrepareSettings(phantoms / "dicom", (phantoms / "masks.csv",), tmp_path / "data", size_px=64))


def test_a_disk_that_fills_up_in_training_leaves_the_last_state_whole(dataset, tmp_path, monkeypatch):
    recipe, epochs = load_recipe(SMOKE, ["training.epochs=2", "samples=0"]), []

    def fsync(_):
        epochs.append(1)
        if len(epochs) > 8:
            full()

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OutputError, match="disk is full"):
        train(recipe, Dataset(dataset), tmp_path)
    monkeypatch.undo()
    fold = train(recipe, Dataset(dataset), tmp_path, resume=True)
    assert lines(fold / "metrics.csv") == 5
    assert not list(fold.glob(".*.part"))


def test_predict_names_a_full_disk(phantoms, run, tmp_path, monkeypatch):
    from pleura.inference.batch import BatchSettings, predict_batch
    from pleura.inference.predictor import Predictor

    predictor = Predictor.load(run)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="disk is full"):
        predict_batch(predictor, BatchSettings((str(phantoms / "dicom"),), tmp_path / "found", "model"))


def test_a_loss_that_is_not_finite_names_the_cases_and_keeps_the_last_state(dataset, tmp_path, monkeypatch):
    import pleura.training.stage as module

    monkeypatch.setattr(module, "total_loss", lambda logits, *_: logits.mean() * float("nan"))
    with pytest.raises(NonFiniteLossError) as caught:
        train(load_recipe(SMOKE), Dataset(dataset), tmp_path)
    assert any(case.image_id in str(caught.value) for case in Dataset(dataset).cases)


def test_a_run_folder_without_checkpoints_is_refused(tmp_path):
    from pleura.errors import CheckpointError
    from pleura.inference.predictor import Predictor

    with pytest.raises(CheckpointError, match="--out of pleura train"):
        Predictor.load(tmp_path)


def test_a_fold_that_the_dataset_does_not_have_is_refused(dataset, tmp_path):
    with pytest.raises(InputError, match="folds are 0, 1, 2"):
        train(load_recipe(SMOKE), Dataset(dataset), tmp_path, fold=9)


def test_resuming_with_another_net_or_other_data_is_refused(run, dataset, tmp_path):
    begun = tmp_path / "run"
    shutil.copytree(run, begun)
    with pytest.raises(OutputError, match="last_width is not what this run began with"):
        train(load_recipe(SMOKE, ["model.last_width=4"]), Dataset(dataset), begun, resume=True)
    other = tmp_path / "data"
    shutil.copytree(dataset, other)
    with (other / "images.npy").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xff")
    with pytest.raises(OutputError, match="not the dataset"):
        train(load_recipe(SMOKE), Dataset(sealed(other)), begun, resume=True)


def test_resuming_with_another_setting_says_so_in_the_log(run, dataset, tmp_path):
    begun = tmp_path / "run"
    shutil.copytree(run, begun)
    train(load_recipe(SMOKE, ["stages.high.epochs=2"]), Dataset(dataset), begun, resume=True)
    assert "stages.1.epochs was 1, is 2" in (begun / "fold-0" / "log.txt").read_text()
    assert lines(begun / "fold-0" / "metrics.csv") == 4


def test_predict_into_a_folder_inside_its_input_does_not_read_its_own_masks(phantoms, run, tmp_path):
    from pleura.inference.batch import BatchSettings, predict_batch
    from pleura.inference.predictor import Predictor

    one = next((phantoms / "dicom").iterdir())
    shutil.copy(one, tmp_path)
    settings = BatchSettings((str(tmp_path),), tmp_path / "out", "model")
    predict_batch(Predictor.load(run), settings)
    again = predict_batch(Predictor.load(run), settings)
    assert (again.predicted, again.earlier, again.problems) == (0, 1, [])


def test_evaluate_and_demo_can_be_interrupted_and_run_again(interrupt, dataset, run, tmp_path):
    words = ("evaluate", run, "--data", dataset, "--out", tmp_path / "report", "--resamples", 100_000)
    # Not before: safetensors, while it loads the model, takes a Ctrl-C for a damaged file.
    code, errors = interrupt(words, (tmp_path / "resampling").exists)
    assert code == 130, errors
    assert not (tmp_path / "report" / "report.html").exists()
    out = tmp_path / "demo"
    code, errors = interrupt(("demo", "--out", out), (out / "phantoms").exists)
    assert code == 130, errors
    assert (out / MARKER).exists()  # by which the next demo knows that it may empty the folder


def test_a_symlink_loop_does_not_stop_the_search_for_radiographs(phantoms, tmp_path):
    from pleura.data.finding import find_radiographs

    (tmp_path / "a.dcm").symlink_to(tmp_path / "b.dcm")
    (tmp_path / "b.dcm").symlink_to(tmp_path / "a.dcm")
    assert len(find_radiographs([tmp_path, phantoms / "dicom"]).radiographs) > 20
