"""Learning rates: both ends of the cosine, the warm-up, the steps of the plateau, and a state to resume from."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pleura.config.training import ScheduleConfig, TrainingConfig
from pleura.training.schedule import Schedule


def schedule(name: str, epochs: int = 10, lr: float = 1e-2, **settings_of_schedule: float) -> Schedule:
    config = ScheduleConfig(name=name, **{"min_lr": 1e-4, **settings_of_schedule})  # type: ignore[arg-type]
    return Schedule(TrainingConfig(epochs=epochs, lr=lr, schedule=config))


def told(plateau: Schedule, scores: list[float]) -> list[float]:
    rates = []
    for score in scores:
        plateau.after_epoch(score)
        rates.append(plateau.lr(len(rates) + 1, 0.0))
    return rates


def test_the_cosine_begins_at_lr_and_ends_at_min_lr():
    cosine = schedule("cosine")
    assert cosine.lr(0, 0.0) == pytest.approx(1e-2)
    assert cosine.lr(5, 0.0) == pytest.approx((1e-2 + 1e-4) / 2)
    assert cosine.lr(10, 0.0) == pytest.approx(1e-4)
    assert cosine.lr(9, 0.999) == pytest.approx(1e-4, rel=1e-3)


@settings(max_examples=50)
@given(st.integers(1, 30), st.floats(0, 5), st.floats(0, 1, exclude_max=True), st.integers(0, 40))
def test_the_cosine_stays_between_its_ends(epochs: int, warmup: float, share: float, epoch: int):
    rate = schedule("cosine", epochs, warmup_epochs=warmup).lr(epoch, share)
    assert 0 < rate <= 1e-2 * (1 + 1e-9)
    assert rate >= 1e-4 * (1 - 1e-9) or epoch + share < warmup


@settings(max_examples=30)
@given(st.integers(1, 30), st.floats(0, 3))
def test_the_rate_rises_through_the_warm_up_and_falls_ever_after(epochs: int, warmup: float):
    cosine = schedule("cosine", epochs, warmup_epochs=warmup)
    moments = [step / 8 for step in range(8 * epochs)]
    rates = [cosine.lr(int(moment), moment % 1) for moment in moments]
    for moment, before, after in zip(moments, rates, rates[1:], strict=False):
        assert (after > before) if moment + 1 / 8 < warmup else (after < before or moment < warmup)


def rates_of_torch(period: int, epochs: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-2)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, period, eta_min=1e-4)
    rates = []
    for _ in range(epochs):
        rates.append(reference.get_last_lr()[0])
        optimizer.step()
        reference.step()
    return rates


@settings(max_examples=30)
@given(st.integers(1, 12), st.integers(1, 50), st.integers(0, 3))
def test_the_cosine_with_a_period_agrees_with_torch_after_its_warm_up(period: int, epochs: int, warmup: int):
    cosine = schedule("cosine", epochs, period_epochs=period, warmup_epochs=warmup)
    rates = [cosine.lr(warmup + epoch, 0.0) for epoch in range(epochs)]
    assert rates == pytest.approx(rates_of_torch(period, epochs), rel=1e-6)


def test_the_cosine_with_a_period_falls_and_rises_again_step_by_step():
    cosine = schedule("cosine", 50, period_epochs=8)
    rates = [cosine.lr(epoch, 0.0) for epoch in (0, 4, 8, 12, 16, 24, 48)]
    assert rates == pytest.approx([1e-2, 0.505e-2, 1e-4, 0.505e-2, 1e-2, 1e-4, 1e-2])
    assert cosine.lr(8, 0.0) < cosine.lr(8, 0.5) < cosine.lr(9, 0.0)


def test_a_period_may_be_shorter_or_longer_than_the_stage_or_of_half_epochs():
    assert schedule("cosine", 4, period_epochs=8).lr(3, 0.999) > 5e-3
    assert schedule("cosine", 4, period_epochs=1.5).lr(1, 0.5) == pytest.approx(1e-4)
    as_long = schedule("cosine", 10, period_epochs=10)
    assert [as_long.lr(epoch, 0.3) for epoch in range(10)] == [schedule("cosine").lr(epoch, 0.3) for epoch in range(10)]


def test_the_warm_up_begins_near_zero_and_reaches_lr():
    cosine = schedule("cosine", warmup_epochs=2)
    assert 0 < cosine.lr(0, 0.0) < 1e-4
    assert cosine.lr(1, 0.0) == pytest.approx(0.5e-2, rel=0.01)
    assert cosine.lr(1, 0.999) == pytest.approx(1e-2, rel=0.01)
    assert cosine.lr(2, 0.0) == pytest.approx(1e-2)


def test_a_constant_rate_is_constant():
    constant = schedule("constant", warmup_epochs=3)
    assert {constant.lr(epoch, share) for epoch in (0, 3, 9) for share in (0.0, 0.9)} == {1e-2}


def test_a_min_lr_above_lr_does_not_raise_the_rate():
    assert schedule("cosine", lr=1e-5).lr(10, 0.0) == schedule("plateau", lr=1e-5).lr(10, 0.0) == 1e-5


def test_the_plateau_steps_down_after_its_patience():
    rates = told(schedule("plateau", patience=2), [0.5, 0.5, 0.4, 0.5, 0.5, 0.5, 0.5, 0.9])
    assert rates == pytest.approx([1e-2, 1e-2, 1e-2, 1e-3, 1e-3, 1e-3, 1e-4, 1e-4])


def test_a_better_score_starts_the_wait_anew():
    rates = told(schedule("plateau", patience=1), [0.5, 0.4, 0.6, 0.5, 0.5])
    assert rates == pytest.approx([1e-2, 1e-2, 1e-2, 1e-2, 1e-3])


def test_the_plateau_never_falls_below_min_lr():
    assert told(schedule("plateau", patience=0, factor=0.5), [0.5] * 12)[-1] == 1e-4


def test_a_score_that_is_no_number_counts_as_no_gain():
    assert told(schedule("plateau", patience=1), [math.nan, math.nan])[-1] == pytest.approx(1e-3)


@settings(max_examples=40)
@given(st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4]), max_size=15), st.integers(0, 4))
def test_the_plateau_agrees_with_torch(scores: list[float], patience: int):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-2)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode="max", patience=patience, threshold=0, min_lr=1e-4
    )
    expected = []
    for score in scores:
        optimizer.step()
        reference.step(score)
        expected.append(optimizer.param_groups[0]["lr"])
    assert told(schedule("plateau", patience=patience), scores) == pytest.approx(expected)


@settings(max_examples=40)
@given(st.lists(st.integers(0, 10_000), max_size=30))
def test_the_plateau_of_the_winner_agrees_with_torch(ten_thousandths: list[int]):
    scores = [score / 10_000 for score in ten_thousandths]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-4)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode="max", factor=0.1, patience=2, threshold=1e-7, threshold_mode="rel", min_lr=1e-7
    )
    expected = []
    for score in scores:
        reference.step(score)
        expected.append(optimizer.param_groups[0]["lr"])
    assert told(schedule("plateau", lr=1e-4, min_lr=1e-7, patience=2), scores) == pytest.approx(expected)


@settings(max_examples=40)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=15), st.integers(0, 14), st.integers(0, 3))
def test_a_schedule_resumed_from_its_state_goes_on_as_if_nothing_happened(scores: list[float], cut: int, patience: int):
    whole, first = schedule("plateau", patience=patience), schedule("plateau", patience=patience)
    expected = told(whole, scores)
    begun = told(first, scores[:cut])
    resumed = Schedule(first.config, **first.state())  # type: ignore[arg-type]
    assert begun + told(resumed, scores[cut:]) == expected


def test_the_state_of_a_schedule_without_scores_can_be_kept():
    fresh = schedule("cosine")
    assert Schedule(fresh.config, **fresh.state()) == fresh  # type: ignore[arg-type]
