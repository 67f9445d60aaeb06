"""Copies that stay: fetched once, whole or not there, and removed when they are of no use and of no one's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from stores import BUCKET

from pleura.errors import InputError
from pleura.files import user_cache
from pleura.urls import copies
from pleura.urls import kept as module
from pleura.urls.copies import said
from pleura.urls.kept import DATASET_FILES, MODEL_FILES, kept, objects_of
from pleura.urls.url import Url

FILES = ("a.csv", "deep/b.csv")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """What this user keeps."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return user_cache("copies")


@pytest.fixture
def base(s3, request) -> Url:
    """Two files that are copied and one that is not."""
    url = Url("s3", (BUCKET, "kept", request.node.name))
    put(s3, url, "a.csv", b"first")
    put(s3, url, "deep/b.csv", b"second")
    put(s3, url, "other.csv", b"not asked for")
    put(s3, url, "another/a.csv", b"of another")
    s3.requests.clear()
    return url


def put(s3, base: Url, name: str, content: bytes) -> None:
    s3.files().pipe_file(f"{'/'.join(base.parts)}/{name}", content)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def folders(cache: Path) -> list[Path]:
    return [path for path in cache.iterdir() if path.is_dir()]


WHOLE = {"a.csv": b"first", "deep/b.csv": b"second"}


def test_a_second_command_fetches_nothing(s3, base, cache):
    with kept(base, FILES) as first:
        assert first.name == base.name
        assert contents(first) == WHOLE
        assert said(f"{first}/a.csv") == f"{base}/a.csv"
    assert said(str(first)) == str(first)
    assert s3.counts()["GET"] == 2
    with kept(base, FILES) as second:
        assert (second, contents(second)) == (first, WHOLE)
    assert s3.counts()["GET"] == 2
    assert folders(cache) == [first.parent]


def test_what_has_changed_is_another_copy_and_the_former_goes_when_nobody_uses_it(s3, base, cache):
    with kept(base, FILES) as first:
        put(s3, base, "a.csv", b"FIRST")
        with kept(base, FILES) as second:
            assert contents(second) == WHOLE | {"a.csv": b"FIRST"}
            assert contents(first) == WHOLE  # somebody still reads it
    put(s3, base, "a.csv", b"third")
    with kept(base, FILES) as third:
        assert contents(third) == WHOLE | {"a.csv": b"third"}
        assert folders(cache) == [third.parent]
    assert len(list(cache.iterdir())) == 2  # with its lock


def test_a_copy_that_nobody_has_used_for_long_is_removed_when_another_is_made(s3, base, cache, monkeypatch):
    with kept(base, FILES) as old:
        pass
    other = base / "deep/b.csv"
    with kept(other, ()):
        assert old.exists()
    for path in cache.glob("*.lock"):
        os.utime(path, (0, time.time() - module.UNUSED_S - 60))
    with kept(base / "other.csv", ()) as new:
        assert folders(cache) == [new.parent]


def test_a_copy_that_was_cut_off_by_a_kill_is_not_taken_for_whole(s3, base, cache):
    script = (
        "import os, signal, sys\n"
        "from pleura.urls import copies, kept\n"
        "from pleura.urls.url import place_of\n"
        "made = copies._path\n"
        "def path(folder, base, url):\n"
        "    if url.name == 'b.csv':\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return made(folder, base, url)\n"
        "copies._path = path\n"
        "kept.keep(place_of(sys.argv[1]), ('a.csv', 'deep/b.csv'))\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(base)], timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL
    left = [path.name for path in folders(cache)]
    assert len(left) == 1
    assert ".part-" in left[0]
    with kept(base, FILES) as copy:
        assert contents(copy) == WHOLE
        assert folders(cache) == [copy.parent]


def test_objects_that_change_while_they_are_copied_are_refused(s3, base, cache, monkeypatch):
    fetch = module.fetch

    def slow(*arguments):
        fetch(*arguments)
        put(s3, base, "a.csv", b"FIRST")

    monkeypatch.setattr(module, "fetch", slow)
    with pytest.raises(InputError, match="changed while it was copied"), kept(base, FILES):
        pass
    assert folders(cache) == []


def test_of_two_that_need_a_copy_at_once_one_fetches_it(s3, base, cache, monkeypatch):
    monkeypatch.setattr(module, "_PAUSE_S", 0.02)
    together, found = threading.Barrier(2), []

    def read() -> None:
        together.wait()
        with kept(base, FILES) as copy:
            found.append(contents(copy))

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [WHOLE, WHOLE]
    assert s3.counts()["GET"] == 2


def test_where_there_are_no_locks_one_leaves_alone_what_another_fetches(s3, base, cache, monkeypatch):
    monkeypatch.setattr(module, "_fcntl", None)
    made, found = copies._path, []

    def path(folder, of, url):
        if url.name == "b.csv" and not found:
            found.append("the other begins")
            with monkeypatch.context() as patch:
                patch.setattr(module, "fetch", fails)
                with pytest.raises(InputError, match="is away"), kept(base, FILES):
                    pass
        return made(folder, of, url)

    def fails(*_):
        raise InputError("is away")

    monkeypatch.setattr(copies, "_path", path)
    with kept(base, FILES) as copy:
        assert contents(copy) == WHOLE
    assert found


def test_what_lies_deeper_is_of_others_and_is_not_fetched(s3, base):
    runs = ("best.safetensors", "metrics.csv", "fold-0/best.safetensors", "fold-0/state/best.safetensors")
    for name in (
        *DATASET_FILES,
        *runs,
        *(f"{one}/{name}" for one in ("one", "old") for name in (*DATASET_FILES, *runs)),
    ):
        put(s3, base, name, name.encode())

    def names(url: Url, files: tuple[str, ...]) -> list[str]:
        return sorted("/".join(each.parts[len(url.parts) :]) for each in objects_of(url, files))

    assert names(base, DATASET_FILES) == sorted(DATASET_FILES)
    run = ["best.safetensors", "fold-0/best.safetensors", "metrics.csv"]
    assert names(base, MODEL_FILES) == names(base / "one", MODEL_FILES) == run
    with pytest.raises(InputError, match=r"below it none of images\.npy, "):
        objects_of(base.parent, DATASET_FILES)
    put(s3, base, "ensemble.json", b"{}")
    members = [f"{one}/{name}" for one in ("old", "one") for name in run]
    assert names(base, MODEL_FILES) == sorted(["ensemble.json", *run, *members])


def test_what_belongs_to_a_model_and_lies_beside_it_is_copied_too(s3, base):
    for name in ("net.xml", "net.bin", "fold.safetensors", "metrics.csv", "net.csv"):
        put(s3, base, name, name.encode())
    for name, beside in (("net.xml", "net.bin"), ("fold.safetensors", "metrics.csv")):
        with kept(base / name, ()) as copy:
            assert copy.read_bytes() == name.encode()
            assert sorted(contents(copy.parent)) == sorted([name, beside])


def test_nothing_to_copy_and_a_user_without_a_home(s3, base, cache, monkeypatch):
    with pytest.raises(InputError, match=r"below it none of c\.csv"), kept(base, ("c.csv",)):
        pass

    def homeless(name: str) -> Path:
        raise RuntimeError(name)

    monkeypatch.setattr(module, "user_cache", homeless)
    with kept(base / "a.csv", ()) as copy:
        assert copy.read_bytes() == b"first"
    assert not copy.exists()
