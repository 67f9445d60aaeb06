"""Files that are whole or not there, and JSON that every reader takes."""

import json
import os
from pathlib import Path

import pytest

from pleura import files
from pleura.errors import OutputError
from pleura.files import as_json, refuse_unwritable, write_atomically


def test_folders_are_made_and_nothing_else_is_left(tmp_path: Path):
    write_atomically(tmp_path / "run/state/x.bin", b"content")
    assert [path.name for path in (tmp_path / "run/state").iterdir()] == ["x.bin"]
    assert (tmp_path / "run/state/x.bin").read_bytes() == b"content"


def test_the_content_is_on_the_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seen: list[str] = []
    fsync, rename = os.fsync, os.replace
    monkeypatch.setattr(files.os, "fsync", lambda number: seen.append("fsync") or fsync(number))
    monkeypatch.setattr(files.os, "replace", lambda old, new: seen.append("replace") or rename(old, new))
    write_atomically(tmp_path / "x", b"content")
    assert seen == ["fsync", "replace"]


def test_a_folder_that_cannot_be_written_is_refused_by_its_name_and_one_that_can_is_left_empty(tmp_path: Path):
    refuse_unwritable(tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cannot write .*file: .*choose another --out"):
        refuse_unwritable(tmp_path / "file")


def test_what_has_no_number_is_null():
    document = {"a": [float("nan"), {"b": float("inf")}], "c": 1.5, "d": (1, None)}
    assert json.loads(as_json(document)) == {"a": [None, {"b": None}], "c": 1.5, "d": [1, None]}
