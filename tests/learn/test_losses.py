"""Losses on logits: values by hand, the sigmoid once, and gradients that are alive where there is nothing to find."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pleura.learn.losses import combo_loss, focal_loss, soft_dice_loss
from pleura.settings import LossConfig

BCE, DICE, FOCAL = LossConfig(dice=0), LossConfig(bce=0), LossConfig(bce=0, dice=0, focal=1)
DICE_EACH = LossConfig(bce=0, per_image=True)
ALL = LossConfig(bce=3, dice=1, focal=4)
CONFIGS = [BCE, DICE, DICE_EACH, FOCAL, ALL]

ONE_OF_FOUR = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])


def undecided() -> Tensor:
    return torch.zeros(1, 1, 2, 2)


def sure_of(masks: Tensor, logit: float = 30.0) -> Tensor:
    return torch.where(masks > 0, logit, -logit)


def random_batch(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, 2, 5, 4, generator=generator) * 3, (torch.rand(3, 2, 5, 4, generator=generator) > 0.7).float()


def test_an_undecided_pixel_costs_the_logarithm_of_two():
    assert combo_loss(undecided(), ONE_OF_FOUR, BCE).item() == pytest.approx(math.log(2))


def test_dice_of_an_undecided_image_by_hand():
    # overlap 0.5, probabilities 2, mask 1, smooth 1: 1 - (2 * 0.5 + 1) / (2 + 1 + 1)
    assert combo_loss(undecided(), ONE_OF_FOUR, DICE).item() == pytest.approx(0.5)


def test_focal_of_an_undecided_pixel_is_a_quarter_of_its_cross_entropy():
    assert combo_loss(undecided(), ONE_OF_FOUR, FOCAL).item() == pytest.approx(math.log(2) / 4)


def test_terms_are_added_by_their_weights():
    expected = 3 * math.log(2) + 0.5 + 4 * math.log(2) / 4
    assert combo_loss(undecided(), ONE_OF_FOUR, ALL).item() == pytest.approx(expected)


def test_the_sigmoid_is_applied_once():
    logit = torch.full((1, 1, 1, 1), 2.0)
    probability = 1 / (1 + math.exp(-2))
    assert combo_loss(logit, torch.ones(1, 1, 1, 1), BCE).item() == pytest.approx(-math.log(probability))
    assert combo_loss(logit, torch.ones(1, 1, 1, 1), DICE).item() == pytest.approx(
        1 - (2 * probability + 1) / (probability + 2)
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_focal_agrees_with_its_equation(seed: int):
    logits, masks = random_batch(seed)
    probabilities = torch.sigmoid(logits.double())
    of_truth = torch.where(masks > 0, probabilities, 1 - probabilities)
    expected = (-((1 - of_truth) ** 2) * of_truth.log()).mean()
    assert focal_loss(logits, masks).item() == pytest.approx(expected.item(), rel=1e-4)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_dice_stays_between_zero_and_one(seed: int):
    for per_image in (False, True):
        assert 0 <= soft_dice_loss(*random_batch(seed), per_image).item() <= 1


def test_dice_is_pooled_over_the_batch_or_the_mean_of_each_image():
    logits, masks = random_batch(0)
    each = [soft_dice_loss(logits[row], masks[row]).item() for row in range(3)]
    assert soft_dice_loss(logits, masks, per_image=True).item() == pytest.approx(sum(each) / 3)
    assert soft_dice_loss(logits, masks).item() != pytest.approx(sum(each) / 3, abs=1e-3)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("masks", [ONE_OF_FOUR, torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4)])
def test_a_perfect_prediction_costs_nothing(config: LossConfig, masks: Tensor):
    assert combo_loss(sure_of(masks), masks, config).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("config", CONFIGS)
def test_a_false_positive_on_an_empty_image_costs(config: LossConfig):
    masks = torch.zeros(1, 1, 8, 8)
    one_pixel, many_pixels = sure_of(masks), sure_of(masks)
    one_pixel[0, 0, 3, 3], many_pixels[0, 0, :4] = 30.0, 30.0
    costs = [combo_loss(logits, masks, config).item() for logits in (sure_of(masks), one_pixel, many_pixels)]
    assert costs[0] + 0.01 < costs[1] < costs[2] - 0.01


def test_a_false_positive_on_one_empty_image_costs_its_dice_alone_half_of_one():
    logits = torch.full((1, 1, 4, 4), -30.0)
    logits[0, 0, 0, 0] = 30.0
    assert soft_dice_loss(logits, torch.zeros(1, 1, 4, 4)).item() == pytest.approx(0.5)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_gradients_are_alive_on_a_batch_without_any_mask(config: LossConfig, dtype: torch.dtype):
    logits = torch.linspace(-4, 4, 32).reshape(2, 1, 4, 4).to(dtype).requires_grad_()
    combo_loss(logits, torch.zeros(2, 1, 4, 4), config).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert (logits.grad > 0).all()


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("logit", [-1e4, -100.0, 100.0, 1e4])
def test_extreme_logits_give_finite_losses_and_gradients(config: LossConfig, logit: float):
    logits = torch.full((1, 1, 2, 2), logit, requires_grad=True)
    loss = combo_loss(logits, ONE_OF_FOUR, config)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_sums_over_a_million_pixels_survive_bfloat16_autocast():
    masks = torch.zeros(1, 1, 1024, 1024)
    masks[..., :300, :300] = 1
    with torch.autocast("cpu", torch.bfloat16):
        loss = combo_loss(sure_of(masks, 8.0).bfloat16(), masks, LossConfig(bce=1, dice=1, focal=1))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(combo_loss(sure_of(masks, 8.0), masks, LossConfig(focal=1)).item(), rel=1e-3)
    assert loss.item() < 0.01


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(CONFIGS))
def test_a_step_down_the_gradient_lowers_the_loss(seed: int, config: LossConfig):
    logits, masks = random_batch(seed)
    logits.requires_grad_()
    loss = combo_loss(logits, masks, config)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert combo_loss(logits - 0.1 * gradient, masks, config) < loss


def test_masks_may_be_bytes():
    logits, masks = random_batch(1)
    assert combo_loss(logits, masks.byte(), ALL) == combo_loss(logits, masks, ALL)
