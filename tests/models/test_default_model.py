"""The model that comes with pleura: it is there, says what it is, and finds today what it found when it was put there.

`python tests/models/test_default_model.py` writes what it finds now, after another model has been put in its place.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from places import ROOT

import pleura as package
from pleura.cli.train import next_step
from pleura.config.bundled import load_experiment
from pleura.config.parse import load_card, parse_recipe
from pleura.data.phantoms.radiographs import make_phantom
from pleura.decision.triplet import image_score
from pleura.errors import CheckpointError, OutputError
from pleura.evaluation.card import card
from pleura.evaluation.evaluate import _command, evaluate
from pleura.evaluation.tune import TuneSettings, tune
from pleura.files import hash_files
from pleura.inference.model_files import find_model
from pleura.inference.predictor import Predictor
from pleura.models import default as default_module
from pleura.models.checkpoint import load_checkpoint, update_header
from pleura.models.default import DEFAULT, FILE
from pleura.models.identity import weights_hash

STORED = Path(__file__).with_name("default_model.npz")
PHANTOMS = ((5, True), (6, False))
EVERY, TOLERANCE, MOST_BYTES = 8, 1e-3, 15_000_000


def found_by_default(precision: str = "float32") -> tuple[np.ndarray, np.ndarray]:
    """Every eighth pixel of the probabilities of two phantoms, and their image scores; without mirroring."""
    predictor = Predictor.load(tta="none", precision=precision)
    size_px = predictor.prepared_px
    squares = np.stack([make_phantom(seed, size_px, positive).image for seed, positive in PHANTOMS])
    probabilities = predictor.probabilities(np.rint(squares * 255).astype(np.uint8))
    return probabilities[:, ::EVERY, ::EVERY], np.array([image_score(each) for each in probabilities])


def write_stored() -> None:
    """Store what the default model finds, with its hash."""
    probabilities, scores = found_by_default()
    # Sixteen bits each: the file stays small, and the rounding is a hundredth of the tolerance.
    rounded = np.rint(probabilities * 65535).astype(np.uint16)
    np.savez_compressed(STORED, probabilities=rounded, scores=scores, sha256=np.array(hash_files(FILE)))


@pytest.fixture(scope="module")
def stored():
    with np.load(STORED) as file:
        return dict(file)


def test_default_weights_find_what_they_found_when_they_were_added(stored):
    remake = "another model was put in its place: run python tests/models/test_default_model.py"
    assert str(stored["sha256"]) == hash_files(FILE), remake
    probabilities, scores = found_by_default()
    np.testing.assert_allclose(probabilities, stored["probabilities"] / 65535, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(scores, stored["scores"], rtol=0, atol=TOLERANCE)


@pytest.mark.usefixtures("bfloat16_is_faster")
def test_it_predicts_in_bfloat16_where_that_is_faster_unless_float32_is_asked_for():
    # On its validation cases Dice on positives changes by 0.0001 and no decision (docs/lab-log.md).
    (found,) = Predictor.load(engine="torch").precisions
    assert found.name == "bfloat16"
    assert Predictor.load(engine="torch", precision="float32").precision == "float32"
    assert Predictor.load(precision="auto", engine="onnxruntime").precision == "float32"


def test_its_header_says_what_bfloat16_changes_in_these_weights_by_this_rule():
    checkpoint = load_checkpoint(FILE)
    change = checkpoint.bfloat16
    assert change.weights_sha256 == weights_hash(checkpoint.weights)
    assert change.triplet == asdict(checkpoint.triplet)
    assert (change.cases, change.positives) == tuple(checkpoint.scores["tuned"][key] for key in ("cases", "positives"))
    assert change.dice_on_positives == pytest.approx(checkpoint.scores["tuned"]["in_sample"], abs=1e-4)


def test_in_bfloat16_it_finds_what_it_finds_in_float32_but_for_rounding(stored):
    probabilities, scores = found_by_default("bfloat16")
    assert 0 < np.abs(probabilities - stored["probabilities"] / 65535).mean() < 0.003
    np.testing.assert_allclose(scores, stored["scores"], rtol=0, atol=0.15)


def test_what_is_stored_is_small_and_not_all_one_number(stored):
    assert STORED.stat().st_size <= 60_000
    assert stored["probabilities"].std() > 0


def test_file_is_small_and_says_all_that_its_user_has_to_know():
    assert FILE.stat().st_size <= MOST_BYTES
    checkpoint = load_checkpoint(FILE)
    assert not checkpoint.triplet.finds_nothing
    assert checkpoint.calibration
    assert checkpoint.scores["tuned"]["nested"]
    assert {"title", "intended_use", "known_failures", "licence"} <= checkpoint.card.keys()
    assert checkpoint.seen.train
    assert checkpoint.seen.val
    assert not set(checkpoint.seen.train) & set(checkpoint.seen.val)
    assert checkpoint.provenance["packed_from"]


def test_recipe_that_comes_with_pleura_is_the_one_it_was_trained_by():
    assert "make model DATA=DATA" in card()
    # Settings that were made since then are at their defaults.
    trained, bundled = (
        each.model_dump(mode="json") for each in (parse_recipe(load_checkpoint(FILE).recipe), load_experiment(DEFAULT))
    )
    for recipe in (trained, bundled):
        recipe["model"].pop("pretrained")  # where the encoder's weights lay
        for stage in recipe["stages"]:
            stage["labels"].pop("weights")  # by the names that its dataset has; `pleura card` prints them as SETTINGS
    assert trained == bundled


def test_recipe_anchor_and_cost_are_those_of_the_checkpoint():
    checkpoint, recipe = load_checkpoint(FILE), load_experiment(DEFAULT)
    measured = checkpoint.card["evaluation"]["metrics"]
    for key in ("dice_on_positives", "auroc"):
        value, low, high = (measured[key][name] for name in ("value", "low", "high"))
        assert f"{value:.4f} ({low:.4f} to {high:.4f})" in recipe.anchor
    assert f"{len(checkpoint.seen.val)} validation cases" in recipe.anchor
    assert f"{len(checkpoint.seen.train):,} training cases" in recipe.cost
    assert f"Measured, {checkpoint.provenance['training_seconds'] / 60:.0f} minutes" in recipe.cost
    assert f"{FILE.stat().st_size / 1e6:.1f} MB" in (ROOT / "README.md").read_text()


def test_texts_of_its_card_count_cases_as_its_evaluation_does():
    texts = load_card(ROOT / "recipes" / "cards" / "default.yaml").model_dump()
    checkpoint = load_checkpoint(FILE)
    assert texts == {key: value for key, value in checkpoint.card.items() if key != "evaluation"}
    counts = checkpoint.card["evaluation"]["label_sources"]
    truth = ("ground-truth", "nih-positive", "nih-negative")

    def counted(part: str, of_truth: bool) -> list[int]:
        rows = [row for row in counts[part] if (row["label_source"] in truth) is of_truth]
        return [sum(row[key] for row in rows) for key in ("positives", "negatives")]

    learned = (*counted("train", True), *counted("train", False))
    words = (
        "Training: {} positives and {} negatives with ground truth, and {} positives and {:,} negatives with "
        "pseudo-labels"
    )
    assert words.format(*learned) in " ".join(texts["data"])
    words = "Validation: {} positives and {} negatives, ground truth only"
    assert words.format(*counted("val", True)) in " ".join(texts["data"])
    assert counted("val", False) == [0, 0]


def test_load_without_a_name_is_the_default_model():
    predictors = [package.load(), package.load(DEFAULT), package.load(FILE)]
    image = (make_phantom(1, 64).image * 255).astype(np.uint8)
    first, *others = (predictor.predict(image).probabilities for predictor in predictors)
    assert all(np.array_equal(first, other) for other in others)


def test_predict_without_a_model_uses_it_and_says_so(pleura, phantoms, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / DEFAULT).write_text("a file of this name changes nothing")
    (tmp_path / "in").mkdir()
    shutil.copy(next((phantoms / "dicom").iterdir()), tmp_path / "in")
    done = pleura("predict", tmp_path / "in", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    name = f"the default model of pleura {package.__version__} (sha256 {hash_files(FILE)[:12]})"
    assert f"found by {name}" in done.stdout
    first = json.loads((tmp_path / "out" / "journal.jsonl").read_text().splitlines()[0])
    assert first["model"] == name
    assert (tmp_path / "out" / "predictions.csv").read_text().count("\n") == 2
    again = pleura("predict", tmp_path / "in", "--out", tmp_path / "out", "--model", FILE)
    assert "1 was done by an earlier run" in again.stdout


def test_another_model_is_not_said_to_be_the_default_one(pleura, phantoms, run, tmp_path):
    done = pleura("predict", next((phantoms / "dicom").iterdir()), "--model", run, "--out", tmp_path)
    assert "default model" not in done.stdout


def test_word_is_this_model_whatever_lies_there_and_with_a_dot_it_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = tmp_path / DEFAULT / "fold-0" / "best.safetensors"
    own.parent.mkdir(parents=True)
    own.touch()
    assert [find_model(word).checkpoints for word in (DEFAULT, Path(DEFAULT))] == [[FILE]] * 2
    for typed in (f"./{DEFAULT}", f"{DEFAULT}/", tmp_path / DEFAULT):
        assert find_model(typed).checkpoints == [own], typed


def test_folder_of_that_name_is_a_member_of_an_ensemble_like_any_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / DEFAULT / "fold-0").mkdir(parents=True)
    (tmp_path / DEFAULT / "fold-0" / "best.safetensors").touch()
    members = [{"folder": DEFAULT, "weight": 1}]
    (tmp_path / "ensemble.json").write_text(json.dumps({"format": 1, "members": members, "triplet": None}))
    assert find_model(".").checkpoints == [Path(DEFAULT, "fold-0", "best.safetensors")]


def test_commands_take_the_word_for_this_model_and_the_dot_for_a_path(pleura, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / DEFAULT).mkdir()
    for words in (("card",), ("card", DEFAULT)):
        done = pleura(*words)
        assert hash_files(FILE) in done.stdout, done.stderr
    some = ("--data", "d", "--out", "o.safetensors")
    for words in (
        ("card", "./default"),
        ("pack", "./default", *some[2:]),
        ("evaluate", "./default", *some),
        ("tune", "./default", *some),
        ("recalibrate", "./default", *some),
        ("predict", "x.dcm", "--model", "./default", "--out", "o"),
    ):
        done = pleura(*words)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1), words
        assert done.stderr.startswith(f"pleura: {tmp_path / DEFAULT}: "), words


def test_what_to_do_next_with_a_run_of_that_name_is_about_the_run():
    assert list(next_step(Path("m"), Path(DEFAULT), Path("siim")))[1] == "next: pleura evaluate ./default --data siim"


def test_command_of_a_report_runs_as_it_stands(tmp_path, monkeypatch):
    ran = SimpleNamespace(precision="float32", engine="torch")
    asked, exact = (Path("some/siim"), "val", None, ran, 10), "--precision float32"
    default = f"pleura evaluate default --data siim --split val {exact} --engine torch --resamples 10 --out report"
    assert _command(FILE, *asked) == default
    assert _command(Path("runs/default"), *asked).startswith("pleura evaluate ./default --data")
    assert _command(Path("run"), *asked) == f"pleura evaluate run --data siim --split val {exact} --resamples 10"


@pytest.mark.parametrize("name", [DEFAULT, FILE], ids=["by its name", "by its path"])
def test_nothing_is_written_into_it_nor_beside_it(dataset, tmp_path, name):
    before, beside = FILE.read_bytes(), sorted(FILE.parent.iterdir())
    with pytest.raises(OutputError, match=r"stays as it is; name a file for a tuned copy with --out$"):
        tune(Path(name), dataset, TuneSettings(split="all"))
    with pytest.raises(OutputError, match=r"stays as it is; name a folder for its report with --out$"):
        evaluate(Path(name), dataset)
    with pytest.raises(OutputError, match="stays as it is"):
        update_header(FILE, {"calibration": None})
    (tmp_path / "link.safetensors").symlink_to(FILE)
    with pytest.raises(OutputError, match="stays as it is"):
        update_header(tmp_path / "link.safetensors", {"calibration": None})
    assert (FILE.read_bytes(), sorted(FILE.parent.iterdir())) == (before, beside)


@pytest.fixture
def stand_in(run, tmp_path, monkeypatch):
    """A tiny model in the place of the default one, of which each command would take seconds an image."""
    from pleura.export.pack import pack

    file = tmp_path / "package" / "default.safetensors"
    file.parent.mkdir()
    pack(run, file)
    monkeypatch.setattr(default_module, "FILE", file)
    return file


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """A few phantoms that no model here has seen, at the size of the tests' own."""
    from pleura.data.phantoms.dicom_files import write_phantom_dataset
    from pleura.data.prepare import PrepareSettings, prepare

    folder = tmp_path_factory.mktemp("local")
    write_phantom_dataset(folder, n_patients=10, seed=9, size_px=64)
    masks = (folder / "masks.csv",)
    prepare(PrepareSettings(folder / "dicom", masks, folder / "dataset", size_px=64, folds=2, workers=1))
    return folder / "dataset"


def test_every_command_that_takes_a_model_takes_the_word_default(pleura, stand_in, local, tmp_path):
    few = ("--data", local, "--resamples", 10)
    tuned = ("tune", DEFAULT, *few, "--split", "all", "--out", tmp_path / "tuned.safetensors")
    site = ("recalibrate", DEFAULT, "--data", local, "--out", tmp_path / "site.safetensors")
    for words in (
        ("evaluate", DEFAULT, *few, "--out", tmp_path / "report"),
        ("doctor", DEFAULT, "--data", local),
        ("pack", DEFAULT, "--out", tmp_path / "copy.safetensors"),
        ("compare", DEFAULT, tmp_path / "copy.safetensors", *few),
        tuned,
        site,
    ):
        done = pleura(*words)
        assert done.stderr == "", words
        assert done.returncode == 0 or words[0] == "doctor", done.stdout
    copies = [load_checkpoint(tmp_path / name).weights for name in ("copy.safetensors", "tuned.safetensors")]
    ours = load_checkpoint(stand_in).weights
    assert all(np.array_equal(copy[key], ours[key]) for copy in copies for key in ours)
    assert (tmp_path / "tuned.tune.json").exists()
    assert load_checkpoint(tmp_path / "tuned.safetensors").scores["tuned"]["split"] == "all"
    again = pleura(*tuned)
    assert (again.returncode, again.stderr.count("is there already; choose another --out\n")) == (1, 1)


def test_tuned_copy_is_of_one_checkpoint(run, dataset, tmp_path):
    for fold in (0, 1):
        (tmp_path / "run" / f"fold-{fold}").mkdir(parents=True)
        shutil.copy(run / "fold-0" / "best.safetensors", tmp_path / "run" / f"fold-{fold}")
    with pytest.raises(CheckpointError, match="is several checkpoints, or an ensemble; name one checkpoint, such as"):
        tune(tmp_path / "run", dataset, out=tmp_path / "tuned.safetensors")


def test_installation_without_it_says_so_in_one_line(pleura, tmp_path, monkeypatch):
    monkeypatch.setattr(default_module, "FILE", tmp_path / "default.safetensors")
    with pytest.raises(CheckpointError, match=r"default\.safetensors: the model that comes with pleura is missing"):
        package.load()
    done = pleura("predict", "x.dcm", "--out", tmp_path / "out")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "install pleura again, or name a checkpoint of yours" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("model", ["s3://models/run", Path("s3://models/run")])
def test_a_url_where_none_is_taken_is_refused_as_such(model):
    with pytest.raises(CheckpointError, match=r"^s3://models/run: is a URL, .* name a file of this machine"):
        default_module.model_path(model)


if __name__ == "__main__":
    write_stored()
