"""Losses on logits: values by hand, the sigmoid once, and gradients that are alive where there is nothing to find."""

from __future__ import annotations

import doctest
import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pleura.config.training import LossConfig
from pleura.training import losses as module
from pleura.training.losses import (
    TERMS,
    combo_loss,
    focal_loss,
    lovasz_loss,
    presence_loss,
    soft_dice_loss,
    soft_jaccard_loss,
    total_loss,
    tversky_loss,
)


def only(**weights: float) -> LossConfig:
    return LossConfig(**{"bce": 0, "dice": 0, **weights})  # type: ignore[arg-type]


BCE, DICE, FOCAL, LOVASZ = only(bce=1), only(dice=1), only(focal=1), only(lovasz=1)
ALL = LossConfig(bce=3, dice=1, focal=4)
POOLED = [DICE, only(jaccard=1), only(tversky=1)]
EACH = [config.model_copy(update={"per_image": True}) for config in POOLED]
HALF = [config.model_copy(update={"per_image": 0.5}) for config in POOLED]
CONFIGS = [BCE, FOCAL, *POOLED, *EACH, *HALF, ALL]
WITH_LOVASZ = [*CONFIGS, LOVASZ]

ONE_OF_FOUR = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])


def undecided() -> Tensor:
    return torch.zeros(1, 1, 2, 2)


def sure_of(masks: Tensor, logit: float = 30.0) -> Tensor:
    return torch.where(masks > 0, logit, -logit)


def random_batch(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, 2, 5, 4, generator=generator) * 3, (torch.rand(3, 2, 5, 4, generator=generator) > 0.7).float()


def test_the_example_of_the_module_runs():
    assert doctest.testmod(module) == (0, 6)


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


@settings(max_examples=30)
@given(st.integers(0, 10_000))
def test_focal_agrees_with_its_equation(seed: int):
    logits, masks = random_batch(seed)
    probabilities = torch.sigmoid(logits.double())
    of_truth = torch.where(masks > 0, probabilities, 1 - probabilities)
    expected = (-((1 - of_truth) ** 2) * of_truth.log()).mean()
    assert focal_loss(logits, masks).item() == pytest.approx(expected.item(), rel=1e-4)


@settings(max_examples=30)
@given(st.integers(0, 10_000))
def test_dice_stays_between_zero_and_one(seed: int):
    for per_image in (False, True):
        assert 0 <= soft_dice_loss(*random_batch(seed), per_image).item() <= 1


@pytest.mark.parametrize("loss", [soft_dice_loss, soft_jaccard_loss, tversky_loss])
def test_dice_jaccard_and_tversky_are_pooled_over_the_batch_or_the_mean_of_each_image(loss: Callable[..., Tensor]):
    logits, masks = random_batch(0)
    each = [loss(logits[row], masks[row]).item() for row in range(3)]
    assert loss(logits, masks, per_image=True).item() == pytest.approx(sum(each) / 3)
    assert loss(logits, masks).item() != pytest.approx(sum(each) / 3, abs=1e-3)


@pytest.mark.parametrize("config", WITH_LOVASZ)
@pytest.mark.parametrize("masks", [ONE_OF_FOUR, torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4)])
def test_a_perfect_prediction_costs_nothing(config: LossConfig, masks: Tensor):
    assert combo_loss(sure_of(masks), masks, config).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("config", WITH_LOVASZ)
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


@pytest.mark.parametrize("config", WITH_LOVASZ)
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


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.sampled_from(WITH_LOVASZ))
def test_a_step_down_the_gradient_lowers_the_loss(seed: int, config: LossConfig):
    logits, masks = random_batch(seed)
    logits.requires_grad_()
    loss = combo_loss(logits, masks, config)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert combo_loss(logits - 0.1 * gradient, masks, config) < loss


def test_masks_may_be_bytes():
    logits, masks = random_batch(1)
    assert combo_loss(logits, masks.byte(), ALL) == combo_loss(logits, masks, ALL)


def numpy_of(*tensors: Tensor) -> list[np.ndarray]:
    return [tensor.double().numpy() for tensor in tensors]


def region_sums(logits: Tensor, masks: Tensor) -> tuple[float, float, float]:
    """True positives, false positives and false negatives, softly."""
    probability, mask = numpy_of(logits, masks)
    probability = 1 / (1 + np.exp(-probability))
    parts = probability * mask, probability * (1 - mask), (1 - probability) * mask
    return float(parts[0].sum()), float(parts[1].sum()), float(parts[2].sum())


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.floats(0.1, 5))
def test_dice_jaccard_and_tversky_agree_with_their_equations(seed: int, smooth: float):
    logits, masks = random_batch(seed)
    found, invented, missed = region_sums(logits, masks)
    dice = 1 - (2 * found + smooth) / (2 * found + invented + missed + smooth)
    jaccard = 1 - (found + smooth) / (found + invented + missed + smooth)
    tversky = 1 - (found + smooth) / (found + 0.2 * invented + 0.9 * missed + smooth)
    assert soft_dice_loss(logits, masks, smooth=smooth).item() == pytest.approx(dice, abs=1e-5)
    assert soft_jaccard_loss(logits, masks, smooth=smooth).item() == pytest.approx(jaccard, abs=1e-5)
    assert tversky_loss(logits, masks, 0.2, 0.9, smooth=smooth).item() == pytest.approx(tversky, abs=1e-5)


def test_tversky_weighs_misses_above_inventions_by_default():
    masks = torch.tensor([[[[1.0, 1.0, 0.0, 0.0]]]])
    missed, invented = sure_of(torch.tensor([[[[1.0, 0, 0, 0]]]])), sure_of(torch.tensor([[[[1.0, 1, 1, 0]]]]))
    assert tversky_loss(missed, masks) > tversky_loss(invented, masks) + 0.1


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.floats(0, 4))
def test_focal_agrees_with_its_equation_for_any_gamma(seed: int, gamma: float):
    logits, masks = random_batch(seed)
    logit, mask = numpy_of(logits, masks)
    of_truth = 1 / (1 + np.exp(np.where(mask > 0, -logit, logit)))
    expected = -((1 - of_truth) ** gamma * np.log(of_truth)).mean()
    assert combo_loss(logits, masks, only(focal=1, focal_gamma=gamma)).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0])
def test_focal_has_a_gradient_where_the_net_is_surely_right(gamma: float):
    logits = torch.full((1, 1, 2, 2), -1e4, requires_grad=True)
    (gradient,) = torch.autograd.grad(focal_loss(logits, torch.zeros(1, 1, 2, 2), gamma), logits)
    assert gradient.isfinite().all()


def jaccard_loss(wrong: np.ndarray, mask: np.ndarray) -> float:
    """1 - the Jaccard index of a mask and of the prediction that is wrong on some pixels."""
    predicted = np.logical_xor(mask, wrong)
    union = np.logical_or(mask, predicted).sum()
    return 1 - float(np.logical_and(mask, predicted).sum() / union) if union else 0.0


def lovasz_extension(errors: np.ndarray, mask: np.ndarray) -> float:
    """Of the Jaccard loss, as the integral of the loss of {errors >= t} over t from 0 (Choquet)."""
    levels = [0.0, *sorted(set(errors[errors > 0].tolist()))]
    return sum((high - low) * jaccard_loss(errors >= high, mask) for low, high in itertools.pairwise(levels))


def symmetric_hinge(logits: np.ndarray, mask: np.ndarray) -> float:
    errors = np.maximum(0, 1 - np.where(mask > 0, logits, -logits))
    return (lovasz_extension(errors, mask > 0) + lovasz_extension(errors, mask == 0)) / 2


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.3, 0.7, 1.0]), st.sampled_from([0.5, None]))
def test_the_lovasz_hinge_is_the_extension_of_the_jaccard_loss_of_each_image(
    seed: int, share: float, step: float | None
):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 2, 4, 3, generator=generator) * 2
    logits = logits if step is None else (logits / step).round() * step  # ties
    masks = (torch.rand(3, 2, 4, 3, generator=generator) < share).float()
    rows = zip(*numpy_of(logits, masks), strict=True)
    expected = np.mean([symmetric_hinge(logit.ravel(), mask.ravel()) for logit, mask in rows])
    assert lovasz_loss(logits, masks).item() == pytest.approx(expected, abs=1e-5)


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.2, 0.5, 1.0]))
def test_the_lovasz_hinge_is_the_jaccard_loss_at_hard_predictions_and_above_it_elsewhere(seed: int, share: float):
    generator = np.random.default_rng(seed)
    mask, predicted = generator.random(30) < share, generator.random(30) < 0.4
    wrong = mask != predicted
    jaccard = (jaccard_loss(wrong, mask) + jaccard_loss(wrong, ~mask)) / 2
    # An error of 1 is a logit of 0; an error of 0 a margin of 1.
    hard = np.where(wrong, 0, np.where(mask, 1.0, -1.0))
    soft = np.where(predicted, 1, -1) * generator.exponential(size=30)
    masks, hard, soft = (torch.from_numpy(a.astype(np.float32)).view(1, 1, 5, 6) for a in (mask, hard, soft))
    assert lovasz_loss(hard, masks).item() == pytest.approx(jaccard, abs=1e-6)
    assert lovasz_loss(soft, masks).item() >= jaccard - 1e-6


def test_the_lovasz_hinge_keeps_its_small_steps_on_a_million_pixels():
    logits = torch.linspace(-0.5, 0.5, 1024 * 1024).view(1, 1, 1024, 1024).requires_grad_()
    (gradient,) = torch.autograd.grad(lovasz_loss(logits, torch.zeros(1, 1, 1024, 1024)), logits)
    # The background's half is a mean over pixels; the masks' half pulls on the highest logit alone.
    assert (gradient.flatten()[:-1] * 2 * 1024 * 1024 - 1).abs().max() < 1e-3
    assert gradient.flatten()[-1].item() == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("fill", [0.0, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_wrong_pixel_has_a_lovasz_gradient_on_empty_and_on_full_masks(fill: float, dtype: torch.dtype):
    logits = torch.linspace(-4, 4, 32).reshape(2, 1, 4, 4).to(dtype).requires_grad_()
    (gradient,) = torch.autograd.grad(lovasz_loss(logits, torch.full((2, 1, 4, 4), fill)), logits)
    away = 1 - 2 * fill  # +1: the logit shall fall
    assert gradient.isfinite().all()
    assert (gradient * away >= 0).all()
    assert (gradient * away > 0)[logits * away > -1].all()


@pytest.mark.parametrize("name", [*TERMS])
@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize("fill", [None, 0.0, 1.0])
def test_gradients_are_those_of_finite_differences(name: str, per_image: bool, fill: float | None):
    config = only(**{name: 1}, per_image=per_image, focal_gamma=1.5)
    logits, masks = random_batch(5)
    masks = masks if fill is None else torch.full_like(masks, fill)
    logits = (logits.double() / 3).requires_grad_()
    assert combo_loss(logits, masks, config).dtype == torch.float64
    assert torch.autograd.gradcheck(lambda x: combo_loss(x, masks, config), (logits,))


@pytest.mark.parametrize("config", POOLED + EACH)
def test_a_smooth_as_small_as_the_winners_has_no_gradient_on_empty_masks(config: LossConfig):
    logits = torch.full((1, 1, 16, 16), 0.0, requires_grad=True)
    masks, largest = torch.zeros(1, 1, 16, 16), []
    for smooth in (1.0, 1e-6):
        loss = combo_loss(logits, masks, config.model_copy(update={"smooth": smooth}))
        largest.append(torch.autograd.grad(loss, logits)[0].max().item())
    assert largest[0] > 1e-5
    assert largest[1] < 1e-9


@pytest.mark.parametrize("config", WITH_LOVASZ)
@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16_logits_give_the_loss_and_the_gradient_of_float32(config: LossConfig, autocast: bool):
    logits, masks = random_batch(3)
    short = logits.bfloat16().requires_grad_()
    exact = short.detach().float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = combo_loss(short, masks, config)
    expected = combo_loss(exact, masks, config)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    gradients = torch.autograd.grad(loss, short)[0], torch.autograd.grad(expected, exact)[0]
    torch.testing.assert_close(gradients[0].float(), gradients[1].bfloat16().float())


def of_two_processes(halves: list[tuple[Tensor, Tensor]], config: LossConfig) -> list[Tensor]:
    """The loss of each of two processes, where all_reduce adds the other one's sums."""
    losses = []
    for mine, theirs in ((0, 1), (1, 0)):
        heard: list[Tensor] = []
        combo_loss(*halves[theirs], config, all_reduce=lambda sums, heard=heard: heard.append(sums) or sums)
        losses.append(combo_loss(*halves[mine], config, all_reduce=lambda sums, heard=heard: sums + heard.pop(0)))
        assert not heard
    return losses


@pytest.mark.parametrize("config", [*POOLED, only(dice=1, jaccard=2, tversky=3)])
def test_pooled_losses_of_two_processes_are_those_of_their_whole_batch(config: LossConfig):
    logits, masks = random_batch(8)
    logits.requires_grad_()
    whole = combo_loss(logits, masks, config)
    halves = [(logits[:1], masks[:1]), (logits[1:], masks[1:])]
    assert [loss.item() for loss in of_two_processes(halves, config)] == pytest.approx([whole.item()] * 2)
    assert combo_loss(*halves[0], config).item() != pytest.approx(whole.item(), abs=1e-3)


@pytest.mark.parametrize("config", [*WITH_LOVASZ, LossConfig(lovasz=1, tversky=2)])
def test_losses_weighted_by_the_rows_of_each_process_have_the_mean_gradient_of_the_whole_batch(config: LossConfig):
    logits, masks = random_batch(9)
    logits.requires_grad_()
    (expected,) = torch.autograd.grad(combo_loss(logits, masks, config), logits)
    halves = [(logits[:1], masks[:1]), (logits[1:], masks[1:])]
    first, second = of_two_processes(halves, config)
    # As DDP: each process's loss times rows * processes / batch, and the mean of gradients over processes.
    (gradient,) = torch.autograd.grad((first * (1 * 2 / 3) + second * (2 * 2 / 3)) / 2, logits)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("config", [BCE, FOCAL, LOVASZ, *EACH])
def test_what_is_not_pooled_is_not_gathered(config: LossConfig):
    def refuse(sums: Tensor) -> Tensor:
        raise AssertionError(sums)

    assert combo_loss(*random_batch(0), config, all_reduce=refuse) == combo_loss(*random_batch(0), config)


def test_every_term_has_a_weight_and_every_weight_a_term():
    settings_of_terms = {
        "presence",
        "image",
        "deep",
        "per_image",
        "smooth",
        "focal_gamma",
        "tversky_alpha",
        "tversky_beta",
    }
    assert set(TERMS) == set(LossConfig.model_fields) - settings_of_terms


@pytest.mark.parametrize("name", [*TERMS])
def test_a_weight_multiplies_its_term(name: str):
    once, thrice = (combo_loss(*random_batch(2), only(**{name: weight})).item() for weight in (1, 3))
    assert thrice == pytest.approx(3 * once)
    assert once > 0


def test_a_loss_without_further_outputs_is_the_sum_of_its_terms():
    assert total_loss(*random_batch(4), ALL) == combo_loss(*random_batch(4), ALL)


def test_presence_asks_whether_there_is_any_pneumothorax_on_each_image():
    masks, present = torch.zeros(2, 1, 8, 8), torch.tensor([0.0, 1.0])  # a warp has left nothing of the mask
    presence = torch.tensor([[2.0], [-1.0]])
    expected = (math.log1p(math.exp(2)) + math.log1p(math.exp(1))) / 2
    assert presence_loss(presence, present).item() == pytest.approx(expected)
    config = LossConfig(presence=0.5)
    total = total_loss(torch.zeros(2, 1, 8, 8), masks, config, presence=presence.bfloat16(), present=present)
    assert total.item() == pytest.approx(combo_loss(torch.zeros(2, 1, 8, 8), masks, config).item() + expected / 2)


def test_deep_outputs_add_the_mean_of_their_losses():
    (logits, masks), stages = random_batch(6), [random_batch(seed)[0] for seed in (7, 8)]
    config = LossConfig(lovasz=1, deep=0.4)
    parts = [combo_loss(stage, masks, config).item() for stage in stages]
    total = total_loss(logits, masks, config, deep=stages)
    assert total.item() == pytest.approx(combo_loss(logits, masks, config).item() + 0.4 * sum(parts) / 2)


def test_deep_outputs_are_pooled_over_processes_too():
    (logits, masks), calls = random_batch(6), []
    total_loss(logits, masks, only(dice=1, deep=1), deep=[logits, logits], all_reduce=lambda x: calls.append(x) or x)
    assert len(calls) == 3


@pytest.mark.parametrize("output", ["presence", "deep"])
def test_a_weight_for_an_output_that_the_net_does_not_give_is_refused(output: str):
    assert total_loss(*random_batch(1), LossConfig()).isfinite()
    with pytest.raises(ValueError, match=f"loss.{output} has a weight"):
        total_loss(*random_batch(1), LossConfig(**{output: 1.0}))  # type: ignore[arg-type]


OUTPUTS: list[Callable[[Tensor], Tensor]] = [torch.zeros_like, torch.ones_like]


@pytest.mark.parametrize("masks_of", OUTPUTS)
def test_the_total_loss_of_an_empty_or_a_full_batch_has_a_finite_gradient_everywhere(
    masks_of: Callable[[Tensor], Tensor],
):
    logits, presence = torch.randn(2, 1, 8, 8, requires_grad=True), torch.zeros(2, 1, requires_grad=True)
    config = LossConfig(bce=1, dice=1, focal=1, jaccard=1, lovasz=1, tversky=1, presence=1, deep=1)
    masks = masks_of(logits.detach())
    loss = total_loss(logits, masks, config, presence, [logits * 0.5], present=masks[:, 0, 0, 0])
    towards_truth = 1 - 2 * masks[0, 0, 0, 0]
    for gradient in torch.autograd.grad(loss, (logits, presence)):
        assert gradient.isfinite().all()
        assert (gradient * towards_truth > 0).all()


def test_image_loss_is_a_cross_entropy_of_its_own_beside_that_of_the_head() -> None:
    masks, present, image = torch.zeros(2, 1, 8, 8), torch.tensor([0.0, 1.0]), torch.tensor([[2.0], [-1.0]])
    config = LossConfig(image=0.5)
    total = total_loss(torch.zeros(2, 1, 8, 8), masks, config, present=present, image=image)
    expected = (math.log1p(math.exp(2)) + math.log1p(math.exp(1))) / 2
    assert total.item() == pytest.approx(combo_loss(torch.zeros(2, 1, 8, 8), masks, config).item() + expected / 2)
    with pytest.raises(ValueError, match=r"loss\.image"):
        total_loss(torch.zeros(2, 1, 8, 8), masks, config, present=present)


def test_per_image_between_0_and_1_is_the_mean_of_both_by_its_share() -> None:
    torch.manual_seed(0)
    logits, masks = torch.randn(3, 1, 8, 8), (torch.rand(3, 1, 8, 8) > 0.8).float()
    for config in POOLED:
        pooled, each, between = (
            combo_loss(logits, masks, config.model_copy(update={"per_image": share})) for share in (0, 1, 0.25)
        )
        assert not torch.isclose(pooled, each)
        assert torch.isclose(between, 0.75 * pooled + 0.25 * each)
    assert LossConfig(per_image=True).per_image is True
    with pytest.raises(ValueError, match="per_image"):
        LossConfig(per_image=1.5)
