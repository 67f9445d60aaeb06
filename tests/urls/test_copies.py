"""Verbs that read files read copies of objects, say the objects' names, and leave nothing behind."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from stores import BUCKET

from pleura.errors import InputError, OutputError
from pleura.urls import copies
from pleura.urls.copies import copied, said
from pleura.urls.url import Url


@pytest.fixture
def scratch(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_a_copy_has_the_names_the_bytes_and_the_times_of_its_objects(s3, scratch, monkeypatch):
    monkeypatch.setattr(copies, "LARGE_BYTES", 6)
    for name, content in (("a.csv", b"small"), ("deep/b.csv", b"not so small")):
        s3.files().pipe_file(f"{BUCKET}/copies/{name}", content)
    urls = [Url("s3", (BUCKET, "copies")), Url("s3", (BUCKET, "copies", "a.csv"))]
    with copied(urls) as (folder, file):
        assert {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.csv")} == {
            "a.csv": b"small",
            "deep/b.csv": b"not so small",
        }
        assert (file.name, file.read_bytes()) == ("a.csv", b"small")
        info = s3.files().info(f"{BUCKET}/copies/a.csv")
        assert file.stat().st_mtime == info["LastModified"].timestamp()
        assert said(f"{folder / 'deep'} and {file}:") == f"{urls[0]}/deep and {urls[1]}:"
    assert said(str(file)) == str(file)
    assert list(scratch.iterdir()) == []


def test_nothing_to_copy_and_no_room_for_it_are_refused(s3, scratch, monkeypatch):
    with pytest.raises(InputError, match="there is no such object"), copied([Url("s3", (BUCKET, "none"))]):
        pass
    s3.files().pipe_file(f"{BUCKET}/room/a", b"12345")
    monkeypatch.setattr(copies.shutil, "disk_usage", lambda _: type("Disk", (), {"free": 4}))
    with pytest.raises(OutputError, match="a copy of it takes"), copied([Url("s3", (BUCKET, "room"))]):
        pass
    assert list(scratch.iterdir()) == []


def test_a_score_of_tables_in_a_store_is_that_of_the_same_files(s3, pleura, phantoms, scratch):
    table = phantoms / "masks.csv"
    s3.files().pipe_file(f"{BUCKET}/score/masks.csv", table.read_bytes())
    url = f"s3://{BUCKET}/score/masks.csv"
    here = pleura("score", "--truth", table, "--pred", table, "--resamples", 10)
    there = pleura("score", "--truth", url, "--pred", url, "--resamples", 10)
    assert (here.returncode, there.returncode) == (0, 0)
    assert there.stdout == here.stdout.replace(str(table), url)
    s3.files().pipe_file(f"{BUCKET}/score/broken.csv", b"\xff\xfe\xff")
    broken = pleura("score", "--truth", f"s3://{BUCKET}/score/broken.csv", "--pred", url)
    assert (broken.returncode, broken.stderr.count("\n")) == (1, 1)
    assert f"s3://{BUCKET}/score/broken.csv: cannot be read as a csv" in broken.stderr
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [
        ("demo", "--out", "s3://b-b/demo"),
        ("serve", "--model", "s3://b-b/model.onnx", "--api-key-file", "s3://b-b/keys"),
        ("listen", "--send-to", "127.0.0.1:104:A", "--inbox", "s3://b-b/inbox"),
        ("predict", "a.dcm", "--out", "found", "--deidentify-secret", "s3://b-b/secret"),
    ],
    ids=lambda words: words[0],
)
def test_a_url_where_none_is_taken_is_refused_before_anything_is_written(pleura, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = pleura(*words)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert f"pleura {words[0]} takes no URL as" in done.stderr
    assert list(tmp_path.iterdir()) == []
