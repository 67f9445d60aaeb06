"""A run below a URL: it goes on from any machine, to the same bits, and outlasts a store that is away."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import time
from pathlib import Path
from threading import Lock

import pytest
from places import SMOKE
from processes import ended
from stores import BUCKET
from trainings import QUIET, smoke

from pleura.data.dataset import Dataset
from pleura.errors import InputError, OutputError, PleuraError, StoreError
from pleura.files import user_cache
from pleura.training import stage as stage_module
from pleura.training.folds import train_folds
from pleura.training.run import STATE, state_at
from pleura.training.train import train
from pleura.urls import followed, mirror
from pleura.urls.url import Url

OVERRIDES = (
    *QUIET,
    "training.epochs=3",
    "training.averaging={swa_epochs: 2, ema_decay: 0.9, top_k: 2, soup: true, hand_on: soup}",
    "save_minutes=0",  # a state after every step
)
HASTY = (str(Path(__file__).with_name("hasty_training.py")),)


@pytest.fixture(autouse=True)
def _short(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(followed, "LAST_S", 0.0)
    monkeypatch.setattr(followed, "PAUSE_S", 0.0)


def below(name: str) -> Url:
    return Url("s3", (BUCKET, *name.split("/")))


def hashes(files: dict[str, bytes]) -> dict[str, str]:
    """sha256 of every checkpoint of a fold, and of the table of its averages."""
    kept = {name: content for name, content in files.items() if name.endswith((".safetensors", "averages.csv"))}
    return {name: hashlib.sha256(content).hexdigest() for name, content in kept.items()}


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def whole(dataset, tmp_path_factory) -> dict[str, bytes]:
    """What an uninterrupted run in a folder leaves."""
    out = tmp_path_factory.mktemp("whole")
    train(smoke(*OVERRIDES[len(QUIET) :]), Dataset(dataset), out)
    return files(out / "fold-0")


def test_a_run_that_is_killed_goes_on_from_an_empty_machine_to_the_same_bits(s3, dataset, whole, tmp_path):
    out, data = f"s3://{BUCKET}/killed/run", s3.fill(dataset, "killed/siim")
    words = ("train", SMOKE, *OVERRIDES, "--data", data, "--out", out, "--resume")
    process = None
    one_at_a_time, seen, killed = Lock(), [], []

    def kill_at(name: str, count: int):
        def when(method: str, path: str) -> None:
            with one_at_a_time:
                seen.extend([path] if method == "PUT" and path.endswith(name) else [])
                if len(seen) == count and process is not None and not killed:
                    killed.append(path)
                    process.kill()

        return when

    # In turn: with a state that has just gone up, amid the files of an epoch, amid what comes before the last state.
    for machine, (name, count) in enumerate(((f"/{STATE}", 4), ("/last.safetensors", 2), ("/high.safetensors", 1))):
        seen.clear()
        killed.clear()
        s3.when = kill_at(name, count)
        process = s3.start(*words, home=tmp_path / f"machine-{machine}", script=HASTY, OMP_NUM_THREADS="1")
        try:
            code, _, err = ended(process)
        finally:
            s3.when = None
        assert (code, len(killed)) == (-9, 1), err
    code, _, err = s3.run(*words, home=tmp_path / "last", script=HASTY, OMP_NUM_THREADS="1")
    assert code == 0, err
    there = s3.contents("killed/run/fold-0")
    assert hashes(there) == hashes(whole)
    assert there.keys() == whole.keys() - {"curves.png", "curves.svg"}  # which this script does not draw
    assert there["log.txt"].decode().count(" resumes after ") >= 2
    assert not list((tmp_path / "last" / "pleura" / "urls").rglob("*.safetensors"))  # all of it is up


def test_a_model_that_was_trained_into_a_store_is_used_from_there(s3, pleura, dataset, whole):
    out = f"s3://{BUCKET}/used/run"
    words = ("train", SMOKE, *OVERRIDES, "--data", dataset, "--out", out)
    done = pleura(*words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == [
        f"{out}/fold-0/best.safetensors",
        f"next: pleura evaluate {out} --data {dataset}",
    ]
    assert hashes(s3.contents("used/run/fold-0")) == hashes(whole)
    again = pleura(*words)
    assert (again.returncode, again.stderr.count("\n")) == (1, 1)
    assert f"{out}/fold-0: holds a run already; add --resume" in again.stderr
    assert pleura(*words, "--resume").returncode == 0
    evaluated = pleura("evaluate", out, "--data", dataset, "--resamples", 10)
    assert evaluated.returncode == 0, evaluated.stderr
    assert "report.html" in s3.contents("used/run")


def away(monkeypatch, is_away) -> None:
    put = mirror.put_file

    def put_or_not(path: Path, url: Url) -> None:
        if is_away():
            raise StoreError(f"{url}: its server cannot be reached; check the network{mirror.GOES_ON}")
        put(path, url)

    monkeypatch.setattr(mirror, "put_file", put_or_not)


def test_a_store_that_is_away_for_a_while_ends_no_training(s3, dataset, whole, monkeypatch):
    asked = []

    def is_away() -> bool:
        asked.append(1)
        return 3 < len(asked) < 6

    away(monkeypatch, is_away)
    train(smoke(*OVERRIDES[len(QUIET) :]), Dataset(dataset), below("away/run"))
    there = s3.contents("away/run/fold-0")
    assert hashes(there) == hashes(whole)
    log = there["log.txt"].decode()
    assert log.count("its server cannot be reached; check the network; the work goes on here") == 2
    assert log.count("is as far as this machine again") == 1


def test_a_store_that_does_not_come_back_costs_nothing_but_the_same_command(s3, dataset, whole, monkeypatch):
    recipe, out = smoke(*OVERRIDES[len(QUIET) :]), below("gone/run")
    with monkeypatch.context() as patched:
        away(patched, lambda: True)
        with pytest.raises(StoreError, match="add --resume, and it goes up"):
            train(recipe, Dataset(dataset), out)
    assert s3.contents("gone/run/fold-0") == {}
    monkeypatch.setattr(stage_module.Stage, "train_epoch", lambda *_: pytest.fail("it was trained again"))
    train(recipe, Dataset(dataset), out, resume=True)
    assert hashes(s3.contents("gone/run/fold-0")) == hashes(whole)


class Killed(BaseException):
    pass


def killed(*_: object) -> None:
    raise Killed


@pytest.mark.parametrize("last_put", ["last.safetensors", STATE])
def test_what_was_trained_while_a_store_was_away_is_gone_on_with(s3, dataset, whole, monkeypatch, last_put):
    """It goes away amid the files of an epoch, or before it is known that the state is there."""
    recipe, out, puts = smoke(*OVERRIDES[len(QUIET) :]), below(f"amid/{last_put}/run"), []
    put, found = mirror.put_file, followed.listed

    def refuse(url: Url) -> None:
        if puts.count(last_put) == 2:
            raise StoreError(f"{url}: its server cannot be reached{mirror.GOES_ON}")

    def put_or_not(path: Path, url: Url) -> None:
        refuse(url)
        put(path, url)
        puts.append("/".join(url.parts[-len(Path(last_put).parts) :]))

    def listed_or_not(url: Url) -> list[Url]:
        refuse(url)
        return found(url)

    with monkeypatch.context() as patched:
        patched.setattr(mirror, "put_file", put_or_not)
        patched.setattr(followed, "listed", listed_or_not)
        patched.setattr(stage_module.FinalWeights, "choose", killed)
        with pytest.raises(Killed):
            train(recipe, Dataset(dataset), out)
    trained, epoch = [], stage_module.Stage.train_epoch
    monkeypatch.setattr(
        stage_module.Stage, "train_epoch", lambda self: (trained.append(self.config.name), epoch(self))[1]
    )
    train(recipe, Dataset(dataset), out, resume=True)
    assert trained == ["high"] * 3  # the first stage had been trained here
    assert hashes(s3.contents(f"amid/{last_put}/run/fold-0")) == hashes(whole)


@pytest.mark.parametrize("removed", ["*", "*.safetensors", "top-*.safetensors"])
def test_a_folder_whose_files_somebody_has_removed_takes_none_from_the_store(s3, dataset, whole, monkeypatch, removed):
    recipe, out = smoke(*OVERRIDES[len(QUIET) :]), below(f"tidied/{removed.count('*')}{len(removed)}/run")
    with monkeypatch.context() as patched:
        patched.setattr(stage_module.FinalWeights, "choose", killed)
        with pytest.raises(Killed):
            train(recipe, Dataset(dataset), out)
    tidied = [path for path in user_cache("urls").rglob(f"fold-0/**/{removed}") if path.is_file()]
    assert tidied
    for path in tidied:
        path.unlink()
    train(recipe, Dataset(dataset), out, resume=True)
    there = s3.contents("/".join((*out.parts[1:], "fold-0")))
    assert hashes(there) == hashes(whole)
    assert "stage low resumes after epoch 3" in there["log.txt"].decode()


def test_a_run_that_another_machine_has_gone_on_with_is_taken_from_the_store(s3, dataset, whole, tmp_path, monkeypatch):
    """The folder that a kill left on the first machine is older than what the store has."""
    recipe, out = smoke(*OVERRIDES[len(QUIET) :]), below("older/run")
    first, second = tmp_path / "first", tmp_path / "second"

    monkeypatch.setenv("XDG_CACHE_HOME", str(first))
    with monkeypatch.context() as patched:
        patched.setattr(stage_module.FinalWeights, "choose", killed)
        with pytest.raises(Killed):
            train(recipe, Dataset(dataset), out)
    left = user_cache("urls")
    assert list(left.rglob("last.safetensors"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(second))
    train(recipe, Dataset(dataset), out, resume=True)
    assert hashes(s3.contents("older/run/fold-0")) == hashes(whole)
    monkeypatch.setenv("XDG_CACHE_HOME", str(first))
    train(recipe, Dataset(dataset), out, resume=True)
    assert hashes(s3.contents("older/run/fold-0")) == hashes(whole)


def test_two_do_not_train_into_one_place(s3, dataset, monkeypatch):
    """The second one is refused; and the first ends when another has taken its place, as after a long sleep."""
    recipe, out = smoke(), below("two/run")
    epoch, refused = stage_module.Stage._close_epoch, []

    def close(self, *arguments: object) -> None:
        epoch(self, *arguments)
        if not refused:
            with pytest.raises(OutputError, match="another process trains in it") as refusal:
                train(recipe, Dataset(dataset), out, resume=True)
            refused.append(refusal)
            lock = f"{BUCKET}/two/run/fold-0/.lock"
            s3.files().pipe_file(lock, json.dumps({"owner": "another", "renewed": 1}).encode())
            time.sleep(0.5)

    monkeypatch.setattr("pleura.urls.lease.RENEW_S", 0.1)
    monkeypatch.setattr(stage_module.Stage, "_close_epoch", close)
    with pytest.raises(OutputError, match="another process trains in it, or this one could not renew"):
        train(recipe, Dataset(dataset), out)
    assert refused


def test_folds_below_a_url_are_pooled_there_and_gone_on_with(s3, pleura, dataset, tmp_path):
    recipe = smoke()
    summary = train_folds(recipe, Dataset(dataset), tmp_path / "here")
    out = f"s3://{BUCKET}/folds/run"
    words = ("train", SMOKE, *QUIET, "--data", dataset, "--out", out, "--fold")
    assert pleura(*words, 1).returncode == 0
    done = pleura(*words, "all", "--resume")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"{out}/folds.json"
    there, here = s3.contents("folds/run"), files(tmp_path / "here")
    assert hashes(there) == hashes(here)
    assert there["folds.json"] == here["folds.json"] == summary.file.read_bytes()
    assert there["out-of-fold.csv"] == here["out-of-fold.csv"]
    assert "holds fold 0 already" in pleura(*words, "all").stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [
        ("--parallel", 2),
        pytest.param(
            ("--ray", "local", "--workers", 2),
            marks=pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs ray, of pleura[cluster]"),
        ),
    ],
    ids=lambda how: how[0],
)
def test_folds_that_other_processes_train_go_up_from_there(s3, dataset, home, tmp_path, how):
    train_folds(smoke(), Dataset(dataset), tmp_path / "here")
    key = f"together{how[0]}/run"
    data, out = s3.fill(dataset, f"{key}/siim"), f"s3://{BUCKET}/{key}/folds"
    words = ("train", SMOKE, *QUIET, "--data", data, "--out", out, "--fold", "all", *how)
    code, text, err = s3.run(*words, home=home, OMP_NUM_THREADS="1")
    assert code == 0, err
    assert text.splitlines()[-1] == f"{out}/folds.json"
    there, here = s3.contents(f"{key}/folds"), files(tmp_path / "here")
    assert hashes(there) == hashes(here)
    assert (there["folds.json"], there["out-of-fold.csv"]) == (here["folds.json"], here["out-of-fold.csv"])


def test_an_ensemble_below_a_url_is_one_model(s3, pleura, dataset, tmp_path):
    (tmp_path / "other.yaml").write_text(SMOKE.read_text().replace("name: smoke", "name: other\nseed: 7"))
    members = "[{recipe: smoke, weight: 1}, {recipe: other.yaml, weight: 3}]"
    (tmp_path / "pair.yaml").write_text(f"name: pair\nmembers: {members}\n")
    out = f"s3://{BUCKET}/ensemble/run"
    words = ("train", tmp_path / "pair.yaml", *QUIET, "--data", dataset, "--out", out)
    done = pleura(*words)
    assert done.returncode == 0, done.stderr
    assert {"ensemble.json", "other/fold-0/best.safetensors"} <= s3.contents("ensemble/run").keys()
    assert pleura("evaluate", out, "--data", dataset, "--resamples", 10).returncode == 0
    others = pleura(
        "train", tmp_path / "pair.yaml", *QUIET, "training.lr=1", "--data", dataset, "--out", out, "--resume"
    )
    assert others.returncode == 0, others.stderr  # all is finished: nothing of it is trained again


def test_what_cannot_go_to_a_url_is_refused_before_anything_is_fetched(pleura, dataset, monkeypatch):
    out = f"s3://{BUCKET}/refused/run"
    shared = pleura("train", SMOKE, "--data", dataset, "--out", out, "--ray", "local")
    assert shared.returncode == 2
    assert "with --fold all only" in shared.stderr
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="take no URL as --out"):
        train(smoke(), Dataset(dataset), below("refused/run"))


def test_a_state_below_a_url_is_read_without_the_rest(s3, dataset):
    out = below("peeked/run")
    assert state_at(out / "fold-0", True, None) is None
    train(smoke(), Dataset(dataset), out)
    s3.requests.clear()
    state = state_at(out / "fold-0", True, None)
    assert state is not None
    assert state["data_sha256"] == Dataset(dataset).data_hash
    assert s3.counts(".safetensors")["GET"] == 0
    s3.files().pipe_file(f"{BUCKET}/peeked/run/fold-0/{STATE}", b"damaged")
    with pytest.raises(PleuraError):
        state_at(out / "fold-0", True, None)
