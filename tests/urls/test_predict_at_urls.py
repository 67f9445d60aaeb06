"""`pleura predict` from and into a store of objects: the bytes of a local run, whatever is killed, moved or deleted."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from threading import Lock

import psutil
import pytest
from dicom_files import in_two_folders
from exports import tiny_export
from processes import ended
from stores import BUCKET
from typer.testing import CliRunner

from pleura.cli import app
from pleura.data.phantoms.dicom_files import write_phantom_dataset
from pleura.urls import lease

HASTY = (str(Path(__file__).with_name("hasty.py")),)
SOURCE = ("predictions.csv", "problems.csv", "journal.jsonl", "inputs.jsonl")
"""What names the files of its inputs."""


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny_export(tmp_path_factory.mktemp("model") / "tiny.onnx")


@pytest.fixture(scope="module")
def radiographs(tmp_path_factory) -> Path:
    """Nine radiographs in two folders, a copy, an unreadable file, and one that is no radiograph."""
    folder = tmp_path_factory.mktemp("radiographs")
    write_phantom_dataset(folder / "made", n_patients=6, seed=3, size_px=64)
    in_two_folders(folder / "made" / "dicom", folder / "in")
    (folder / "in" / "bad.dcm").write_bytes(b"no DICOM" * 30)
    (folder / "in" / "notes.txt").write_text("nothing")
    return folder / "in"


@pytest.fixture(scope="module")
def here(radiographs, model, tmp_path_factory) -> dict[str, bytes]:
    """What a run on local folders writes."""
    out = tmp_path_factory.mktemp("here") / "out"
    done = CliRunner().invoke(app, [*map(str, words_of(radiographs, out, model))])
    assert done.exit_code == 1, done.output
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def words_of(source: object, out: object, model: Path) -> tuple[object, ...]:
    return ("predict", "--quiet", source, "--out", out, "--model", model, "--batch-size", 2)


NAMES_ANOTHER = "overlays/zz copy of it.png"
"""Shows in pixels of which file it is a copy."""


def as_local(contents: dict[str, bytes], url: str, folder: Path) -> dict[str, bytes]:
    """Results, with the paths of a folder in the tables; without what differs otherwise."""
    tables = {
        name: content.replace(url.encode(), str(folder).encode()) if name in SOURCE else content
        for name, content in contents.items()
    }
    return {name: one for name, one in tables.items() if name not in ("journal.jsonl", "inputs.jsonl", NAMES_ANOTHER)}


def journal_of(contents: dict[str, bytes]) -> list[str]:
    return sorted(json.loads(line)["image_id"] for line in contents["journal.jsonl"].splitlines()[1:])


@pytest.fixture
def predict(s3, pleura, home, monkeypatch):
    """Run `pleura predict` in this process: exit code, standard output, standard error."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))

    def call(source, out, model, *more):
        done = pleura(*words_of(source, out, model), *more)
        return done.returncode, done.stdout, done.stderr

    return call


def test_results_have_the_bytes_of_a_local_run_and_a_second_run_reads_nothing_again(
    s3, predict, radiographs, model, here
):
    url, out = s3.fill(radiographs, "same/in"), f"s3://{BUCKET}/same/out"
    s3.requests.clear()
    code, said, err = predict(url, out, model)
    assert (code, err.count("\n")) == (1, 1), err
    assert f"cannot read {url}/bad.dcm: not a DICOM file" in err
    assert "1 file is no radiograph (1 .txt)" in said
    there = s3.contents("same/out")
    assert as_local(there, url, radiographs) == as_local(here, url, radiographs)
    assert there.keys() == here.keys() | {"inputs.jsonl"}
    assert journal_of(there) == journal_of(here)
    count = len(journal_of(here))
    counts = s3.counts("/same/in/")
    # The first bytes of each object, and all of those that are to be predicted; of a copy and its original once more.
    assert counts == {"GET": (count + 2) + (count + 1) + 2}
    assert s3.counts("/same/out/masks/")["PUT"] == count
    s3.requests.clear()
    code, said, err = predict(url, out, model)
    assert f"0 radiographs, {count} were done by an earlier run" in said
    # What could not be read, and the two of one UID, whose pixels are compared.
    assert s3.counts("/same/in/") == {"GET": 3}
    assert s3.counts("/same/in/bad.dcm") == {"GET": 1}
    assert s3.contents("same/out") == there


MOMENTS = {
    "while it looks at objects": ("GET", "/in/a/", 2),
    "while it writes masks": ("PUT", "/out/masks/", 3),
    "at a part of the journal": ("PUT", "/out/.parts/journal.jsonl/", 2),
    "when parts become the journal": ("PUT", "/out/journal.jsonl", 2),
    "when a part is removed": ("DELETE", "/out/.parts/journal.jsonl/", 2),
    "while it writes the tables": ("PUT", "/out/masks.csv", 1),
}


@pytest.mark.slow
@pytest.mark.parametrize("moment", list(MOMENTS))
def test_a_run_that_is_killed_goes_on_and_nothing_is_lost_or_doubled(
    s3, home, predict, radiographs, model, here, moment
):
    key = f"killed-{list(MOMENTS).index(moment)}"
    url, out = s3.fill(radiographs, f"{key}/in"), f"s3://{BUCKET}/{key}/out"
    words = words_of(url, out, model)
    method, part, number = MOMENTS[moment]
    s3.kill_at(s3.start(*words, home=home, script=HASTY), method, f"/{key}{part}", number)
    before = s3.contents(f"{key}/out")
    assert ".lock" in before
    s3.requests.clear()
    code, said, err = predict(url, out, model)
    assert (code, err.count("\n")) == (1, 1), err
    there = s3.contents(f"{key}/out")
    assert as_local(there, url, radiographs) == as_local(here, url, radiographs)
    assert there.keys() == here.keys() | {"inputs.jsonl"}
    assert journal_of(there) == journal_of(here)
    lines = sum(content.count(b"\n") for name, content in before.items() if "journal.jsonl" in name)
    earlier = re.search(r", (\d+) (was|were) done by an earlier run", said)
    assert (earlier is not None) == (lines > 1)
    assert earlier is None or int(earlier[1]) <= len(journal_of(here))


@pytest.mark.slow
def test_what_a_dead_machine_left_is_gone_on_with_by_another_one_after_a_while(
    s3, home, predict, radiographs, model, here, monkeypatch
):
    url, out = s3.fill(radiographs, "moved/in"), f"s3://{BUCKET}/moved/out"
    words = words_of(url, out, model)
    s3.kill_at(s3.start(*words, home=home, script=HASTY), "PUT", "/moved/out/.parts/journal.jsonl/", 2)
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "another"))
    monkeypatch.setattr(lease, "LEASE_S", 8.0)
    monkeypatch.setattr(lease, "RENEW_S", 1.0)
    code, _, err = predict(url, out, model)
    assert (code, err.count("\n")) == (1, 1), err
    assert "bad.dcm" in err
    assert journal_of(s3.contents("moved/out")) == journal_of(here)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason='needs ray: pip install "pleura[cluster]"')
def test_workers_of_a_cluster_read_and_write_objects_and_one_of_them_may_die(s3, home, radiographs, model, here):
    url, out, name = s3.fill(radiographs, "ray/in"), f"s3://{BUCKET}/ray/out", f"{BUCKET}/ray/tiny.onnx"
    s3.files().pipe_file(name, model.read_bytes())
    process = s3.start(*words_of(url, out, Path(f"s3://{name}")), "--ray", "local", "--workers", 2, home=home)
    killed: list[int] = []
    one_at_a_time = Lock()  # the server answers in threads, and two workers write at the same time

    def is_worker(one: psutil.Process) -> bool:
        try:
            return "ray::PredictWorker" in " ".join(one.cmdline())
        except psutil.Error:  # it has ended meanwhile
            return False

    def when(method: str, path: str) -> None:
        with one_at_a_time:
            if method == "PUT" and "/ray/out/masks/" in path and not killed:
                worker = next(filter(is_worker, psutil.Process(process.pid).children(recursive=True)))
                killed.append(worker.pid)
                worker.kill()

    s3.when = when
    try:
        code, _, err = ended(process)
    finally:
        s3.when = None
    assert (code, err.count("\n"), len(killed)) == (1, 1, 1), err
    assert "bad.dcm: not a DICOM file" in err
    assert s3.counts("ray/tiny.onnx")["GET"] == 1  # by the command; its workers are of the same machine
    there = s3.contents("ray/out")
    assert as_local(there, url, radiographs) == as_local(here, url, radiographs)
    assert journal_of(there) == journal_of(here)


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason='needs ray: pip install "pleura[cluster]"')
def test_memory_of_one_process_is_refused_for_workers(predict, model, tmp_path):
    code, _, err = predict("memory://in", tmp_path / "out", model, "--ray", "local")
    assert (code, err) == (
        1,
        "pleura: memory://in: memory is of one process, and workers have others; take another URL with --ray\n",
    )


def test_only_what_changed_or_is_new_is_predicted_again(s3, predict, radiographs, model):
    url, out = s3.fill(radiographs / "a", "change/in"), f"s3://{BUCKET}/change/out"
    assert predict(url, out, model)[0] == 0
    names = sorted(path.name for path in (radiographs / "a").iterdir())
    others = sorted((radiographs / "a-b").iterdir())
    files = s3.files()
    files.pipe_file(f"{BUCKET}/change/in/{names[0]}", others[0].read_bytes())  # the same name, another image
    files.pipe_file(f"{BUCKET}/change/in/new.dcm", others[1].read_bytes())
    s3.requests.clear()
    code, said, err = predict(url, out, model)
    assert (code, err) == (0, "")
    assert f"2 radiographs, {len(names) - 1} " in said
    fetched = {path.rpartition("/")[2] for method, path, _ in s3.requests if method == "GET" and "/change/in/" in path}
    assert fetched == {names[0], "new.dcm"}
    masks = [name for name in s3.contents("change/out") if name.startswith("masks/")]
    assert len(masks) == len(names) + 1


def test_an_object_that_is_deleted_meanwhile_is_its_own_problem(s3, predict, radiographs, model):
    url, out = s3.fill(radiographs / "a", "gone/in"), f"s3://{BUCKET}/gone/out"
    victim = sorted(path.name for path in (radiographs / "a").iterdir())[-1]

    def when(method: str, path: str) -> None:
        if method == "PUT" and path.endswith("/gone/out/journal.jsonl"):
            s3.when = None
            s3.files().rm_file(f"{BUCKET}/gone/in/{victim}")

    s3.when = when
    code, _, err = predict(url, out, model)
    assert code == 1
    assert err == f"pleura: {url}/{victim}: is not there; check its name, and that of the bucket\n"
    assert b"is not there" in s3.contents("gone/out")["problems.csv"]


def test_a_second_process_is_refused(s3, home, predict, radiographs, model):
    url, out = s3.fill(radiographs / "a", "two/in"), f"s3://{BUCKET}/two/out"
    refused = []

    def when(method: str, path: str) -> None:
        if method == "PUT" and "/two/out/masks/" in path and not refused:
            refused.append(None)
            refused[0] = s3.run(*words_of(url, out, model), home=home)

    s3.when = when
    try:
        assert predict(url, out, model)[0] == 0
    finally:
        s3.when = None
    code, _, err = refused[0]
    assert code == 1
    assert "another process writes its predictions there; wait for it or stop it" in err


def test_de_identified_results_hold_no_name_of_an_object(s3, predict, radiographs, model, monkeypatch):
    url, out = s3.fill(radiographs / "a", "secret/in"), f"s3://{BUCKET}/secret/out"
    monkeypatch.setenv("PLEURA_DEIDENTIFY_SECRET", "0123456789abcdef0123")
    for _ in range(2):
        code, said, err = predict(url, out, model, "--deidentify")
        assert (code, err) == (0, "")
    there = s3.contents("secret/out")
    assert "0 radiographs" in said
    assert "inputs.jsonl" not in there
    names = [path.stem.encode() for path in (radiographs / "a").iterdir()]
    assert not [name for name, content in there.items() for one in (*names, b"s3://") if one in content]


def test_inputs_of_a_store_go_into_a_folder_too_and_patterns_are_taken(s3, predict, radiographs, model, tmp_path):
    url = s3.fill(radiographs, "mixed/in")
    name = sorted(path.name for path in (radiographs / "a").iterdir())[0]
    for source in (f"{url}/a/*.dcm", f"{url}/**/{name}", f"{url}/a/{name}"):
        out = tmp_path / f"out-{len(source)}"
        code, _, err = predict(source, out, model)
        assert (code, err) == (0, "")
        assert (out / "masks" / f"{Path(name).stem}.png").exists()
        assert (out / "inputs.jsonl").exists()
    code, _, err = predict(f"{url}/nothing*", tmp_path / "none", model)
    assert (code, err.count("\n")) == (1, 1)
    assert f"no radiograph found in {url}/nothing*" in err


def test_refusals_are_one_line(predict, model, tmp_path):
    for source, reason in (
        ("s3://no-such-bucket/in", "s3://no-such-bucket/in: is not there"),
        ("s3://key:s3cr3t@bucket/in", "credentials come from the environment"),
        ("https://example.org/in", "none of the URLs that pleura takes"),
        ("gs://bucket/in", "pip install gcsfs"),
    ):
        code, said, err = predict(source, tmp_path / "out", model)
        assert (code, said, err.count("\n")) == (1, "", 1), err
        assert reason in err
        assert "s3cr3t" not in err
