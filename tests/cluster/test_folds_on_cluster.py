"""`pleura train --fold all --ray`: the folds that are trained in turn, whatever fails or dies in between."""

from __future__ import annotations

import json

import pytest
from places import SMOKE
from processes import ended
from rays import LIMIT_S, needs_ray, wait_until
from trainings import QUIET, same, weights_of

from pleura.cluster.folds import FoldsJob, FoldWorker
from pleura.config.parse import load_recipe
from pleura.data.dataset import Dataset
from pleura.errors import PleuraError
from pleura.training.folds import train_folds

SETTINGS = (*QUIET, "precision=float32")


@pytest.fixture(scope="module")
def in_turn(dataset, tmp_path_factory):
    out = tmp_path_factory.mktemp("folds")
    train_folds(load_recipe(SMOKE, SETTINGS), Dataset(dataset), out)
    return out


@needs_ray
@pytest.mark.slow
def test_folds_are_those_trained_in_turn_though_a_worker_dies_and_one_that_fails_stops_no_other(
    cluster, dataset, in_turn, tmp_path
):
    out = tmp_path / "out"
    out.mkdir()
    (out / "fold-1").write_text("in the way")
    words = ("pleura", "train", SMOKE, *SETTINGS, "--data", dataset, "--out", out, "--fold", "all")
    words += ("--ray", cluster.address, "--workers", 2)
    running = cluster.command(*words)
    assert wait_until(lambda: (out / "fold-2" / "metrics.csv").exists() or running.poll() is not None, LIMIT_S)
    killed = cluster.workers("FoldWorker")
    for worker in killed:
        worker.kill()
    code, printed, err = ended(running)
    assert (code, err.count("\n"), bool(killed)) == (1, 1, True), err
    assert "fold 1 failed: " in err
    assert "the others are done: repair it and run the same command with --resume" in err
    assert "fold 0 is done" in printed
    for fold in ("fold-0", "fold-2"):
        assert same(weights_of(out / fold), weights_of(in_turn / fold))
    (out / "fold-1").unlink()
    code, _, err = ended(cluster.command(*words, "--resume"))
    assert (code, err) == (0, "")
    assert json.loads((out / "folds.json").read_text()) == json.loads((in_turn / "folds.json").read_text())


def test_a_fold_that_fails_is_named_with_its_reason_and_the_next_one_is_trained(dataset, tmp_path, monkeypatch):
    def fails_on_the_first(recipe, data, out, fold, **_):
        if fold == 0:
            raise PleuraError("no weights")
        if fold == 1:
            raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr("pleura.cluster.folds.train", fails_on_the_first)
    job = FoldsJob(load_recipe(SMOKE, SETTINGS), str(dataset), str(tmp_path), False, "cpu")
    worker = FoldWorker(job, str(tmp_path))
    worker.dataset = Dataset(dataset)
    assert worker.do([0, 1, 2]) == {0: "no weights", 1: "CUDA out of memory"}


@pytest.mark.parametrize(("fault", "ends"), [(RuntimeError("CUDA error"), True), (PleuraError("no weights"), False)])
def test_a_process_that_a_fault_may_have_spoiled_trains_no_other_fold(dataset, tmp_path, monkeypatch, fault, ends):
    trained = []

    def first_fails(recipe, data, out, fold, **_):
        trained.append(fold)
        if fold == 0:
            raise fault

    def ended_here():
        raise SystemExit

    monkeypatch.setattr("pleura.cluster.folds.train", first_fails)
    monkeypatch.setattr("pleura.cluster.folds.end_process", ended_here)
    worker = FoldWorker(FoldsJob(load_recipe(SMOKE, SETTINGS), str(dataset), str(tmp_path), False, "cpu"), ".")
    worker.dataset = Dataset(dataset)
    assert list(worker.do([0])) == [0]
    if ends:
        with pytest.raises(SystemExit):
            worker.do([1])
    else:
        assert worker.do([1]) == {}
    assert trained == ([0] if ends else [0, 1])
