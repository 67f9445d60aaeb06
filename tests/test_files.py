"""Files that are whole or not there, csv and JSON that every reader takes."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from pleura import files
from pleura.errors import InputError, OutputError
from pleura.files import (
    as_json,
    hash_files,
    held,
    read_csv,
    read_journal,
    read_records,
    refuse_unwritable,
    reserve,
    without_suffix,
    write_atomically,
    write_csv,
    write_journal,
    write_json,
)


def test_folders_are_made_and_nothing_else_is_left(tmp_path: Path):
    write_atomically(tmp_path / "run/state/x.bin", b"content")
    assert [path.name for path in (tmp_path / "run/state").iterdir()] == ["x.bin"]
    assert (tmp_path / "run/state/x.bin").read_bytes() == b"content"


def test_content_is_on_the_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seen: list[str] = []
    fsync, rename = os.fsync, os.replace
    monkeypatch.setattr(files.os, "fsync", lambda number: seen.append("fsync") or fsync(number))
    monkeypatch.setattr(files.os, "replace", lambda old, new: seen.append("replace") or rename(old, new))
    write_atomically(tmp_path / "x", b"content")
    assert seen == ["fsync", "replace"]


def test_folder_that_cannot_be_written_is_refused_by_its_name_and_one_that_can_is_left_empty(tmp_path: Path):
    refuse_unwritable(tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cannot write .*file: .*choose another --out"):
        refuse_unwritable(tmp_path / "file")


def test_csv_round_trips_empty_cells_spaces_and_names_that_are_no_utf8(tmp_path: Path):
    name = os.fsdecode(b"a\xff.png")
    write_csv(tmp_path / "t.csv", [("file", "number"), (name, None), (" b, c", 1.5)])
    assert (tmp_path / "t.csv").read_bytes() == b'file,number\na\xff.png,\n" b, c",1.5\n'
    assert read_records(tmp_path / "t.csv") == [{"file": name, "number": ""}, {"file": " b, c", "number": "1.5"}]


def test_csv_of_others_is_read_without_mark_and_spaces_after_commas_by_line(tmp_path: Path):
    (tmp_path / "t.csv").write_bytes(b'\xef\xbb\xbfid, mask\r\n"a\nb", 1 2\r\n')
    assert list(read_csv(tmp_path / "t.csv")) == [(1, ["id", "mask"]), (3, ["a\nb", "1 2"])]


@pytest.mark.parametrize("content", [b"a,b\n\xff,1\n", None])
def test_csv_that_cannot_be_read_is_refused_by_its_name(tmp_path: Path, content: bytes | None):
    if content is not None:
        (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(InputError, match=r"t.csv: cannot be read as a csv \(.+\)"):
        list(read_csv(tmp_path / "t.csv"))


def test_json_ends_as_asked(tmp_path: Path):
    write_json(tmp_path / "t.json", {"a": [1]}, indent=2, end="\n")
    assert (tmp_path / "t.json").read_text() == '{\n  "a": [\n    1\n  ]\n}\n'


def test_what_has_no_number_is_null():
    document = {"a": [float("nan"), {"b": float("inf")}], "c": 1.5, "d": (1, None)}
    assert json.loads(as_json(document)) == {"a": [None, {"b": None}], "c": 1.5, "d": [1, None]}


@pytest.mark.parametrize("without", [(), ("_fcntl",), ("_fcntl", "_msvcrt")])
def test_folder_has_one_writer_with_the_locks_of_any_system(tmp_path: Path, monkeypatch, without):
    for name in without:
        monkeypatch.setattr(files, name, None)
    if without == ("_fcntl",):
        monkeypatch.setattr(files, "_msvcrt", WindowsLocks)
    again = pytest.raises(OutputError, match="another process writes there")
    with held(tmp_path / "new", "writes there"), again, held(tmp_path / "new", "writes there"):
        pass
    with held(tmp_path / "new", "writes there"):
        pass
    assert list((tmp_path / "new").iterdir()) == []


class WindowsLocks:
    """Stands for Windows' module of locks, by those of Unix."""

    LK_NBLCK = 2

    @staticmethod
    def locking(number: int, mode: int, count: int) -> None:
        fcntl = pytest.importorskip("fcntl")
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise PermissionError(13, "Permission denied") from error


@pytest.mark.parametrize("asked", [True, False])
def test_space_is_taken_with_zeros_also_where_the_system_cannot_be_asked(tmp_path: Path, monkeypatch, asked: bool):
    if not asked:
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
    with (tmp_path / "x").open("w+b") as file:
        file.write(b"head")
        reserve(file, 4, 3 << 20)
    assert (tmp_path / "x").read_bytes() == b"head" + bytes(3 << 20)


def test_longest_name_that_a_file_system_takes_can_be_written(tmp_path: Path):
    write_atomically(tmp_path / ("x" * 255), b"content")
    with pytest.raises(OutputError, match="longer than the file system allows"):
        write_atomically(tmp_path / ("x" * 256), b"content")


def test_line_of_a_journal_that_was_changed_is_seen(tmp_path):
    path = tmp_path / "journal.jsonl"
    write_journal(path, [{"score": 0.0042, "runs": "1 2"}, {"score": 0.9}])
    (first, _), (second, _) = read = list(read_journal(path, "remove it"))
    assert [entry for _, entry in read] == [{"score": 0.0042, "runs": "1 2"}, {"score": 0.9}]
    assert (first, path.read_bytes()[second:].count(b"\n")) == (0, 1)
    path.write_text(path.read_text().replace("0.0042", "0.0742"))
    with pytest.raises(OutputError, match=r"is damaged in line 1; remove it$"):
        list(read_journal(path, "remove it"))


def test_file_that_is_written_in_parts_is_whole_or_as_it_was(tmp_path):
    def broken():
        yield b"a part"
        raise InputError("no more")

    write_atomically(tmp_path / "a", (part for part in (b"all ", b"of it")))
    with pytest.raises(InputError, match="no more"):
        write_atomically(tmp_path / "a", broken())
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"all of it")]


def test_dots_of_a_uid_are_no_suffix():
    assert without_suffix("1.2.276.0.7230010.3") == "1.2.276.0.7230010.3"
    assert [without_suffix(f"1.2{end}") for end in (".dcm", ".DICOM", ".png", ".Jpg", ".jpeg")] == ["1.2"] * 5


def test_hash_is_over_the_bytes_of_all_files_in_order(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"one")
    (tmp_path / "b").write_bytes(b"two")
    assert hash_files(tmp_path / "a", tmp_path / "b") == hashlib.sha256(b"onetwo").hexdigest()
    assert hash_files(tmp_path / "b", tmp_path / "a") != hash_files(tmp_path / "a", tmp_path / "b")


def test_missing_file_has_no_hash(tmp_path: Path):
    with pytest.raises(InputError, match="cannot be read"):
        hash_files(tmp_path / "nowhere")
