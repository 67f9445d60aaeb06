"""Runs in bfloat16 on a CPU: bit-exact when resumed, and another precision is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from trainings import low_alone, rows_of, same, smoke, weights_of

from pleura.data.dataset import Dataset
from pleura.evaluation.scoring import measure_cases
from pleura.inference.predictor import Predictor
from pleura.models.checkpoint import load_checkpoint, load_state, save_state
from pleura.training.devices import build_accelerator
from pleura.training.learner import Learner
from pleura.training.losses import total_loss
from pleura.training.run import METRICS, STATE
from pleura.training.train import train

BF16 = ("precision=bfloat16", "save_minutes=0")
EMA = "training.averaging={ema_decay: 0.5, hand_on: ema}"


def stopped(recipe, dataset: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train until the second stage has begun, as if the run were killed then."""
    import pleura.training.stage as module

    steps = iter(range(3))

    def three_steps(*arguments):
        next(steps)
        return total_loss(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(module, "total_loss", three_steps)
        with pytest.raises(StopIteration):
            train(recipe, Dataset(dataset), out)


def log_of(fold: Path) -> str:
    return (fold / "log.txt").read_text()


def test_a_run_in_bfloat16_that_was_resumed_ends_in_the_weights_of_one_that_was_not(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole = train(smoke(*BF16, EMA), Dataset(dataset), tmp_path / "whole")
    stopped(smoke(*BF16, EMA), dataset, tmp_path / "killed", monkeypatch)
    resumed = train(smoke(*BF16, EMA), Dataset(dataset), tmp_path / "killed", resume=True)
    assert same(weights_of(whole, "last"), weights_of(resumed, "last"))
    assert same(weights_of(whole, "high-ema"), weights_of(resumed, "high-ema"))
    assert "computes in bfloat16 (as asked for)" in log_of(resumed)
    assert "and computed in" not in log_of(resumed)


def test_weights_statistics_and_averages_stay_float32_and_the_header_says_what_was_computed_in(
    dataset: Path, tmp_path: Path, finished: Path
):
    fold = train(low_alone("precision=bfloat16", EMA), Dataset(dataset), tmp_path)
    found = load_checkpoint(fold / "low-best.safetensors")
    assert {each.dtype for each in found.weights.values()} == {torch.float32, torch.int64}
    optimizer = load_state(fold / STATE)["optimizer"]["state"]
    assert {each.dtype for part in optimizer.values() for each in part.values()} == {torch.float32}
    assert found.recipe["precision"] == found.provenance["precision"] == "bfloat16"
    assert load_checkpoint(finished / "best.safetensors").provenance["precision"] == "float32"
    # Near what float32 learns from the same steps, and not equal to it.
    assert not same(found.weights, weights_of(finished, "low-best"))
    losses = [float(rows_of(each / METRICS)[0]["loss"]) for each in (fold, finished)]
    assert losses[0] == pytest.approx(losses[1], rel=0.01)


@pytest.mark.usefixtures("bfloat16_is_faster")
def test_a_run_in_bfloat16_shows_at_its_end_what_that_changes_in_its_predictions(
    dataset: Path, tmp_path: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
):
    data = Dataset(dataset)
    fold = train(smoke("precision=auto", EMA), data, tmp_path)
    best, val = load_checkpoint(fold / "best.safetensors"), data.indices("val", 0)
    found = [
        measure_cases(Predictor([best], precision=precision), data, val).by(best.triplet)
        for precision in ("float32", "bfloat16")
    ]
    exact, fast = (float(each.dice[each.positive].mean()) for each in found)
    assert best.bfloat16.dice_on_positives == pytest.approx(exact, abs=1e-9)
    assert best.bfloat16.dice_change == pytest.approx(fast - exact, abs=1e-9)
    assert best.bfloat16.largest_score_change == pytest.approx(
        np.abs(found[0].scores - found[1].scores).max(), abs=1e-6
    )
    assert (best.bfloat16.cases, best.bfloat16.data_sha256) == (len(val), data.data_hash)
    assert f"high: {best.bfloat16.verdict}" in log_of(fold)
    # Of too few cases; of enough it would predict in bfloat16 now.
    assert Predictor([best]).precision == "float32"
    monkeypatch.setattr("pleura.models.bfloat16.FEWEST_CASES", 1)
    monkeypatch.setattr("pleura.models.bfloat16.MOST_DICE_CHANGE", 1.0)
    monkeypatch.setattr("pleura.models.bfloat16.MOST_DECISIONS_CHANGED", 1.0)
    assert Predictor([best]).precision == "bfloat16"
    others = [load_checkpoint(fold / "low.safetensors"), load_checkpoint(finished / "best.safetensors")]
    assert [each.bfloat16 for each in others] == [None, None]


def test_a_run_that_goes_on_in_another_precision_says_so(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    stopped(smoke("precision=auto", "save_minutes=0"), dataset, tmp_path, monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr("pleura.inference.precision.bfloat16_gain", lambda training: 2.0)
        fold = train(smoke("precision=auto", "save_minutes=0"), Dataset(dataset), tmp_path, resume=True)
    changed = "resumed with another setting, from here on: it computes in bfloat16, and computed in float32"
    assert log_of(fold).count(changed) == 1
    assert load_checkpoint(fold / "best.safetensors").provenance["precision"] in ("float32", "bfloat16")
    assert load_state(fold / STATE)["precision"] == "bfloat16"


@pytest.mark.usefixtures("bfloat16_is_faster")
def test_a_state_from_before_there_was_a_choice_goes_on_in_float32(
    dataset: Path, tmp_path: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
):
    stopped(smoke("save_minutes=0"), dataset, tmp_path, monkeypatch)
    file = tmp_path / "fold-0" / STATE
    state = load_state(file)
    del state["precision"], state["recipe"]["precision"]
    save_state(file, state)
    fold = train(smoke("save_minutes=0", "precision=auto"), Dataset(dataset), tmp_path, resume=True)
    assert "computes in float32 (as when the run began, before there was a choice)" in log_of(fold)
    assert "another setting" not in log_of(fold)
    assert same(weights_of(fold, "last"), weights_of(finished, "last"))


@pytest.mark.usefixtures("bfloat16_is_faster")
def test_a_run_begins_in_what_its_cpu_is_faster_in_and_runs_of_one_process_may_differ(dataset: Path, tmp_path: Path):
    for number, (asked, expected) in enumerate((("auto", "bfloat16"), ("float32", "float32"), ("auto", "bfloat16"))):
        recipe = low_alone(f"precision={asked}")
        fold = train(recipe, Dataset(dataset), tmp_path / str(number))
        assert load_state(fold / STATE)["precision"] == expected
        assert f"computes in {expected} (" in log_of(fold)


def test_a_net_with_strided_depthwise_layers_learns_them_in_float32(dataset: Path):
    recipe = low_alone("precision=bfloat16")
    learner = Learner(recipe, Dataset(dataset), build_accelerator(recipe), 0)
    kept = [layer for layer in learner.net.modules() if "forward" in vars(layer)]
    assert kept
    assert all(layer.groups == layer.in_channels and layer.stride == (2, 2) for layer in kept)
    exact = low_alone()
    learner = Learner(exact, Dataset(dataset), build_accelerator(exact), 0)
    assert not [layer for layer in learner.net.modules() if "forward" in vars(layer)]
