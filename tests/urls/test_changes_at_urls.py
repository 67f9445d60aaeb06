"""`pleura predict` of objects that are denied, overwritten or looked at by another version, and what it then tells."""

from __future__ import annotations

import json
from pathlib import Path

import fsspec
import pytest
from dicom_files import RAMP_8, save_dicom
from exports import tiny_export
from fsspec.implementations.memory import MemoryFileSystem

from pleura.data import objects
from pleura.data.objects import Heads, objects_of
from pleura.urls import store
from pleura.urls.url import Url

NAME = "DOE_JANE_1970"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny_export(tmp_path_factory.mktemp("model") / "tiny.onnx")


@pytest.fixture
def url(tmp_path, monkeypatch) -> str:
    """A bucket of this process, with two radiographs below in/."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PLEURA_DEIDENTIFY_SECRET", "0123456789abcdef0123")
    bucket = f"memory://{tmp_path.name}"
    for name, uid in ((NAME, "1.2.3.4"), ("other", "1.2.3.5")):
        written(f"{bucket}/in/{name}.dcm", save_dicom(tmp_path / name, sop_uid=uid))
    return bucket


@pytest.fixture
def predict(pleura, url, model):
    def call(*more):
        return pleura("predict", "--quiet", f"{url}/in", "--out", f"{url}/out", "--model", model, *more)

    return call


def written(url: str, file: Path) -> None:
    fsspec.filesystem("memory").pipe_file(url, file.read_bytes())


def emptied(url: str) -> None:
    files = fsspec.filesystem("memory")
    for name in files.find(url):
        files.rm_file(name)


def everything(url: str, *done: object) -> str:
    files = fsspec.filesystem("memory")
    found = {name: files.cat_file(name) for name in files.find(f"{url}/out")}
    parts = [f"{name}\n{content.decode('latin-1')}" for name, content in found.items()]
    return "\n".join([*parts, *(f"{each.stdout}\n{each.stderr}" for each in done)])


def denied(monkeypatch, error: Exception, whole: bool, name: str = NAME) -> None:
    """Fail what asks for an object by name: its first bytes, or all of it."""
    get = MemoryFileSystem.cat_file

    def refuse(self, path, start=None, end=None, **more):
        if name in path and (end != objects.HEAD_BYTES) == whole:
            raise error
        return get(self, path, start, end, **more)

    monkeypatch.setattr(MemoryFileSystem, "cat_file", refuse)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("error", [PermissionError(), ConnectionError()])
def test_no_refusal_of_an_object_names_it_in_de_identified_results(predict, url, monkeypatch, whole, error):
    denied(monkeypatch, error, whole)
    hidden = predict("--deidentify")
    assert hidden.returncode == 1
    assert "without --deidentify" in hidden.stderr
    assert hidden.stderr.count("\n") == 1
    found = everything(url, hidden)
    assert NAME not in found
    if isinstance(error, PermissionError):  # of this object alone
        assert "cannot be read; predict it without --deidentify to learn why" in found
        assert "memory://" not in found.replace(f"{url}/out", "")
    else:
        assert "the same command goes on from here" in hidden.stderr
    emptied(f"{url}/out")
    assert NAME in predict().stderr


def test_input_of_which_all_is_denied_says_why_and_under_a_secret_not_of_what(predict, url, monkeypatch):
    denied(monkeypatch, PermissionError(), whole=False, name="/in/")
    said, hidden = predict().stderr, predict("--deidentify").stderr
    assert f"no radiograph found in {url}/in ({url}/in/{NAME}.dcm: cannot be read (access denied; give" in said
    assert f"no radiograph found in {url}/in; give" in hidden


def test_names_do_not_come_into_de_identified_results(predict, url):
    files = fsspec.filesystem("memory")
    assert predict("--deidentify").returncode == 0
    refused = predict()
    assert refused.returncode == 1
    assert f"remove {url}/out or choose another --out" in refused.stderr
    assert refused.stderr.startswith(f"pleura: {url}/out: holds results of another model or other settings")
    assert NAME not in everything(url, refused)
    emptied(f"{url}/out")
    files.pipe_file(f"{url}/out/inputs.jsonl", b"")  # of a run that was ended before its journal began
    left = predict("--deidentify")
    assert left.returncode == 1
    assert f"{url}/out/inputs.jsonl: names files" in left.stderr
    assert not files.exists(f"{url}/out/journal.jsonl")


def test_object_that_another_image_of_its_size_replaces_does_not_go_by_the_old_id(predict, url, tmp_path, monkeypatch):
    get, new = MemoryFileSystem.cat_file, save_dicom(tmp_path / "new", RAMP_8 // 2, sop_uid="1.2.3.6")

    def replaced(self, path, start=None, end=None, **more):
        if NAME in path and end != objects.HEAD_BYTES:
            written(path, new)
        return get(self, path, start, end, **more)

    monkeypatch.setattr(MemoryFileSystem, "cat_file", replaced)
    done = predict()
    assert done.returncode == 1
    assert done.stderr == f"pleura: {url}/in/{NAME}.dcm: changed since it was listed; run the same command again\n"
    files = fsspec.filesystem("memory")
    assert [Path(path).stem for path in files.ls(f"{url}/out/masks", detail=False)] == ["1.2.3.5"]
    assert predict().returncode == 0
    assert sorted(Path(path).stem for path in files.ls(f"{url}/out/masks", detail=False)) == ["1.2.3.5", "1.2.3.6"]


def test_what_another_version_decided_of_objects_is_looked_at_again(url, tmp_path, monkeypatch):
    kept, asked = tmp_path / "inputs.jsonl", []
    monkeypatch.setattr(objects, "ahead", lambda urls, *more: asked.append(len(urls)) or store.ahead(urls, *more))
    place = Url("memory", (url.removeprefix("memory://"), "in"))
    for version in ("1", "1", "2", "2"):
        monkeypatch.setattr(objects, "__version__", version)
        found = [one for one, _ in Heads(kept).of([each for each, _, _ in objects_of(place)])]
        assert [one.head.uid for one in found] == ["1.2.3.4", "1.2.3.5"]
    assert asked == [2, 0, 2, 0]


def test_damaged_list_or_journal_names_the_url_of_out(predict, url):
    files = fsspec.filesystem("memory")
    assert predict().returncode == 0
    for name, way_out in (
        ("inputs.jsonl", f"remove {url}/out/inputs.jsonl"),
        ("journal.jsonl", f"remove {url}/out or"),
    ):
        whole = files.cat_file(f"{url}/out/{name}")
        files.pipe_file(f"{url}/out/{name}", b"damaged\n" + json.dumps({}).encode() + b"\n")
        refused = predict().stderr
        assert refused.startswith(f"pleura: {url}/out/{name}: is damaged in line 1; {way_out}")
        files.pipe_file(f"{url}/out/{name}", whole)
