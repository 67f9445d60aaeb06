"""`pleura predict --ray`: the bytes of one process, whatever dies; two nodes of real processes on this machine."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from processes import ended
from rays import LIMIT_S, end, needs_ray, wait_until

from pleura.cluster.pool import Refusal
from pleura.cluster.predict import Asked, PredictWorker
from pleura.data.phantoms.dicom_files import write_phantom_dataset
from pleura.inference.batch import BatchSettings


@pytest.fixture(scope="module")
def radiographs(tmp_path_factory):
    """A folder of 17 radiographs, one of them unreadable."""
    folder = tmp_path_factory.mktemp("radiographs")
    write_phantom_dataset(folder, n_patients=12, seed=3, size_px=96)
    (folder / "dicom" / "bad.dcm").write_bytes(b"no DICOM" * 30)
    return folder / "dicom"


@pytest.fixture(scope="module")
def alone(radiographs, tmp_path_factory):
    """What one process writes of them."""
    out = tmp_path_factory.mktemp("alone") / "out"
    words = [sys.executable, "-m", "pleura", "predict", str(radiographs), "--out", str(out), "--batch-size", "2"]
    assert subprocess.run(words, capture_output=True, timeout=LIMIT_S).returncode == 1
    return out


def predict(cluster, radiographs, out, *words):
    command = (
        "pleura",
        "predict",
        "--quiet",
        radiographs,
        "--out",
        out,
        "--batch-size",
        2,
        "--ray",
        cluster.address,
        *words,
    )
    return cluster.command(*command)


def contents(folder):
    """Every file by its path; the journal's lines sorted, as they come in any order."""
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return files | {"journal.jsonl": b"\n".join(sorted(files["journal.jsonl"].split(b"\n")))}


def lines(out):
    journal = out / "journal.jsonl"
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


@needs_ray
@pytest.mark.slow
def test_a_cluster_writes_the_bytes_of_one_process_and_does_nothing_twice(cluster, radiographs, alone, tmp_path):
    code, out, err = ended(predict(cluster, radiographs, tmp_path / "out"))
    assert (code, err.count("\n")) == (1, 1), err
    assert "bad.dcm: not a DICOM file" in err
    assert "16 radiographs; " in out
    assert contents(tmp_path / "out") == contents(alone)
    again = ended(predict(cluster, radiographs, tmp_path / "out"))
    assert "0 radiographs, 16 were done by an earlier run; " in again[1]
    assert contents(tmp_path / "out") == contents(alone)


@needs_ray
@pytest.mark.slow
def test_a_radiograph_that_kills_its_workers_is_left_out_and_stops_no_other(cluster, radiographs, alone, tmp_path):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    first, *others = sorted(radiographs.glob("1.*.dcm"))[:6]
    shutil.copy(first, folder / "1poison.dcm")
    for other in others:
        shutil.copy(other, folder)
    code, printed, err = ended(
        cluster.command(cluster.address, folder, out, script=str(Path(__file__).with_name("poisoned.py")))
    )
    assert code == 0, err
    assert "1poison.dcm: left out: 3 workers died while they did nothing else (the process was killed" in printed
    assert lines(out) == 1 + len(others)
    masks = {path.name: path.read_bytes() for path in (out / "masks").iterdir()}
    whole = {path.name: path.read_bytes() for path in (alone / "masks").iterdir()}
    assert len(masks) == len(others) == 5
    assert all(whole[name] == content for name, content in masks.items())


@needs_ray
@pytest.mark.slow
def test_nothing_is_lost_or_doubled_when_a_worker_and_then_a_node_are_killed(cluster, radiographs, alone, tmp_path):
    out = tmp_path / "out"
    running = predict(cluster, radiographs, out)
    assert wait_until(lambda: lines(out) > 2 or running.poll() is not None, LIMIT_S)
    killed = cluster.workers("PredictWorker")[:1]
    for worker in killed:
        worker.kill()
    assert len(killed) == 1, "the command was done before anything was killed"
    assert wait_until(lambda: lines(out) > 7 or running.poll() is not None, LIMIT_S)
    assert running.poll() is None, "the command was done before a node was killed"
    end(cluster.nodes[1])
    code, printed, err = ended(running)
    assert (code, err.count("\n")) == (1, 1), err
    assert "16 radiographs; " in printed
    assert contents(out) == contents(alone)


def test_a_worker_that_does_not_see_the_folder_of_results_refuses(tmp_path):
    settings = BatchSettings((str(tmp_path),), tmp_path / "out", "default")
    worker = PredictWorker(Asked("default", None, "cpu", None, "onnxruntime"), settings, str(tmp_path), "sign")
    worker.facts()
    answer = worker.do([])
    assert isinstance(answer, Refusal)
    assert str(answer.error()) == (
        f"{tmp_path / 'out'}: a node of the cluster does not see it; take a folder that all nodes share, or --ray local"
    )


def test_without_the_option_nothing_imports_ray(radiographs, tmp_path):
    code = (
        "import sys; from pleura.cli import app; "
        f"app(['predict', {str(min(radiographs.glob('1.*.dcm')))!r}, '--out', {str(tmp_path / 'out')!r}], "
        "standalone_mode=False); sys.exit('ray' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=LIMIT_S).returncode == 0
