"""`pleura evaluate --ray`: the report of one process, byte for byte, also when workers die."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from processes import ended
from rays import LIMIT_S, end, needs_ray, wait_until

from pleura.cluster.asked import Asked
from pleura.cluster.evaluate import EvaluateWorker, Facts, PassesOnCluster
from pleura.cluster.pool import Lost, Refusal
from pleura.data.dataset import Dataset
from pleura.errors import InputError
from pleura.evaluation.evaluate import evaluate
from pleura.evaluation.passes import ModelFacts
from pleura.evaluation.scoring import BATCH_SIZE, PixelMeasures
from pleura.inference.predictor import Predictor


@pytest.fixture(scope="module")
def alone(run, dataset, tmp_path_factory):
    """The report of one process."""
    out = tmp_path_factory.mktemp("alone")
    evaluate(run, dataset, "all", resamples=50, out=out)
    return out


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@needs_ray
@pytest.mark.slow
def test_a_cluster_writes_the_report_of_one_process(cluster, run, dataset, alone, tmp_path):
    words = ("--split", "all", "--resamples", 50, "--out", tmp_path, "--ray", cluster.address, "--workers", 2)
    code, out, err = ended(cluster.command("pleura", "evaluate", run, "--data", dataset, *words))
    assert (code, err) == (0, "")
    assert str(tmp_path / "report.html") in out
    assert contents(tmp_path) == contents(alone)


@needs_ray
@pytest.mark.slow
def test_workers_that_are_killed_lose_and_double_nothing(cluster, run, dataset, alone, tmp_path):
    script = str(Path(__file__).with_name("dying_evaluation.py"))
    code, _, err = ended(
        cluster.command(cluster.address, run, dataset, tmp_path / "out", tmp_path, "Dying", script=script)
    )
    assert (code, len(list(tmp_path.glob("died-*")))) == (0, 2), err
    assert contents(tmp_path / "out") == contents(alone)


@needs_ray
@pytest.mark.slow
def test_a_node_that_is_killed_loses_and_doubles_nothing(cluster, run, dataset, alone, tmp_path):
    script, out = str(Path(__file__).with_name("dying_evaluation.py")), tmp_path / "out"
    running = cluster.command(cluster.address, run, dataset, out, tmp_path, "Waiting", script=script)
    assert wait_until(lambda: len(list(tmp_path.glob("waits-*"))) == 2 or running.poll() is not None, LIMIT_S)
    assert running.poll() is None, running.communicate()
    end(cluster.nodes[1])
    (tmp_path / "go").touch()
    code, _, err = ended(running)
    assert code == 0, err
    assert contents(out) == contents(alone)


class PoolThatGivesUp:
    """In the place of a pool: gives up its second task, and does no other."""

    def __init__(self, predictor, dataset):
        self.found = Facts(ModelFacts.of(predictor), "1", dataset.data_hash)

    def facts(self):
        return self.found

    def answers(self, tasks):
        yield list(islice(tasks, 2))[1], Lost("left out: 3 workers died")


def test_cases_that_kill_every_worker_are_named_and_nothing_is_scored_without_them(run, dataset):
    data, predictor = Dataset(dataset), Predictor.load(run)
    passes = PassesOnCluster(PoolThatGivesUp(predictor, data))
    names = ", ".join(case.image_id for case in data.cases[BATCH_SIZE : 2 * BATCH_SIZE])
    pixels = PixelMeasures(predictor.triplet, data.size_px, [None] * len(data))
    with pytest.raises(InputError, match=f"{names}: left out: 3 workers died; without them the score is another"):
        passes.measure(data, np.arange(len(data)), pixels)


def test_a_worker_refuses_what_it_does_not_see(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a worker goes to the folder of the command, and names a device
    monkeypatch.setattr("pleura.inference.device._chosen", None)
    worker = EvaluateWorker(Asked(str(run), None, "cpu", None, None), str(tmp_path / "data"), str(tmp_path))
    answer = worker.facts()
    assert isinstance(answer, Refusal)
    assert f"{tmp_path / 'data'}" in str(answer.error())
