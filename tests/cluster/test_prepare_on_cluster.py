"""`pleura prepare --ray`: the dataset of one process, also when a worker or a node is killed in between."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from processes import ended
from rays import LIMIT_S, end, needs_ray, wait_until

from pleura import __version__
from pleura.cluster.pool import Refusal
from pleura.cluster.prepare import PrepareWorker
from pleura.data.dataset import Dataset
from pleura.data.ingest import Job
from pleura.data.masks import PngFile, open_masks
from pleura.data.prepare import PrepareSettings, prepare
from pleura.errors import StoreError
from pleura.urls import store
from pleura.urls.url import Url

ARGUMENTS = ("--size", 64, "--folds", 3)


@pytest.fixture
def inputs(phantoms, tmp_path):
    """Radiographs, of which one cannot be read, and their masks."""
    folder = tmp_path / "inputs"
    shutil.copytree(phantoms, folder)
    bad = min((folder / "dicom").glob("*.dcm"))
    bad.write_bytes(bad.read_bytes()[:2000])
    return folder


@needs_ray
@pytest.mark.slow
@pytest.mark.parametrize("is_node", [False, True], ids=["worker", "node"])
def test_a_cluster_prepares_the_dataset_of_one_process_though_one_is_killed(cluster, inputs, tmp_path, is_node):
    alone, out = tmp_path / "alone", tmp_path / "out"
    masks = (inputs / "masks.csv",)
    whole = prepare(PrepareSettings(inputs / "dicom", masks, alone, size_px=64, folds=3, workers=1))
    words = ("pleura", "prepare", "--images", inputs / "dicom", "--masks", *masks, "--out", out, *ARGUMENTS)
    count = 1 + is_node  # one for each node: the second has one of two
    running = cluster.command(*words, "--workers", count, "--ray", cluster.address)
    assert wait_until(lambda: len(cluster.workers("PrepareWorker")) == count or running.poll() is not None, LIMIT_S)
    killed = cluster.workers("PrepareWorker")
    if is_node:
        end(cluster.nodes[1])
    else:
        for worker in killed:
            worker.kill()
    code, printed, err = ended(running)
    assert (code, len(killed)) == (1, count), err
    assert f"{out}: {len(whole.dataset.cases)} cases of" in printed
    for name in ("images.npy", "cases.csv", "problems.csv"):
        assert (out / name).read_bytes() == (alone / name).read_bytes()
    cards = [json.loads((folder / "card.json").read_text()) for folder in (alone, out)]
    for card in cards:
        del card["made"], card["settings"]["out"], card["settings"]["workers"]
    assert cards[0] == cards[1]
    Dataset(out)


def test_a_worker_says_which_file_of_image_or_mask_it_does_not_see(inputs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mask = next(iter(open_masks(inputs / "masks.csv").masks.values()))
    here, gone = max((inputs / "dicom").glob("*.dcm")), tmp_path / "gone"
    jobs = [Job(row, *each, "masks", f"{row}", "name") for row, each in enumerate(((here, mask), (gone, mask)))]
    worker = PrepareWorker(inputs / "dicom", 64, "siim", os.getcwd())
    assert worker.facts() == __version__
    seen, unseen, maskless = worker.do([*jobs, Job(2, here, PngFile(tmp_path / "mask.png"), "masks", "2", "name")])
    assert (seen.unseen, seen.square.shape) == (None, (64, 64))
    assert (unseen.unseen, unseen.square) == (gone, None)
    assert "gone" in unseen.entry["problem"]
    assert maskless.unseen == tmp_path / "mask.png"


def test_a_worker_without_the_driver_of_a_store_refuses_once_and_not_for_each_object():
    answer = PrepareWorker(Url("gs", ("bucket", "in")), 64, "siim", ".").facts()
    assert isinstance(answer, Refusal)
    assert "pip install gcsfs" in answer.message


def test_a_store_that_is_away_ends_the_command_and_is_no_problem_of_an_object(monkeypatch):
    def away(*_: object) -> None:
        raise StoreError("its server cannot be reached")

    monkeypatch.setattr(store, "_got", away)
    job = Job(0, Url("s3", ("bucket", "a.dcm"), size=9), PngFile(Path("mask.png")), "masks", "a", "a.dcm")
    answer = PrepareWorker(Path("in"), 64, "siim", ".").do([job])
    assert answer == Refusal("StoreError", "its server cannot be reached")
