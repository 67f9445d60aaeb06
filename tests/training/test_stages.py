"""What a stage ends with, which statistics it leaves alone, and in how many bits it computes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from trainings import low_alone, rows_of, same, smoke, train_until, weights_of

from pleura.data.dataset import Dataset
from pleura.errors import ConfigError
from pleura.models.checkpoint import load_checkpoint, load_state
from pleura.training.averaging import refresh_batchnorm
from pleura.training.devices import build_accelerator
from pleura.training.learner import Learner
from pleura.training.losses import total_loss
from pleura.training.run import STATE
from pleura.training.train import train
from pleura.training.validation import Validation, Validator


def scored(monkeypatch: pytest.MonkeyPatch, *scores: float) -> None:
    """Let validations have these scores, in turn; the last goes on."""
    measure, given = Validator.__call__, list(scores)

    def by_turn(self: Validator, *arguments: object) -> Validation:
        score = given.pop(0) if len(given) > 1 else given[0]
        return replace(measure(self, *arguments), score=score)  # type: ignore[arg-type]

    monkeypatch.setattr(Validator, "__call__", by_turn)


def test_a_stage_that_does_harm_ends_with_what_it_started_from(dataset: Path, tmp_path: Path, monkeypatch):
    scored(monkeypatch, 0.5, 0.6, 0.4)  # low, what high starts from, high
    fold = train(smoke("stages.high.epochs=2"), Dataset(dataset), tmp_path)
    low, high = (load_checkpoint(fold / f"{name}.safetensors") for name in ("low", "high"))
    assert same(low.weights, high.weights)
    assert not same(low.weights, weights_of(fold, "high-best"))
    assert same(weights_of(fold, "best"), low.weights)
    assert (high.provenance["weights"], high.provenance["epoch"]) == ("incoming", 0)
    assert high.preprocessing.size_px == 64  # with the rule and the scores of that size
    [chosen] = [row for row in rows_of(fold / "averages.csv") if row["stage"] == "high" and row["handed_on"] == "1"]
    assert (chosen["kind"], chosen["epochs"]) == ("incoming", "0")
    assert "started from 0.6000; those are chosen" in (fold / "log.txt").read_text()


@pytest.mark.parametrize("hand_on", ["swa", "best_on_val"])
def test_an_average_that_scores_lower_than_the_incoming_weights_is_not_chosen(
    dataset: Path, tmp_path: Path, monkeypatch, hand_on: str
):
    scored(monkeypatch, 0.5, 0.5, 0.6, 0.4, 0.55)
    averaging = f"training.averaging={{swa_epochs: 1, hand_on: {hand_on}, refresh_cases: 8}}"
    fold = train(smoke(averaging), Dataset(dataset), tmp_path)
    assert same(weights_of(fold, "low"), weights_of(fold, "high"))


def test_a_stage_that_gains_ends_with_what_it_has_learned(dataset: Path, tmp_path: Path, monkeypatch):
    scored(monkeypatch, 0.5, 0.6, 0.6)
    fold = train(smoke(), Dataset(dataset), tmp_path)
    assert same(weights_of(fold, "high"), weights_of(fold, "high-best"))
    assert not same(weights_of(fold, "low"), weights_of(fold, "high"))


def test_the_first_stage_has_nothing_to_fall_back_on_but_weights_that_were_given(
    finished: Path, dataset: Path, tmp_path: Path, monkeypatch
):
    assert not (finished / "low-incoming.safetensors").exists()
    scored(monkeypatch, 0.9, 0.1)
    second = train(low_alone(), Dataset(dataset), tmp_path, weights=finished / "best.safetensors")
    assert same(weights_of(finished, "best"), weights_of(second, "low"))


SHARE = "averaging={ema_decay: 0.5, hand_on: ema, refresh_cases: 0, incoming_share: 0.25}"


def chosen_in(fold: Path, stage: str = "high") -> str:
    [row] = [row for row in rows_of(fold / "averages.csv") if row["stage"] == stage and row["handed_on"] == "1"]
    return row["kind"]


@pytest.mark.parametrize(
    ("best", "ema", "mean", "chosen"),
    [(0.6, 0.6, 0.6, "interpolated"), (0.6, 0.55, 0.4, "ema"), (0.4, 0.4, 0.45, "incoming")],
)
def test_a_mean_with_the_weights_that_a_stage_started_from_is_taken_unless_it_scores_lower(
    dataset: Path, tmp_path: Path, monkeypatch, best: float, ema: float, mean: float, chosen: str
):
    scored(monkeypatch, 0.5, 0.5, best, ema, mean)  # low, what high starts from, its epoch and averages
    fold = train(smoke(f"stages.high.{SHARE}"), Dataset(dataset), tmp_path)
    start, end, between = (weights_of(fold, f"high-{kind}") for kind in ("incoming", "ema", "interpolated"))
    assert not same(start, end)
    for key, value in between.items():
        if value.is_floating_point():
            torch.testing.assert_close(value, 0.25 * start[key] + 0.75 * end[key])
    assert chosen_in(fold) == chosen
    assert same(weights_of(fold, "best"), weights_of(fold, f"high-{chosen}"))
    assert ("0.4000, ema alone 0.5500, which is taken" in (fold / "log.txt").read_text()) == (chosen == "ema")


def test_the_mean_with_incoming_weights_is_of_the_best_and_has_statistics_of_its_own(
    finished: Path, dataset: Path, tmp_path: Path, monkeypatch
):
    scored(monkeypatch, 0.9, 0.2, 0.3, 0.95)  # what it starts from, its epoch, SWA, the mean
    averaging = "averaging={swa_epochs: 1, hand_on: best_on_val, refresh_cases: 8, incoming_share: 0.5}"
    fold = train(
        low_alone(f"stages.low.{averaging}"), Dataset(dataset), tmp_path, weights=finished / "best.safetensors"
    )
    assert chosen_in(fold, "low") == "interpolated"
    start, end, between = (weights_of(fold, f"low-{kind}") for kind in ("incoming", "swa", "interpolated"))
    for key, value in between.items():
        if value.is_floating_point():
            mean = torch.equal(value, (0.5 * start[key].double() + 0.5 * end[key].double()).float())
            assert mean != key.endswith(("running_mean", "running_var")), key


def test_a_killed_stage_ends_with_the_same_mean(dataset: Path, tmp_path: Path, monkeypatch):
    recipe, data = smoke(f"stages.high.{SHARE}"), Dataset(dataset)
    whole = train(recipe, data, tmp_path / "whole")
    train_until(4, recipe, data, tmp_path / "killed", monkeypatch)
    killed = train(recipe, data, tmp_path / "killed", resume=True)
    assert same(weights_of(whole, "high-interpolated"), weights_of(killed, "high-interpolated"))


def test_a_stage_that_starts_from_no_weights_has_no_mean_with_them(dataset: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match=r"stages\.low\.averaging\.incoming_share: .* give it --weights"):
        train(smoke(f"training.{SHARE}"), Dataset(dataset), tmp_path)
    assert not list(tmp_path.rglob("*.*"))


def test_nor_has_a_run_that_started_from_none_and_is_made_longer(dataset: Path, tmp_path: Path):
    train(low_alone(), Dataset(dataset), tmp_path)
    longer = low_alone("stages.low.epochs=2", "stages.low.averaging.incoming_share=0.25")
    with pytest.raises(ConfigError, match=r"incoming_share: .* begin it again with --stage low --weights"):
        train(longer, Dataset(dataset), tmp_path, resume=True)


def test_a_run_that_goes_on_in_its_last_stage_remembers_what_the_stage_started_from(begun: Path, dataset: Path):
    incoming = load_state(begun / "fold-0" / STATE)["progress"]["incoming"]
    assert 0 <= incoming <= 1
    train(smoke("stages.high.epochs=2"), Dataset(dataset), begun, resume=True)
    assert load_state(begun / "fold-0" / STATE)["progress"]["incoming"] == incoming


def test_layers_that_were_frozen_keep_their_statistics_in_an_average(dataset: Path, tmp_path: Path):
    frozen = ("training.freeze_encoder_epochs=2", "training.epochs=2")
    averaging = "training.averaging={swa_epochs: 1, hand_on: swa, refresh_cases: 8}"
    fold = train(low_alone(*frozen, averaging), Dataset(dataset), tmp_path)
    for name in ("low-swa", "low-best"):
        statistics = {key: value for key, value in weights_of(fold, name).items() if key.endswith("running_mean")}
        encoder = [value for key, value in statistics.items() if key.startswith("encoder.")]
        assert encoder
        assert all((value == 0).all() for value in encoder), name
        assert all((value != 0).any() for key, value in statistics.items() if not key.startswith("encoder."))


def test_a_layer_in_evaluation_is_used_as_it_is_while_others_are_refreshed():
    net, inputs = nn.Sequential(nn.BatchNorm2d(1), nn.BatchNorm2d(1)), torch.randn(8, 1, 4, 4) * 2 + 5
    nn.init.constant_(net[0].running_mean, 3.0)

    def to_train() -> None:
        net.train()
        net[0].eval()

    refresh_batchnorm(net, [inputs], to_train)
    assert net[0].running_mean.item() == 3
    assert net[1].running_mean.item() == pytest.approx((inputs - 3).mean().item(), rel=1e-4)
    assert net[1].momentum == 0.1


def test_a_limit_of_cases_shows_all_of_them_over_the_epochs_of_all_stages(dataset: Path):
    recipe = smoke("training.cases_per_epoch=4", "training.epochs=3")
    learner = Learner(recipe, Dataset(dataset), build_accelerator(recipe), 0)
    low, high = recipe.stages
    train_indices = learner.dataset.indices("train", 0)
    assert len(train_indices) == 24
    orders = [learner.batches.order(low, epoch, []) for epoch in range(3)]
    orders += [learner.batches.order(high, epoch, [{"stage": "low"}] * 3) for epoch in range(3)]
    assert sorted(np.concatenate([order.ravel() for order in orders])) == train_indices.tolist()
    assert orders[4].tolist() == learner.batches.order(high, 1, [{"stage": "low"}] * 3).tolist()


def with_scaler(monkeypatch: pytest.MonkeyPatch, scale: float) -> None:
    """As on a GPU without bfloat16: gradients are scaled, and looked at before each step."""
    build = build_accelerator

    def scaled(*arguments):
        accelerator = build(*arguments)
        accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=2)
        return accelerator

    monkeypatch.setattr("pleura.training.train.build_accelerator", scaled)


def test_a_scaler_leaves_out_steps_that_overflow_and_the_others_are_what_they_are_without(
    finished: Path, dataset: Path, tmp_path: Path, monkeypatch
):
    with monkeypatch.context() as patch:
        with_scaler(patch, 1024.0)
        scaled = train(smoke(), Dataset(dataset), tmp_path / "scaled")
    assert same(weights_of(finished), weights_of(scaled))  # powers of two are exact
    with_scaler(monkeypatch, 2.0**126)
    train(low_alone(), Dataset(dataset), tmp_path / "overflowing")
    assert load_state(tmp_path / "overflowing" / "fold-0" / STATE)["scaler"]["scale"] < 2.0**126


def test_a_resumed_run_goes_on_with_the_scale_that_it_had(dataset: Path, tmp_path: Path, monkeypatch):
    import pleura.training.stage as module

    with_scaler(monkeypatch, 2.0**126)
    whole = train(smoke("save_minutes=0"), Dataset(dataset), tmp_path / "whole")
    losses = iter(range(3))

    def three_steps(*arguments):
        next(losses)  # at the fourth step it is as if the run were killed
        return total_loss(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(module, "total_loss", three_steps)
        with pytest.raises(StopIteration):
            train(smoke("save_minutes=0"), Dataset(dataset), tmp_path / "killed")
    resumed = train(smoke("save_minutes=0"), Dataset(dataset), tmp_path / "killed", resume=True)
    assert same(weights_of(whole, "last"), weights_of(resumed, "last"))
    scales = [load_state(fold / STATE)["scaler"] for fold in (whole, resumed)]
    assert scales[0] == scales[1]


def test_a_step_waits_for_the_device_once(dataset: Path, tmp_path: Path, monkeypatch):
    counted, tolist = [], torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda tensor: counted.append(tensor.shape) or tolist(tensor))
    monkeypatch.setattr(torch.Tensor, "__float__", lambda tensor: counted.append(None) or tensor.item())
    no_augment = "training.augment={blur_probability: 0, noise_probability: 0, jpeg_probability: 0}"
    train(low_alone(no_augment, "training.accumulate_steps=2"), Dataset(dataset), tmp_path)
    of_steps = [shape for shape in counted if shape == (3,)]
    assert len(of_steps) == 1  # a stage of 8 cases in batches of 4, two batches a step: two losses and a norm
