"""`pleura prepare --ray`: the dataset of one process, also when a worker or a node is killed in between."""

from __future__ import annotations

import json
import os
import shutil

import pytest
from processes import ended
from rays import LIMIT_S, end, needs_ray, wait_until

from pleura.cluster.prepare import PrepareWorker
from pleura.data.dataset import Dataset
from pleura.data.prepare import PrepareSettings, prepare

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


def test_a_worker_says_whether_it_sees_a_file(inputs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    from pleura.data.ingest import Job
    from pleura.data.masks import open_masks

    mask = next(iter(open_masks(inputs / "masks.csv").masks.values()))
    here = max((inputs / "dicom").glob("*.dcm"))
    jobs = [
        Job(row, str(path), mask, "masks", f"{row}", path.name) for row, path in enumerate((here, tmp_path / "gone"))
    ]
    worker = PrepareWorker(64, "siim", os.getcwd())
    seen, gone = worker.do(jobs)
    assert (seen.is_seen, seen.square.shape) == (True, (64, 64))
    assert (gone.is_seen, gone.square) == (False, None)
    assert "gone" in gone.entry["problem"]
