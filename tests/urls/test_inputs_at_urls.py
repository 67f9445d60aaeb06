"""Verbs whose models, datasets and tables are objects: they do what they do with the same files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from exports import OF_64, tiny_export, tiny_graph
from stores import BUCKET

from pleura.cluster.asked import Asked, as_named
from pleura.cluster.connection import ClusterOptions
from pleura.cluster.evaluate import EvaluateWorker, Facts
from pleura.data.dataset import Dataset
from pleura.errors import InputError
from pleura.urls.copies import saying
from pleura.urls.kept import DATASET_FILES, MODEL_FILES, kept
from pleura.urls.url import Url

pytestmark = pytest.mark.usefixtures("_a_cache_of_its_own")


@pytest.fixture
def _a_cache_of_its_own(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny_export(tmp_path_factory.mktemp("model") / "tiny.onnx", tiny_graph(64), **OF_64)


def put(s3, path: Path, key: str) -> str:
    s3.files().pipe_file(f"{BUCKET}/{key}", path.read_bytes())
    return f"s3://{BUCKET}/{key}"


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_predict_with_a_model_that_is_an_object_writes_what_it_writes_with_the_file(
    s3, pleura, phantoms, model, tmp_path
):
    url = put(s3, model, "models/tiny.onnx")
    inputs = sorted((phantoms / "dicom").rglob("*.dcm"))[:3]
    for name, where in (("here", model), ("there", url), ("again", url)):
        done = pleura("predict", *inputs, "--out", tmp_path / name, "--model", where)
        assert done.returncode == 0, done.stderr
    here, there = files(tmp_path / "here"), files(tmp_path / "there")
    assert here.keys() == there.keys()
    for name in ("predictions.csv", *(each for each in here if each.startswith("masks/"))):
        assert there[name] == here[name]
    assert s3.counts("models/tiny.onnx")["GET"] == 1


def test_evaluate_of_a_model_and_a_dataset_in_a_store_writes_the_same_report(s3, pleura, dataset, model, tmp_path):
    url, data = put(s3, model, "run/tiny.onnx"), s3.fill(dataset, "siim")
    for name, words in (("here", (model, "--data", dataset)), ("there", (url, "--data", data))):
        words = (*words, "--split", "all", "--resamples", 10, "--out", tmp_path / name)
        done = pleura("evaluate", *words)
        assert done.returncode == 0, done.stderr
    here, there = files(tmp_path / "here"), files(tmp_path / "there")
    for one in (here, there):  # the names of the datasets' folders
        report = json.loads(one["report.json"])
        report["command"] = report["command"].replace("--data siim", "--data dataset")
        one["report.json"] = json.dumps(report).encode()
        one["report.html"] = one["report.html"].replace(b"--data siim", b"--data dataset")
    assert there == here
    s3.requests.clear()
    compared = pleura("compare", url, model, "--data", data, "--resamples", 10)
    assert compared.returncode == 0, compared.stderr
    assert s3.counts("siim/")["GET"] == 0  # the copy of the first command


def test_a_refusal_names_the_url_and_not_the_copy(s3, pleura, dataset, model):
    url, data = put(s3, model, "refused/tiny.onnx"), s3.fill(dataset, "refused/siim")
    s3.files().pipe_file(f"{BUCKET}/refused/siim/cases.csv", b"damaged\n")
    done = pleura("compare", url, url, "--data", data)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith(f"pleura: {data}/cases.csv")
    trained = pleura("train", "smoke", "--data", f"s3://{BUCKET}/refused/none", "--out", "run")
    assert f"s3://{BUCKET}/refused/none: there is no such object, and below it none of images.npy" in trained.stderr


def test_options_that_can_be_repeated_are_copied_one_by_one(s3, pleura, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    urls = []
    for name, line in (("a.yaml", "one: 1"), ("b.yaml", "two: 2")):
        (tmp_path / name).write_text(f"{line}\n")
        urls.append(put(s3, tmp_path / name, f"winner/{name}"))
    here = pleura("import-recipe", "a.yaml", "b.yaml")
    there = pleura("import-recipe", *urls)
    assert (there.returncode, there.stdout) == (here.returncode, here.stdout)
    assert there.stderr == here.stderr.replace("a.yaml", urls[0]).replace("b.yaml", urls[1])


def test_a_text_stays_a_text_and_a_path_a_path(s3, pleura, phantoms, model):
    masks, images = phantoms / "masks.csv", s3.fill(phantoms / "dicom", "texts")
    here, there = (pleura("doctor", masks, "--images", where) for where in (phantoms / "dicom", images))
    assert (there.returncode, there.stdout) == (here.returncode, here.stdout), there.stderr
    refused = pleura("export", model, "--images", images, "--out", "exported")  # which is a list of texts
    assert "is an exported model" in refused.stderr


def test_a_file_url_is_the_path(pleura, phantoms, model, tmp_path):
    image = next((phantoms / "dicom").rglob("*.dcm"))
    done = pleura("predict", image, "--out", tmp_path / "found", "--model", f"file://{model}")
    assert done.returncode == 0, done.stderr


def test_workers_of_another_machine_make_one_copy_each_of_what_the_command_has_a_copy_of(
    s3, dataset, model, tmp_path, monkeypatch
):
    url, data = Url("s3", (BUCKET, "nodes", "tiny.onnx")), Url("s3", (BUCKET, "nodes", "siim"))
    put(s3, model, "nodes/tiny.onnx")
    s3.fill(dataset, "nodes/siim")
    monkeypatch.setattr("pleura.inference.device._chosen", None)
    with kept(url, MODEL_FILES) as here, kept(data, DATASET_FILES) as siim:
        asked, named = Asked.of(here, None, ClusterOptions("local")), as_named(siim)
        assert (asked.model, named) == (str(url), str(data))
        s3.requests.clear()
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
        workers = [EvaluateWorker(asked, named, str(tmp_path)) for _ in range(2)]
        facts = [worker.facts() for worker in workers]
    assert isinstance(facts[0], Facts)
    assert facts[0] == facts[1]
    assert facts[0].data_sha256 == Dataset(dataset).data_hash
    assert (s3.counts("tiny.onnx")["GET"], s3.counts("siim/")["GET"]) == (1, 3)
    with pytest.raises(InputError, match="memory is of one process"), saying(tmp_path, Url("memory", ("a",))):
        as_named(tmp_path)
