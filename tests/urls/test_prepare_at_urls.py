"""`pleura prepare` from and into a store of objects: the dataset of the same files in a folder."""

from __future__ import annotations

import importlib.util
import json
import shutil
import threading
import time
from pathlib import Path

import fsspec
import pytest
from dicom_files import in_two_folders
from fsspec.implementations.memory import MemoryFileSystem
from PIL import Image
from stores import BUCKET

from pleura.data import dataset_at_url, objects
from pleura.data.dataset import Dataset
from pleura.data.phantoms.dicom_files import write_phantom_dataset
from pleura.data.prepare import PrepareSettings
from pleura.data.prepare import prepare as make
from pleura.urls import lease

ARGUMENTS = ("--size", 64, "--folds", 3, "--quiet")
FILES = {"images.npy", "cases.csv", "problems.csv", "card.json"}
needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason='needs ray: pip install "pleura[cluster]"'
)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    """in/: radiographs in two folders, a copy, one that is damaged, a file that is none; masks, patients and folds."""
    folder = tmp_path_factory.mktemp("inputs")
    write_phantom_dataset(folder / "made", n_patients=8, seed=5, size_px=64)
    files = in_two_folders(folder / "made" / "dicom", folder / "in")
    bad = folder / "in" / "a" / files[1].name
    bad.write_bytes(bad.read_bytes()[:3000])
    (folder / "in" / "notes.txt").write_text("nothing")
    for name in ("masks.csv", "patients.csv"):
        shutil.copy(folder / "made" / name, folder / name)
    rows = [f"{file.stem},{number % 2}" for number, file in enumerate(files)]
    (folder / "folds.csv").write_text("\n".join(["ImageId,fold", *rows]) + "\n")
    shutil.rmtree(folder / "made")
    return folder


def words_of(images: object, masks: object, out: object, *more: object) -> tuple[object, ...]:
    return ("prepare", "--images", images, "--masks", masks, "--out", out, *ARGUMENTS, *more)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def here(inputs, tmp_path_factory) -> dict[str, bytes]:
    """The dataset of the folder."""
    out = tmp_path_factory.mktemp("here") / "out"
    make(PrepareSettings(inputs / "in", (inputs / "masks.csv",), out, size_px=64, folds=3, workers=1))
    return contents(out)


def assert_equal(there: dict[str, bytes], here: dict[str, bytes], url: str, folder: Path) -> None:
    """The same files, but for names of inputs, and when and of what they were made."""
    assert there.keys() == here.keys() == FILES
    for name in FILES - {"card.json"}:
        assert there[name].replace(url.encode(), str(folder).encode()) == here[name], name
    cards = [json.loads(one["card.json"]) for one in (there, here)]
    for card in cards:
        del card["made"], card["fingerprint"], card["settings"]
    assert cards[0] == cards[1]


@pytest.fixture
def prepare(s3, pleura, home, monkeypatch):
    """Run `pleura prepare` in this process: exit code, standard output, standard error."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))

    def call(images, masks, out, *more):
        done = pleura(*words_of(images, masks, out, *more))
        return done.returncode, done.stdout, done.stderr

    return call


def left_here(home: Path) -> list[str]:
    """What lies in the cache of the user of what goes up, but for the name of its owner."""
    return [path.name for path in (home / "pleura" / "urls").rglob("*") if path.is_file() and path.name != "owner"]


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_dataset_of_objects_has_the_bytes_of_that_of_their_files(s3, prepare, inputs, here, tmp_path, workers):
    url, out = s3.fill(inputs, f"same-{workers}"), tmp_path / "out"
    s3.requests.clear()
    code, said, err = prepare(f"{url}/in", f"{url}/masks.csv", out, "--workers", workers)
    assert (code, err) == (1, ""), err
    assert_equal(contents(out), here, url, inputs)
    Dataset(out)
    card = json.loads((out / "card.json").read_text())
    assert (card["settings"]["images"], card["settings"]["masks"]) == (f"{url}/in", [f"{url}/masks.csv"])
    read = card["cases"] + 1  # and the damaged one
    # The first bytes of each object, all of each that is read, and once more of a copy and its original.
    assert s3.counts(f"/same-{workers}/in/") == {"GET": (read + 2) + read + 2}
    s3.requests.clear()
    assert prepare(f"{url}/in", f"{url}/masks.csv", out) == (code, said, err)
    assert s3.counts(f"/same-{workers}/in/") == {"GET": (read + 2) + 2}


def test_a_dataset_at_a_url_is_that_of_a_folder_and_nothing_of_it_stays_here(s3, prepare, inputs, here, home):
    url = s3.fill(inputs, "up")
    out = f"{url}/out"
    s3.requests.clear()
    code, said, err = prepare(f"{url}/in", f"{url}/masks.csv", out)
    assert (code, err) == (1, ""), err
    assert said.startswith(f"{out}: ")
    assert f"all of them with reasons: {out}/problems.csv" in said
    assert_equal(s3.contents("up/out"), here, url, inputs)
    assert json.loads(s3.contents("up/out")["card.json"])["settings"]["out"] == out
    puts = [path.rpartition("/")[2] for method, path, _ in s3.requests if method == "PUT" and "/up/out/" in path]
    assert [name for name in puts if name != ".lock"] == ["images.npy", "cases.csv", "problems.csv", "card.json"]
    assert left_here(home) == []
    s3.requests.clear()
    assert prepare(f"{url}/in", f"{url}/masks.csv", out) == (code, said, err)
    assert "PUT" not in s3.counts()


def test_tables_and_several_masks_may_be_urls_and_the_first_that_has_an_image_counts(s3, prepare, inputs, tmp_path):
    """Masks are given as a local csv, a folder of PNG among the images, and a csv; the tables as csv."""
    rows = (inputs / "masks.csv").read_text().splitlines()
    ids = [row.partition(",")[0] for row in rows[1:]]
    for name, some in (("first.csv", rows[1:3]), ("rest.csv", rows[1:])):
        (tmp_path / name).write_text("\n".join([rows[0], *some]) + "\n")
    shutil.copytree(inputs, tmp_path / "all")
    (tmp_path / "all" / "in" / "masks").mkdir()
    for image_id in ids[2:5]:
        Image.new("L", (64, 64)).save(tmp_path / "all" / "in" / "masks" / f"{image_id}.png")
    shutil.move(tmp_path / "rest.csv", tmp_path / "all")
    url = s3.fill(tmp_path / "all", "several")
    made = []
    for place in (tmp_path / "all", url):
        out = tmp_path / f"out-{len(made)}"
        more = ("--masks", f"{place}/in/masks", "--masks", f"{place}/rest.csv")
        tables = ("--patients", f"{place}/patients.csv", "--folds", f"{place}/folds.csv")
        code, said, err = prepare(f"{place}/in", tmp_path / "first.csv", out, *more, *tables)
        assert (code, err) == (1, ""), err
        assert prepare(f"{place}/in", tmp_path / "first.csv", out, *more, *tables) == (code, said, err)
        made.append(contents(out))
    assert_equal(made[1], made[0], url, tmp_path / "all")
    assert {b"first", b"masks", b"rest"} == {row.split(b",")[-3] for row in made[0]["cases.csv"].splitlines()[1:]}
    settings = json.loads(made[1]["card.json"])["settings"]
    assert settings["masks"] == [str(tmp_path / "first.csv"), f"{url}/in/masks", f"{url}/rest.csv"]
    assert (settings["folds"], settings["patients"]) == (f"{url}/folds.csv", f"{url}/patients.csv")


def wait_until(holds, limit_s: float = 60) -> bool:
    ends = time.monotonic() + limit_s
    while not holds() and time.monotonic() < ends:
        time.sleep(0.05)
    return bool(holds())


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["reads", "images.npy", "problems.csv"])
def test_a_run_that_is_killed_leaves_no_dataset_and_goes_on(s3, home, prepare, inputs, here, moment):
    url = s3.fill(inputs, f"killed-{moment}")
    words = (f"{url}/in", f"{url}/masks.csv", f"{url}/out", "--workers", 1)
    process = s3.start(*words_of(*words), home=home, script=(str(Path(__file__).with_name("slow_reader.py")),))
    count = json.loads(here["card.json"])["cases"] + 1
    # Before any is read, the first bytes of each, and a copy and its original.
    at = ("GET", "/in/", (count + 2) + 2 + 8) if moment == "reads" else ("PUT", f"/out/{moment}", 1)
    s3.kill_at(process, at[0], f"/killed-{moment}{at[1]}", at[2])
    assert "card.json" not in s3.contents(f"killed-{moment}/out")
    s3.requests.clear()
    code, _, err = prepare(*words)
    assert (code, err) == (1, ""), err
    assert_equal(s3.contents(f"killed-{moment}/out"), here, url, inputs)
    assert left_here(home) == []
    read_again = s3.counts(f"/killed-{moment}/in/")["GET"] - (count + 2) - 2
    assert 0 < read_again < count if moment == "reads" else read_again == 0


@pytest.mark.slow
def test_what_a_dead_machine_left_is_begun_anew_by_another_one(s3, home, prepare, inputs, here, monkeypatch):
    url = s3.fill(inputs, "begun-anew")
    words = (f"{url}/in", f"{url}/masks.csv", f"{url}/out")
    s3.kill_at(s3.start(*words_of(*words), home=home), "PUT", "/begun-anew/out/cases.csv", 1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "another"))
    monkeypatch.setattr(lease, "LEASE_S", 8.0)
    monkeypatch.setattr(lease, "RENEW_S", 1.0)
    code, _, err = prepare(*words)
    assert (code, err) == (1, ""), err
    assert_equal(s3.contents("begun-anew/out"), here, url, inputs)
    # What the first one had made is of no use any more.
    assert "images.npy" in left_here(home)
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    assert prepare(*words)[0] == 1
    assert left_here(home / "another") == left_here(home) == []


@pytest.mark.slow
@needs_ray
def test_workers_of_a_cluster_read_objects(s3, home, inputs, here):
    url = s3.fill(inputs, "by-workers")
    words = words_of(f"{url}/in", f"{url}/masks.csv", f"{url}/out", "--ray", "local", "--workers", 2)
    code, _, err = s3.run(*words, home=home)
    assert (code, err) == (1, ""), err
    assert_equal(s3.contents("by-workers/out"), here, url, inputs)


@needs_ray
def test_memory_of_one_process_is_refused_for_workers_of_a_cluster(prepare, inputs, tmp_path):
    code, _, err = prepare("memory://in", inputs / "masks.csv", tmp_path / "out", "--ray", "local")
    assert (code, err.count("\n")) == (1, 1)
    assert "memory://in: memory is of one process" in err


def test_an_object_that_goes_or_changes_meanwhile_is_its_own_problem(s3, prepare, inputs, tmp_path, monkeypatch):
    url = s3.fill(inputs / "in" / "a-b", "gone/in")
    names = sorted(path.name for path in (inputs / "in" / "a-b").iterdir())
    # Its size stays: another image of the same header would go by its id.
    other = (inputs / "in" / "a-b" / names[1]).read_bytes()
    changed = other.replace(names[1].removesuffix(".dcm").encode()[-20:], b"9" * 20)
    assert len(changed) == len(other) != changed
    real = dataset_at_url.exists
    monkeypatch.setattr(dataset_at_url, "exists", lambda place: change() or real(place))

    def change() -> None:
        s3.files().rm_file(f"{BUCKET}/gone/in/{names[0]}")
        s3.files().pipe_file(f"{BUCKET}/gone/in/{names[1]}", changed)

    code, _, err = prepare(url, inputs / "masks.csv", f"s3://{BUCKET}/gone/out", "--folds", 2)
    assert (code, err) == (1, ""), err
    there = s3.contents("gone/out")
    problems = [line for line in there["problems.csv"].decode().splitlines() if line.startswith("quarantined")]
    assert [f"{url}/{names[0]}: is not there" in problems[0], f"{url}/{names[1]}: changed since" in problems[1]] == [
        True,
        True,
    ]
    assert json.loads(there["card.json"])["cases"] == len(names) - 2


@pytest.fixture
def bucket(inputs, tmp_path) -> str:
    """Objects of this process: reading them from others would find none."""
    url = f"memory://{tmp_path.name}"
    for path in sorted((inputs / "in").rglob("*.dcm")):
        name = path.relative_to(inputs / "in").as_posix()
        fsspec.filesystem("memory").pipe_file(f"{url}/in/{name}", path.read_bytes())
    return url


def denied(monkeypatch, error: Exception, name: str) -> list[str]:
    """Fail what asks for all of an object; returns the names of those of which all is asked for."""
    get, asked = MemoryFileSystem.cat_file, list[str]()

    def refuse(self, path, start=None, end=None, **more):
        if end != objects.HEAD_BYTES and "/in/" in path:
            asked.append(path.rpartition("/")[2])
            if name in path:
                raise error
        return get(self, path, start, end, **more)

    monkeypatch.setattr(MemoryFileSystem, "cat_file", refuse)
    return asked


def test_what_is_denied_is_a_problem_and_a_store_that_is_away_ends_the_command(
    prepare, bucket, inputs, here, home, monkeypatch
):
    names = sorted(path.name for path in (inputs / "in" / "a-b").iterdir())
    words = (f"{bucket}/in", inputs / "masks.csv", f"{bucket}/out")
    files = fsspec.filesystem("memory")
    with monkeypatch.context() as patch:
        denied(patch, ConnectionError(), names[-1])
        code, said, err = prepare(*words)
    assert (code, said, err.count("\n")) == (1, "", 1)
    assert f"{bucket}/in/a-b/{names[-1]}: its server cannot be reached" in err
    assert [*files.find(f"{bucket}/out")] == []
    assert "journal.jsonl" in left_here(home)
    with monkeypatch.context() as patch:
        asked = denied(patch, PermissionError(), names[-1])
        code, _, err = prepare(*words)
    assert (code, err) == (1, ""), err
    # Of those before it, only the first is looked at again, for its copy.
    assert (asked.count(names[0]), asked.count(names[1]), asked.count(names[-1])) == (1, 0, 1)
    made = {path.rpartition("/")[2]: files.cat_file(path) for path in files.find(f"{bucket}/out")}
    assert json.loads(made["card.json"])["cases"] == json.loads(here["card.json"])["cases"] - 1
    [problem] = [line for line in made["problems.csv"].decode().splitlines() if "access denied" in line]
    assert problem.startswith("quarantined,")
    assert f"{bucket}/in/a-b/{names[-1]}: access denied" in problem


def test_a_second_command_with_this_out_is_refused(s3, home, prepare, inputs):
    url = s3.fill(inputs, "two")
    words = (f"{url}/in", f"{url}/masks.csv", f"{url}/out")
    refused = []

    def when(method: str, path: str) -> None:
        if method == "PUT" and path.endswith("/two/out/images.npy") and not refused:
            refused.append(None)
            refused[0] = s3.run(*words_of(*words), home=home)

    s3.when = when
    try:
        assert prepare(*words)[0] == 1
    finally:
        s3.when = None
    code, _, err = refused[0]
    assert (code, err.count("\n")) == (1, 1)
    assert "another process prepares a dataset in it; wait for it or stop it" in err


def test_a_command_that_has_lost_its_lease_puts_up_nothing_more(s3, prepare, inputs, home, monkeypatch):
    url = s3.fill(inputs, "lost")
    monkeypatch.setattr(lease, "RENEW_S", 0.1)

    def when(method: str, path: str) -> None:
        if method != "PUT" or not path.endswith("/lost/out/images.npy"):
            return
        s3.files().pipe_file(f"{BUCKET}/lost/out/.lock", b'{"owner": "another", "renewed": 1}')
        # The thread that renews it sees that, and ends.
        assert wait_until(lambda: not any("_renew" in thread.name for thread in threading.enumerate()))

    s3.when = when
    try:
        code, said, err = prepare(f"{url}/in", f"{url}/masks.csv", f"{url}/out")
    finally:
        s3.when = None
    assert (code, said, err.count("\n")) == (1, "", 1)
    assert f"{url}/out: another process prepares a dataset in it, or this one could not renew its lease" in err
    assert s3.contents("lost/out").keys() == {".lock", "images.npy"}
    assert "card.json" in left_here(home)


def test_refusals_are_one_line_and_come_before_anything_is_read(s3, prepare, inputs, tmp_path, monkeypatch):
    url = s3.fill(inputs / "in" / "a-b", "refused/in")
    out, masks = f"s3://{BUCKET}/refused/out", inputs / "masks.csv"
    s3.files().pipe_file(f"{BUCKET}/refused/file", b"not a folder")

    def refusal(images: str, out: object, *more: object) -> str:
        code, said, err = prepare(images, masks, out, "--folds", 2, *more)
        assert (code, said, err.count("\n")) == (1, "", 1), err
        return err

    assert "is not there; check its name" in refusal("s3://no-such-bucket/in", tmp_path / "out")
    assert "is not there; check its name" in refusal(url, "s3://no-such-bucket/out")
    assert f"cannot write s3://{BUCKET}/refused/file: an object of that name" in refusal(
        url, f"s3://{BUCKET}/refused/file"
    )
    assert "s3cr3t" not in refusal("s3://key:s3cr3t@bucket/in", tmp_path / "out")
    assert "s3cr3t" not in refusal(url, "s3://key:s3cr3t@bucket/out")
    with monkeypatch.context() as patch:
        patch.setattr(dataset_at_url.shutil, "disk_usage", lambda _: type("Disk", (), {"free": 10**4}))
        err = refusal(url, out)
    assert f"{out}: its images take 0 MB on this machine before they go up" in err
    assert "set XDG_CACHE_HOME" in err
    assert s3.contents("refused/out") == {}
    assert prepare(url, masks, out, "--folds", 2)[0] == 0
    assert f"{out}: holds a dataset of other inputs; remove it or choose another --out" in refusal(
        url, out, "--seed", 1
    )
    there = s3.contents("refused/out")
    s3.files().pipe_file(f"{BUCKET}/refused/out/images.npy", there["images.npy"][:-1000])
    assert f"{out}/images.npy: is damaged" in refusal(url, out)
    s3.files().pipe_file(f"{BUCKET}/refused/out/cases.csv", there["cases.csv"].replace(b",0,", b",x,"))
    assert f"{out}/cases.csv, line " in refusal(url, out)
