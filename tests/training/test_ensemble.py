"""Several recipes as one model: trained in turn, averaged by weight."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from places import SMOKE

from pleura.config.bundled import load_experiment, load_members
from pleura.config.parse import load_recipe
from pleura.config.recipe import Ensemble
from pleura.data.dataset import Dataset
from pleura.decision.calibration import Calibration
from pleura.decision.triplet import LEVELS, Triplet
from pleura.errors import CheckpointError, ConfigError, OutputError
from pleura.evaluation.evaluate import evaluate
from pleura.inference.batch import model_name
from pleura.inference.model_files import ENSEMBLE, find_model
from pleura.inference.predictor import Predictor
from pleura.models.checkpoint import load_checkpoint, save_checkpoint
from pleura.training.ensemble import train_ensemble

RULE = "triplet: {top_threshold: 0.5, min_pixels: 2048, bottom_threshold: 0.4}\n"
ONE_STEP = ["training.cases_per_epoch=4", "samples=0"]


def write(folder, members="[{recipe: smoke, weight: 1}, {recipe: other.yaml, weight: 3}]", more=""):
    """An ensemble of the smoke recipe and of one that differs in seed and size."""
    folder.mkdir(parents=True, exist_ok=True)
    other = SMOKE.read_text().replace("name: smoke", "name: other\nseed: 7\ntta: flip").replace("64", "32")
    (folder / "other.yaml").write_text(other)
    (folder / "pair.yaml").write_text(f"name: pair\nmembers: {members}\n{more}")
    return folder / "pair.yaml"


@pytest.fixture(scope="module")
def out(dataset, tmp_path_factory):
    """A finished ensemble. Not to be written to."""
    folder = tmp_path_factory.mktemp("ensemble")
    ensemble = load_experiment(write(folder / "recipes", more=RULE), ONE_STEP)
    return train_ensemble(ensemble, ONE_STEP, Dataset(dataset), folder / "run")


@pytest.fixture
def copy(out, tmp_path):
    return shutil.copytree(out, tmp_path / "copy", ignore=shutil.ignore_patterns("state", "*.png", "low*", "high*"))


def described(folder, **changes):
    path = folder / ENSEMBLE
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def test_probabilities_are_the_mean_of_the_members_by_weight(out, dataset):
    squares = np.asarray(Dataset(dataset).images[:3])
    smoke = Predictor.load(out / "smoke").probabilities(squares)
    other = torch.from_numpy(Predictor.load(out / "other").probabilities(squares))  # of 32 px, mirrored
    enlarged = torch.nn.functional.interpolate(other[:, None], size=64, mode="bilinear")[:, 0].numpy()
    both = Predictor.load(out).probabilities(squares)
    np.testing.assert_allclose(both, 0.25 * smoke + 0.75 * enlarged, atol=1e-6)


def test_each_member_is_mirrored_as_its_own_recipe_says_unless_told_otherwise(out):
    predictor = Predictor.load(out)
    assert ([engine.tta for engine in predictor.engines], predictor.tta) == (["none", "flip"], "mixed")
    assert Predictor.load(out, tta="flip").tta == "flip"
    assert [engine.tta for engine in Predictor.load(out, tta="none").engines] == ["none", "none"]


def test_the_given_rule_holds_and_without_one_the_members_are_averaged_by_weight(out, copy):
    assert Predictor.load(out).triplet == Triplet(0.5, 2048, 0.4)
    for name, rule in (("smoke", Triplet(0.8, 400, 0.2)), ("other", Triplet(0.4, 800, 0.4))):
        path = copy / name / "fold-0" / "best.safetensors"
        save_checkpoint(path, replace(load_checkpoint(path), triplet=rule))
    made = Predictor.load(described(copy, triplet=None)).triplet
    assert (made.top_threshold, made.min_pixels, made.bottom_threshold) == pytest.approx(
        (0.5, 700, 0.35), abs=1 / LEVELS
    )


@pytest.mark.parametrize("factor", [0.01, 1, 30])
def test_only_the_ratio_of_weights_counts(out, copy, factor):
    members = [{"folder": "smoke", "weight": factor}, {"folder": "other", "weight": 3 * factor}]
    np.testing.assert_allclose(Predictor.load(described(copy, members=members)).weights, [0.25, 0.75])


def test_a_member_of_two_folds_has_its_weight_once(copy):
    for name in ("smoke", "other"):
        shutil.copytree(copy / name / "fold-0", copy / name / "fold-1")
    np.testing.assert_allclose(Predictor.load(copy).weights, [0.125, 0.125, 0.375, 0.375])


def test_an_ensemble_is_evaluated_like_any_model(out, dataset, tmp_path):
    done = evaluate(out, dataset, resamples=10, out=tmp_path).report
    assert "was chosen on" in done.split
    assert not done.triplet_tuned_on_these_cases  # the rule was given
    assert json.loads((tmp_path / "report.json").read_text())["tta"] == "mixed"


def test_an_ensemble_predicts_from_the_command_line_and_its_results_are_its_own(out, phantoms, tmp_path, pleura):
    asked = ("predict", phantoms / "dicom", "--model", out, "--out", tmp_path / "found", "--write", "rle")
    assert pleura(*asked).returncode == 0
    assert "were done by an earlier run" in pleura(*asked).stdout
    refused = pleura(*asked, "--tta", "flip")
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "another model or other settings" in refused.stderr


def test_other_weights_make_another_model(out, copy):
    before = model_name(copy)
    assert before == model_name(out)
    members = [{"folder": "smoke", "weight": 1}, {"folder": "other", "weight": 2}]
    assert model_name(described(copy, members=members)) != before


def test_overrides_reach_every_member(out):
    for name, seed in (("smoke", 42), ("other", 7)):
        recipe = load_recipe(out / name / "fold-0" / "recipe.yaml")
        assert ([stage.cases_per_epoch for stage in recipe.stages], recipe.seed) == ([4, 4], seed)


def test_an_interrupted_ensemble_goes_on_and_leaves_what_is_finished(dataset, tmp_path, monkeypatch):
    ensemble = load_experiment(write(tmp_path), ONE_STEP)
    from pleura.training.train import train

    def interrupted(recipe, *arguments, **options):
        if recipe.name == "other":
            raise KeyboardInterrupt
        return train(recipe, *arguments, **options)

    monkeypatch.setattr("pleura.training.ensemble.train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_ensemble(ensemble, ONE_STEP, Dataset(dataset), tmp_path / "run")
    assert not (tmp_path / "run" / ENSEMBLE).exists()
    finished = (tmp_path / "run" / "smoke" / "fold-0" / "best.safetensors").stat()
    monkeypatch.setattr("pleura.training.ensemble.train", train)
    with pytest.raises(OutputError, match="--resume"):
        train_ensemble(ensemble, ONE_STEP, Dataset(dataset), tmp_path / "run")
    train_ensemble(ensemble, ONE_STEP, Dataset(dataset), tmp_path / "run", resume=True)
    after = (tmp_path / "run" / "smoke" / "fold-0" / "best.safetensors").stat()
    assert (after.st_ino, after.st_mtime_ns) == (finished.st_ino, finished.st_mtime_ns)
    assert len(Predictor.load(tmp_path / "run").engines) == 2


def test_a_folder_of_other_members_is_refused(copy, dataset, tmp_path):
    ensemble = load_experiment(write(tmp_path, "[{recipe: other.yaml}]"))
    with pytest.raises(OutputError, match=r"other members \(smoke, other\); choose another --out"):
        train_ensemble(ensemble, [], Dataset(dataset), copy, resume=True)


def test_a_missing_member_is_named(copy):
    shutil.rmtree(copy / "other")
    with pytest.raises(CheckpointError, match="other: this member of the ensemble is missing"):
        Predictor.load(copy)


def test_members_of_different_folds_are_refused(copy):
    shutil.copytree(copy / "smoke" / "fold-0", copy / "smoke" / "fold-1")
    with pytest.raises(CheckpointError, match=r"different folds \(smoke: fold-0, fold-1; other: fold-0\)"):
        Predictor.load(copy)


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 9},
        {"members": []},
        {"members": [{"folder": "smoke"}]},
        {"members": [{"folder": "smoke", "weight": 0}]},
        {"members": [{"folder": "smoke", "weight": float("nan")}]},
        {"triplet": {"threshold": 0.5}},
        {"members": 3},
    ],
)
def test_a_damaged_description_is_refused_in_one_line(copy, changes):
    with pytest.raises(CheckpointError, match="is no description of an ensemble") as caught:
        Predictor.load(described(copy, **changes))
    assert "\n" not in str(caught.value)


EDITS = (None, "x", 0, -1, 2.5, True, [], ["x"], [None], {}, {"x": 1}, float("nan"), float("inf"), 1e308, 10**400)


def test_a_description_that_was_edited_is_refused_in_one_line_or_does_no_harm(copy, dataset):
    square, whole = np.asarray(Dataset(dataset).images[:1]), json.loads((copy / ENSEMBLE).read_text())
    whole |= {"calibration": Calibration(2.0).header(), "tuned_on": ["0123abcd", "0" * 32]}
    edits = [whole | {key: value} for key in whole for value in EDITS]
    edits += [{key: value for key, value in whole.items() if key != left_out} for left_out in whole]
    for part in ("triplet", "calibration"):
        edits += [whole | {part: whole[part] | {key: value}} for key in whole[part] for value in EDITS]
    first, *others = whole["members"]
    edits += [whole | {"members": [first | {key: value}, *others]} for key in first for value in EDITS]
    harmless = 0
    for number, edit in enumerate(edits):
        (copy / ENSEMBLE).write_text(json.dumps(edit))
        try:
            files = find_model(copy)
        except CheckpointError as error:
            words = str(error)
            if "\n" in words or not words.startswith(str(copy)):
                pytest.fail(f"{edit}: {words}")
            continue
        harmless += 1
        if number % 20 == 0:
            assert np.isfinite(Predictor.load(copy).probabilities(square)).all()
        assert sum(files.weights) == pytest.approx(1)
    assert 5 < harmless < len(edits) / 2


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "[" * 100_000, "null", '"text"', "NaN"])
def test_a_file_that_is_no_description_is_refused(copy, content):
    (copy / ENSEMBLE).write_text(content)
    with pytest.raises(CheckpointError, match="is no description of an ensemble"):
        Predictor.load(copy)


@pytest.mark.parametrize(
    ("members", "more", "message"),
    [
        ("[{recipe: smoke, weight: 0}]", "", "members.0.weight"),
        ("[{recipe: smoke, wieght: 1}]", "", "members.0.wieght: unknown setting; did you mean weight?"),
        ("[]", "", "members: "),
        ("[{recipe: smoke}, {recipe: smoke}]", "", "two members are named 'smoke'"),
        ("[{recipe: smok}]", "", "there is no recipe 'smok'"),
        ("[{recipe: no.yaml}]", "", "no.yaml: cannot be read"),
        ("[{recipe: pair.yaml}]", "", "is an ensemble"),
        ("[{recipe: smoke}]", "triplet: {min_pixels: -1}\n", "triplet.min_pixels"),
        ("[{recipe: smoke}]", "stages: []\n", "stages: unknown setting"),
    ],
)
def test_a_wrong_ensemble_is_refused_by_name(tmp_path, members, more, message):
    with pytest.raises(ConfigError) as caught:
        load_experiment(write(tmp_path, members, more))
    assert message in str(caught.value)


def test_an_override_that_fits_no_member_is_refused_before_any_data_is_read(tmp_path):
    with pytest.raises(ConfigError, match=r"training\.lr"):
        load_experiment(write(tmp_path), ["training.lr=-1"])


def test_members_may_be_named_or_lie_beside_the_file(tmp_path, monkeypatch):
    path = write(tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    ensemble = load_experiment(path.relative_to(tmp_path))
    assert isinstance(ensemble, Ensemble)
    monkeypatch.chdir("/")
    assert [(name, recipe.seed) for name, recipe in load_members(ensemble).items()] == [("smoke", 42), ("other", 7)]
