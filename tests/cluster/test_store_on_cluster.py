"""`pleura predict s3://… --out s3://… --ray ADDRESS`: the bytes of one process, a worker and then a node killed.

`PLEURA_COPIES=3205` takes so many copies, each with a SOP Instance UID of its own, and `PLEURA_RADIOGRAPHS=FOLDER`
makes them of the DICOM files of a folder, for the model that comes with pleura; else few, of phantoms, and a tiny net.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from threading import Lock

import pydicom
import pytest
from exports import tiny_export
from processes import ended
from pydicom.uid import generate_uid
from rays import end, needs_ray, nodes
from stores import BUCKET, drivers_are_forgotten, needs_store, store
from typer.testing import CliRunner

from pleura.cli import app
from pleura.data.phantoms.dicom_files import write_phantom_dataset

N_COPIES = int(os.environ.get("PLEURA_COPIES", "24"))
REAL = os.environ.get("PLEURA_RADIOGRAPHS", "")
LIMIT_S = 240 + 2.0 * N_COPIES
BATCH = 2 if N_COPIES < 100 else 8


def copies(folder: Path) -> Path:
    """So many radiographs, and one file that is none."""
    originals = Path(REAL)
    if not REAL:
        write_phantom_dataset(folder / "made", n_patients=6, seed=3, size_px=96)
        originals = folder / "made" / "dicom"
    read = [pydicom.dcmread(path) for path in sorted(originals.glob("*.dcm"))]
    (folder / "in").mkdir()
    for number in range(N_COPIES):
        one = read[number % len(read)]
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[f"copy {number}"])
        one.save_as(folder / "in" / f"{number:05d}.dcm")
    (folder / "in" / "bad.dcm").write_bytes(b"no DICOM" * 30)
    return folder / "in"


def images_of(journal: bytes) -> list[str]:
    """The radiographs of a journal, one for each of its lines."""
    return [json.loads(line)["image_id"] for line in journal.splitlines()[1:]]


@needs_ray
@needs_store
@pytest.mark.slow
def test_results_at_a_store_have_the_bytes_of_one_process_when_a_worker_and_a_node_die(tmp_path):
    radiographs, alone = copies(tmp_path), tmp_path / "alone"
    model = () if REAL else ("--model", str(tiny_export(tmp_path / "tiny.onnx")))
    words = ("predict", "--quiet", "--batch-size", str(BATCH), *model)
    done = CliRunner().invoke(app, [*words, str(radiographs), "--out", str(alone)])
    assert done.exit_code == 1, done.output

    killed: Counter[str] = Counter()
    written: set[str] = set()
    one_at_a_time = Lock()  # the server answers in threads, and several workers write at the same time
    with store() as s3, pytest.MonkeyPatch.context() as patch:
        # Nodes give their environment to their workers, which ask the store themselves.
        for name, value in s3.environment.items():
            patch.setenv(name, value)
        drivers_are_forgotten()
        url = s3.fill(radiographs, "two-nodes/in")
        with nodes(2) as cluster:

            def when(method: str, path: str) -> None:
                with one_at_a_time:
                    if method != "PUT" or "/two-nodes/out/masks/" not in path:
                        return
                    written.add(path)
                    if len(written) > N_COPIES // 4 and not killed["worker"]:
                        killed["worker"] += 1
                        cluster.workers("PredictWorker")[0].kill()
                    if len(written) > N_COPIES // 2 and not killed["node"]:
                        killed["node"] += 1
                        end(cluster.nodes[1])

            s3.when = when
            out = f"s3://{BUCKET}/two-nodes/out"
            cluster.environment["XDG_CACHE_HOME"] = str(tmp_path / "home")
            running = cluster.command("pleura", *words, url, "--out", out, "--ray", cluster.address)
            code, _, err = ended(running, LIMIT_S)
            s3.when = None
        there = s3.contents("two-nodes/out")

    assert (code, err.count("\n"), dict(killed)) == (1, 1, {"worker": 1, "node": 1}), err
    assert "bad.dcm: not a DICOM file" in err
    here = {path.relative_to(alone).as_posix(): path.read_bytes() for path in alone.rglob("*") if path.is_file()}
    masks = {name for name in here if name.startswith("masks/")}
    assert len(masks) == N_COPIES
    assert Counter(images_of(there["journal.jsonl"])) == Counter(images_of(here["journal.jsonl"]))
    assert len(set(images_of(here["journal.jsonl"]))) == N_COPIES
    for table in ("predictions.csv", "problems.csv"):
        there[table] = there[table].replace(url.encode(), str(radiographs).encode())
    compared = here.keys() - {"journal.jsonl"}
    assert there.keys() - {"journal.jsonl", "inputs.jsonl"} == compared
    assert {name for name in compared if there[name] != here[name]} == set()
