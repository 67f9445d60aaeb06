"""Verbs that write a report or a model into a store: the bytes of a local run, whole or not there."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from dicom_files import save_dicom
from exports import OF_64, tiny_export, tiny_graph
from stores import BUCKET

from pleura.data.phantoms.dicom_files import write_phantom_dataset
from pleura.data.prepare import PrepareSettings, prepare
from pleura.errors import InputError, StoreError
from pleura.serve.pacs.pull import pull
from pleura.urls import mirror as module
from pleura.urls.mirror import Mirror, changed, written
from pleura.urls.url import Url


@pytest.fixture(autouse=True)
def _a_cache_of_its_own(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny_export(tmp_path_factory.mktemp("model") / "tiny.onnx", tiny_graph(64), **OF_64)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A dataset of cases that the run of the tests has not seen, enough to tune on."""
    folder = tmp_path_factory.mktemp("site")
    write_phantom_dataset(folder, n_patients=24, seed=41, size_px=64)
    masks = (folder / "masks.csv",)
    prepare(PrepareSettings(folder / "dicom", masks, folder / "dataset", size_px=64, folds=2, workers=1))
    return folder / "dataset"


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def below(name: str) -> Url:
    return Url("s3", (BUCKET, name))


def test_a_report_in_a_store_has_the_bytes_of_a_local_one(s3, pleura, dataset, model, tmp_path):
    url, words = s3.fill(model.parent, "reported"), ("--data", dataset, "--split", "all", "--resamples", 10)
    for where, out in ((model, tmp_path / "here"), (model, f"{url}/report"), (f"{url}/tiny.onnx", None)):
        done = pleura("evaluate", where, *words, *(("--out", out) if out else ()))
        assert done.returncode == 0, done.stderr
        if out != tmp_path / "here":  # beside its model where nothing else is said
            assert done.stdout.splitlines()[-1] == f"{out or url}/report.html"
    here, there = files(tmp_path / "here"), s3.contents("reported")
    assert {name.removeprefix("report/"): content for name, content in there.items() if "report/" in name} == here
    assert {name: there[name] for name in here} == here
    assert there.keys() == {*here, *(f"report/{name}" for name in here), "tiny.onnx"}


def test_scores_and_comparisons_in_a_store_name_the_urls_of_what_they_are_of(s3, pleura, phantoms, tmp_path):
    s3.files().pipe_file(f"{BUCKET}/scored/masks.csv", (phantoms / "masks.csv").read_bytes())
    url = f"s3://{BUCKET}/scored/masks.csv"
    for verb, words in (("score", ("--truth", url, "--pred", url)), ("compare", (url, url, "--truth", url))):
        done = pleura(verb, *words, "--resamples", 10, "--out", f"s3://{BUCKET}/scored/{verb}")
        assert done.returncode == 0, done.stderr
    there = s3.contents("scored")
    assert there.keys() == {"masks.csv", "score/score.json", "score/cases.csv", "compare/compare.json"}
    for name, keys in (("score/score.json", ("truth", "predicted")), ("compare/compare.json", ("first", "second"))):
        assert all(f'"{key}": "{url}"'.encode() in there[name] for key in keys)


def test_a_model_in_a_store_is_tuned_and_packed_as_a_file_is(s3, pleura, site, run, tmp_path):
    shutil.copytree(run / "fold-0", tmp_path / "run" / "fold-0", ignore=shutil.ignore_patterns("state", "samples"))
    url, words = s3.fill(tmp_path / "run", "tuned/run"), ("--data", site, "--split", "all", "--resamples", 10)
    before = s3.contents("tuned/run")
    here, there = pleura("tune", tmp_path / "run", *words), pleura("tune", url, *words)
    assert (here.returncode, there.returncode) == (0, 0), there.stderr
    assert there.stdout == here.stdout.replace(str(tmp_path / "run"), url)
    after = s3.contents("tuned/run")
    assert after == files(tmp_path / "run")
    new = {"tune.json", "tune.png"}
    assert {name for name in after if after[name] != before.get(name)} == {"fold-0/best.safetensors"} | new
    out = f"s3://{BUCKET}/tuned/small.safetensors"
    packed = pleura("pack", url, "--out", out)
    assert pleura("pack", tmp_path / "run", "--out", tmp_path / "small.safetensors").returncode == 0
    assert packed.returncode == 0, packed.stderr
    assert s3.contents("tuned")["small.safetensors"] == (tmp_path / "small.safetensors").read_bytes()
    again = pleura("pack", url, "--out", out)
    assert (again.returncode, again.stderr) == (1, f"pleura: {out}: is there already; choose another --out\n")


def test_what_a_tuned_copy_would_replace_is_refused_before_the_work(s3, pleura, dataset, run):
    url = f"s3://{BUCKET}/taken/copy.safetensors"
    s3.files().pipe_file(f"{BUCKET}/taken/copy.tune.png", b"of another model")
    refused = pleura("tune", run, "--data", dataset, "--out", url)
    taken = f"s3://{BUCKET}/taken/copy.tune.png"
    assert (refused.returncode, refused.stderr) == (1, f"pleura: {taken}: is there already; choose another --out\n")
    assert s3.contents("taken") == {"copy.tune.png": b"of another model"}


def test_an_evaluation_goes_into_the_checkpoint_of_a_store(s3, pleura, dataset, run):
    s3.files().pipe_file(f"{BUCKET}/card/best.safetensors", (run / "fold-0" / "best.safetensors").read_bytes())
    url, report = f"s3://{BUCKET}/card/best.safetensors", f"s3://{BUCKET}/card/report"
    assert pleura("evaluate", url, "--data", dataset, "--resamples", 10, "--out", report).returncode == 0
    put = pleura("card", url, "--evaluation", report, "--out", url)  # as without --out
    assert (put.returncode, put.stdout) == (0, f"wrote {url}\n"), put.stderr
    page = f"s3://{BUCKET}/card/card.md"
    assert pleura("card", url, "--out", page).stdout == f"wrote {page}\n"
    assert s3.contents("card")["card.md"].decode() == pleura("card", url).stdout
    assert "SIIM Dice" in pleura("card", url).stdout


def test_an_export_goes_into_a_store_and_is_not_replaced(s3, pleura, run, tmp_path):
    out = f"s3://{BUCKET}/exported"
    done = pleura("export", run, "--out", out)
    assert done.returncode == 0, done.stderr
    assert s3.contents("exported").keys() == {"best.onnx", "certificate.json", "certificate.html"}
    assert f"wrote {out}/best.onnx (" in done.stdout
    again = pleura("export", run, "--out", out)
    assert (again.returncode, again.stderr) == (1, f"pleura: {out}/best.onnx: is there already; choose another --out\n")


def test_a_place_that_cannot_be_written_to_is_refused_before_the_work(s3, pleura, model, dataset, monkeypatch):
    monkeypatch.setattr("pleura.evaluation.evaluate.evaluate", lambda *_: pytest.fail("the work began"))
    words = ("evaluate", model, "--data", dataset, "--split", "all", "--out", "s3://no-such-bucket/report")
    done = pleura(*words)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "s3://no-such-bucket/report/.pleura-probe: is not there; check its name" in done.stderr
    bucket = pleura("pack", model, "--out", f"s3://{BUCKET}")
    assert "is a bucket" in bucket.stderr


def test_a_store_that_is_away_at_the_end_loses_nothing_that_was_computed(s3, pleura, model, dataset, monkeypatch):
    def away(path: Path, url: Url) -> None:
        raise StoreError(f"{url}: its server cannot be reached; check the network{module.GOES_ON}")

    monkeypatch.setattr(module, "put_file", away)
    words = ("--data", dataset, "--split", "all", "--resamples", 10, "--out", f"s3://{BUCKET}/away")
    done = pleura("evaluate", model, *words)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "check the network; what was to be written there is kept in" in done.stderr
    assert "report.html" not in done.stdout
    kept = Path(done.stderr.strip().rpartition(" kept in ")[2])
    assert {"report.html", "report.json"} <= files(kept).keys()
    shutil.rmtree(kept.parent)


def test_ctrl_c_while_results_go_up_loses_nothing_that_was_computed(monkeypatch, s3, caplog):
    def interrupted(path: Path, url: Url) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "put_file", interrupted)
    caplog.set_level("WARNING", "pleura")
    monkeypatch.setattr(logging.getLogger("pleura"), "propagate", True)

    def write() -> None:
        with written(below("interrupted")) as folder:
            (folder / "report.json").write_text("of hours")

    with pytest.raises(KeyboardInterrupt):
        write()
    [line] = caplog.messages
    assert line.startswith(f"s3://{BUCKET}/interrupted: what was to be written there is kept in ")
    kept = Path(line.rpartition(" kept in ")[2])
    assert files(kept) == {"report.json": b"of hours"}
    shutil.rmtree(kept.parent)


def test_a_model_that_somebody_else_changes_meanwhile_is_not_replaced(s3):
    name = f"{BUCKET}/both/best.safetensors"
    s3.files().pipe_file(name, b"first")

    def change() -> None:
        with changed(below("both") / "best.safetensors", ()) as path:
            path.write_bytes(b"mine")
            s3.files().pipe_file(name, b"other")

    with pytest.raises(module.OutputError, match="somebody else has changed it meanwhile") as refusal:
        change()
    assert s3.contents("both") == {"best.safetensors": b"other"}
    kept = Path(str(refusal.value).rpartition(" kept in ")[2])
    assert files(kept) == {"best.safetensors": b"mine"}
    shutil.rmtree(kept.parent)


def test_what_a_verb_that_fails_has_written_goes_up_and_its_error_is_the_one_that_is_said(s3):
    def fail() -> None:
        with written(below("failed")) as folder:
            (folder / "a").write_text("finished")
            raise InputError("as it says")

    with pytest.raises(InputError, match="as it says"):
        fail()
    assert s3.contents("failed") == {"a": b"finished"}


def test_files_go_up_in_order_and_once_and_go_when_they_are_gone(s3, tmp_path):
    mirror = Mirror(tmp_path, below("order"))
    for name in ("state", "b", "deep/a"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / ".hidden").write_text("stays")
    s3.requests.clear()
    mirror.bring_up(last="state")
    puts = [path.partition("/order/")[2] for method, path, _ in s3.requests if method == "PUT"]
    assert puts == ["b", "deep/a", "state"]
    (tmp_path / "b").write_text("another")
    (tmp_path / "deep/a").unlink()
    s3.requests.clear()
    mirror.bring_up(last="state")
    assert s3.contents("order") == {"b": b"another", "state": b"state"}
    assert s3.counts()["PUT"] == 1


def test_radiographs_are_pulled_into_a_store_once(s3, tmp_path):
    content = save_dicom(tmp_path / "one.dcm", sop_uid="1.2.3").read_bytes()
    row = {"00080016": "1.2.840.10008.5.1.4.1.1.1.1", "00080018": "1.2.3", "0020000E": "1.2.2", "0020000D": "1.2.1"}
    found = [{tag: {"vr": "UI", "Value": [value]} for tag, value in row.items()}]
    service: Any = SimpleNamespace(name="archive", find=lambda *_, **__: found, fetch=lambda *_: content)
    first, second = (pull(service, below("pulled"), ["1.2.1"], {}) for _ in range(2))
    assert s3.contents("pulled") == {"1.2.3.dcm": content}
    assert ([str(url) for url in first.fetched], first.there) == ([f"s3://{BUCKET}/pulled/1.2.3.dcm"], 0)
    assert (second.fetched, second.there) == ([], 1)
