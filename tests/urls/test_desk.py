"""Files of lines that go into a store in parts: whoever takes them has every line that went up, once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from stores import BUCKET

from pleura.errors import OutputError
from pleura.urls import desk, scratch
from pleura.urls.desk import Desk, RemoteDesk, desk_for
from pleura.urls.url import Url

NAME = "journal.jsonl"


@pytest.fixture
def out(s3, request) -> Url:
    return Url("s3", (BUCKET, f"desk-{request.node.name}"))


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr(desk, "FOLLOW_S", 0.0)


def append(made: Desk, line: str) -> None:
    with (made.folder / NAME).open("a") as file:
        file.write(line)
    made.follow(NAME)


def taken(out: Url) -> str:
    with desk_for(out, "writes there") as made:
        made.take(NAME)
        path = made.folder / NAME
        return path.read_text() if path.exists() else ""


def test_the_desk_of_a_folder_is_the_folder(tmp_path):
    with desk_for(tmp_path / "out", "writes there") as made:
        assert made.folder == tmp_path / "out"
        made.take(NAME)
        made.put(NAME)
    assert list(tmp_path.iterdir()) == []


def test_lines_go_up_in_parts_and_then_as_one_object(s3, out, at_once):
    with desk_for(out, "writes there") as made:
        for number in range(3):
            append(made, f"{number}\n")
        append(made, "cut of")
        parts = [name for name in s3.contents(out.parts[1]) if name.startswith(".parts")]
        assert len(parts) == 3
        # As if it had been killed here: nothing else goes up.
    assert taken(out) == "0\n1\n2\n"
    with desk_for(out, "writes there") as made:
        made.take(NAME)
        made.put(NAME)
        append(made, "3\n")
        made.put(NAME)
    assert s3.contents(out.parts[1]) == {NAME: b"0\n1\n2\n3\n"}


def test_a_put_that_ends_before_its_parts_are_removed_loses_no_line(s3, out, at_once, monkeypatch):
    def killed(url):
        raise OutputError("killed")

    with desk_for(out, "writes there") as made:
        append(made, "0\n")
        append(made, "1\n")
        monkeypatch.setattr(desk, "delete", killed)
        with pytest.raises(OutputError, match="killed"):
            made.put(NAME)
    monkeypatch.undo()
    # The lines come twice, the older first: a journal takes the last one of each file.
    assert taken(out) == "0\n1\n0\n1\n"


def test_many_parts_become_one_object(s3, out, at_once, monkeypatch):
    monkeypatch.setattr(desk, "MOST_PARTS", 3)
    with desk_for(out, "writes there") as made:
        for number in range(10):
            append(made, f"{number}\n")
        assert len([name for name in s3.contents(out.parts[1]) if name.startswith(".parts")]) <= 3
    assert taken(out) == "".join(f"{number}\n" for number in range(10))


def test_lines_wait_until_it_is_time(s3, out):
    with desk_for(out, "writes there") as made:
        append(made, "0\n")
        append(made, "1\n")
        assert [name for name in s3.contents(out.parts[1]) if name.startswith(".parts")] == []


def test_a_second_process_of_this_machine_is_refused_at_once(out):
    with desk_for(out, "writes there"), pytest.raises(OutputError, match="another process writes there"):
        desk_for(out, "writes there").__enter__()


def test_who_has_lost_the_lease_puts_nothing(s3, out, at_once):
    with desk_for(out, "writes there") as made:
        assert isinstance(made, RemoteDesk)
        append(made, "0\n")
        made.lease.is_lost = True
        with pytest.raises(OutputError, match="another process"):
            append(made, "1\n")
        with pytest.raises(OutputError, match="another process"):
            made.put(NAME)


def test_nothing_of_the_results_stays_on_the_desk(out, at_once):
    with desk_for(out, "writes there") as made:
        append(made, "0\n")
        folder = made.folder
    assert [path.name for path in folder.iterdir()] == ["owner"]


def test_a_file_that_grows_while_it_goes_up_ends_with_a_whole_line(s3, out, at_once, monkeypatch):
    monkeypatch.setattr(desk, "_PIECE_BYTES", 3)
    with desk_for(out, "writes there") as made:
        (made.folder / NAME).write_text("first\nsecond\nthi")
        real = desk.put_file

        def meanwhile(path: Path, url: Url) -> None:
            with (made.folder / NAME).open("a") as file:
                file.write("rd\nfou")
            real(path, url)

        monkeypatch.setattr(desk, "put_file", meanwhile)
        made.put(NAME)
        assert s3.contents(out.parts[1])[NAME] == b"first\nsecond\n"
        append(made, "rth\n")
    assert taken(out) == "first\nsecond\nthird\nfourth\n"


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="Windows has no numbers of users")
def test_a_desk_without_a_home_is_for_this_user_alone(tmp_path, monkeypatch):
    def homeless(name: str) -> Path:
        raise RuntimeError

    monkeypatch.setattr(scratch, "user_cache", homeless)
    monkeypatch.setattr(scratch.tempfile, "gettempdir", lambda: str(tmp_path))
    folder = scratch._folder(Url("s3", ("bucket",)), "desk")
    assert folder.parent == tmp_path
    folder.chmod(0o777)
    assert scratch._folder(Url("s3", ("bucket",)), "desk").stat().st_mode & 0o777 == 0o700
    other = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: other)
    with pytest.raises(OutputError, match="belongs to another user; set XDG_CACHE_HOME"):
        scratch._folder(Url("s3", ("bucket",)), "desk")
    monkeypatch.undo()
