"""All folds of a recipe: in turn, side by side, gone on with, and what they say together."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest
from places import SMOKE

from pleura.config.parse import load_recipe
from pleura.data.dataset import Dataset
from pleura.errors import InputError, OutputError, PleuraError
from pleura.models.checkpoint import load_checkpoint
from pleura.training.folds import train_folds

SHORT = ("samples=0", "training.cases_per_epoch=8")


@pytest.fixture(scope="module")
def folds(dataset, tmp_path_factory):
    out = tmp_path_factory.mktemp("folds")
    return out, train_folds(load_recipe(SMOKE, SHORT), Dataset(dataset), out)


def test_every_case_is_scored_once_by_the_model_of_its_own_fold(folds, dataset):
    out, _ = folds
    rows = list(csv.DictReader((out / "out-of-fold.csv").read_text().splitlines()))
    cases = {case.image_id: case for case in Dataset(dataset).cases}
    assert {row["image_id"]: int(row["fold"]) for row in rows} == {key: case.fold for key, case in cases.items()}
    assert len(rows) == len(cases)


def test_the_summary_says_what_its_own_table_says(folds):
    out, summary = folds
    document = json.loads((out / "folds.json").read_text())
    rows = list(csv.DictReader((out / "out-of-fold.csv").read_text().splitlines()))
    dice = np.mean([float(row["siim_dice"]) for row in rows])
    assert document["pooled_by_triplets_tuned_on_the_other_folds"]["siim_dice"][0] == pytest.approx(dice, abs=1e-5)
    assert document["floor"] == pytest.approx(np.mean([row["positive"] == "0" for row in rows]), abs=1e-6)
    values = [metrics["auroc"] for metrics in document["folds"].values()]
    mean, sd = document["mean_and_sd_over_folds"]["auroc"]
    assert (mean, sd) == pytest.approx((np.mean(values), np.std(values, ddof=1)), abs=1e-5)
    assert summary.spread("auroc") == pytest.approx((mean, sd), abs=1e-5)


def test_no_fold_is_judged_by_a_triplet_that_its_own_cases_chose(folds, dataset, monkeypatch):
    import pleura.training.folds as module

    out, _ = folds
    counts, data = [], Dataset(dataset)

    def seen(histograms, select):
        counts.append(len(histograms))
        return found(histograms, select)

    found = module.best_triplet
    monkeypatch.setattr(module, "best_triplet", seen)
    module.summarise(data, out, [0, 1, 2])
    assert counts == [len(data) - len(data.indices("val", fold)) for fold in (0, 1, 2)]


def test_folds_in_the_way_are_refused_and_finished_ones_left_alone(folds, dataset):
    out, before = folds
    with pytest.raises(OutputError, match="holds fold 0 already"):
        train_folds(load_recipe(SMOKE, SHORT), Dataset(dataset), out)
    written = (out / "fold-1" / "metrics.csv").stat().st_mtime_ns
    after = train_folds(load_recipe(SMOKE, SHORT), Dataset(dataset), out, resume=True)
    assert (out / "fold-1" / "metrics.csv").stat().st_mtime_ns == written
    assert after.cross_fitted == before.cross_fitted


def test_other_settings_of_finished_folds_are_refused_while_a_fold_is_to_train(folds, dataset, tmp_path):
    out = tmp_path / "folds"
    shutil.copytree(folds[0], out)
    before = (out / "fold-0" / "recipe.yaml").read_bytes()
    other = load_recipe(SMOKE, (*SHORT, "training.batch_size=2"))
    train_folds(other, Dataset(dataset), out, resume=True, parallel=2)  # nothing is left to train
    assert (out / "fold-0" / "recipe.yaml").read_bytes() == before
    assert not (out / "recipe.yaml").exists()
    shutil.rmtree(out / "fold-2")
    with pytest.raises(OutputError, match=r"stages.0.batch_size was 4, is 2, but that stage is finished"):
        train_folds(other, Dataset(dataset), out, resume=True)
    assert not (out / "fold-2").exists()


@pytest.mark.parametrize("parallel", [1, 2])
def test_a_teacher_that_leaks_into_a_later_fold_is_refused_before_the_first_trains(run, dataset, tmp_path, parallel):
    recipe = load_recipe(SMOKE, (*SHORT, f"stages.high.labels={{teacher: {run}}}"))
    with pytest.raises(InputError, match=r"has learned from \d+ of the validation cases of fold 1; .* another teacher"):
        train_folds(recipe, Dataset(dataset), tmp_path, parallel=parallel)
    assert not list(tmp_path.iterdir())


def test_folds_side_by_side_take_the_devices_that_they_were_given(monkeypatch):
    import torch

    from pleura.training.folds import _environment

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert [_environment(place, 3)["CUDA_VISIBLE_DEVICES"] for place in range(3)] == ["2", "5", "2"]


@pytest.mark.slow
def test_folds_side_by_side_end_in_the_same_weights_and_a_failing_one_is_named(folds, dataset, tmp_path):
    recipe = load_recipe(SMOKE, SHORT)
    # A file where the run of fold 2 has to go: that fold fails, the others are done.
    (tmp_path / "fold-2").write_text("in the way")
    with pytest.raises(PleuraError, match="fold 2 failed"):
        train_folds(recipe, Dataset(dataset), tmp_path, parallel=3)
    for fold in ("fold-0", "fold-1"):
        ours = load_checkpoint(tmp_path / fold / "best.safetensors").weights
        theirs = load_checkpoint(folds[0] / fold / "best.safetensors").weights
        assert all(np.allclose(ours[key].numpy(), theirs[key].numpy(), atol=1e-5) for key in theirs)
