"""`pleura train --ray`: what two processes of torchrun train, also when a worker and then a node die in between."""

from __future__ import annotations

import logging
from contextlib import nullcontext

import numpy as np
import pytest
from places import SMOKE
from processes import ended, launch
from rays import LIMIT_S, end, needs_ray, wait_until
from trainings import rows_of, smoke, weights_of

from pleura.cluster.connection import ClusterOptions
from pleura.cluster.pool import Refusal
from pleura.cluster.train import TrainJob, TrainWorker, train_on_cluster
from pleura.data.dataset import Dataset
from pleura.errors import ConfigError, InputError

# ConvNeXt has LayerNorm, whose statistics are each image's own: BatchNorm on CPUs sees a process's part of the batch.
NET = ("model.encoder=test_convnext", "model.decoder_widths=[16,16,8]", "model.normalisation=none", "precision=float32")
SHORT = (*NET, "samples=0", "training.epochs=2", "training.batch_size=4", "training.cases_per_epoch=8")


@pytest.fixture(scope="module")
def by_processes(dataset, tmp_path_factory):
    """The run of two processes on this machine, started as torchrun starts them."""
    out = tmp_path_factory.mktemp("torchrun")
    launch(2, SHORT, dataset, out)
    return out / "fold-0"


@needs_ray
@pytest.mark.slow
def test_workers_train_what_two_processes_train_though_a_worker_and_a_node_are_killed(
    cluster, dataset, by_processes, tmp_path
):
    out = tmp_path / "out"
    words = (
        "pleura",
        "train",
        SMOKE,
        *SHORT,
        "--data",
        dataset,
        "--out",
        out,
        "--ray",
        cluster.address,
        "--workers",
        2,
    )
    running = cluster.command(*words)
    metrics = out / "fold-0" / "metrics.csv"
    assert wait_until(lambda: metrics.exists() or running.poll() is not None, LIMIT_S)
    killed = cluster.workers("TrainWorker")[:1]
    for worker in killed:
        worker.kill()
    seen = len(rows_of(metrics))
    assert wait_until(lambda: len(rows_of(metrics)) > seen or running.poll() is not None, LIMIT_S)
    assert running.poll() is None, "the command was done before a node was killed"
    end(cluster.nodes[1])
    cluster.mend()
    code, printed, err = ended(running)
    assert (code, len(killed)) == (0, 1), err
    assert "a worker died (the process was killed or crashed): new ones go on from the last state" in printed
    assert printed.count("new ones go on from the last state") == 2
    assert "stage high" in printed, "what the first worker logs is not shown"
    ours, theirs = rows_of(metrics), rows_of(by_processes / "metrics.csv")
    assert [(row["stage"], row["epoch"]) for row in ours] == [("low", "1"), ("low", "2"), ("high", "1"), ("high", "2")]
    for name in ("loss", "siim_dice", "auroc"):
        mine, expected = ([float(row[name]) for row in rows] for rows in (ours, theirs))
        assert mine == pytest.approx(expected, abs=1e-5)
    expected = weights_of(by_processes)
    assert all(
        np.allclose(weights.numpy(), expected[key].numpy(), atol=1e-5)
        for key, weights in weights_of(out / "fold-0").items()
    )
    again = ended(cluster.command(*words, "--resume"))
    assert again[0] == 0, again[2]
    assert "all stages are finished already" in again[1]
    assert rows_of(metrics) == ours


def test_a_part_of_a_gpu_is_no_place_to_train(dataset, tmp_path):
    with pytest.raises(InputError, match=r"--ray-gpus 0\.5: each worker trains on one whole GPU"):
        train_on_cluster(smoke(), Dataset(dataset), tmp_path, ClusterOptions("local", gpus=0.5))


def test_a_batch_that_workers_cannot_share_is_refused_before_they_start(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr("pleura.cluster.train.connected", lambda options: nullcontext(3))
    with pytest.raises(ConfigError, match=r"stages\.low\.batch_size: 4 images cannot be shared by 3 processes"):
        train_on_cluster(smoke(), Dataset(dataset), tmp_path, ClusterOptions("local", 3))


def test_an_ensemble_or_folds_of_one_machine_go_with_no_cluster(pleura, dataset, tmp_path):
    done = pleura(
        "train", SMOKE, "--data", dataset, "--out", tmp_path, "--fold", "all", "--parallel", 2, "--ray", "local"
    )
    assert done.returncode == 2
    assert "goes neither with an ensemble nor with --parallel" in " ".join(done.stderr.replace("│", " ").split())


def test_a_worker_logs_for_the_command_and_refuses_what_it_does_not_see(dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a worker goes to the folder of the command
    job = TrainJob(smoke(), str(tmp_path / "none"), str(tmp_path / "out"), 0, False, "cpu", logging.INFO)
    worker = TrainWorker(job, str(tmp_path))
    answer = worker.facts()
    assert isinstance(answer, Refusal)
    assert str(tmp_path / "none") in str(answer.error())
    worker.logged.put((logging.WARNING, "one"))
    worker.logged.put((logging.INFO, "two"))
    assert worker.lines(False) == [(logging.WARNING, "one"), (logging.INFO, "two")]
    assert worker.lines(True) == []
