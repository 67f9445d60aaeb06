"""Losses of images with weights and of soft targets: what weights mean, and where each term is least."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pleura.config.training import LossConfig
from pleura.training.losses import TERMS, combo_loss, total_loss


def only(**weights: float) -> LossConfig:
    return LossConfig(**{"bce": 0, "dice": 0, **weights})  # type: ignore[arg-type]


BY_PIXEL = [only(bce=1), only(focal=1), only(lovasz=1)]
POOLED = [only(dice=1), only(jaccard=1), only(tversky=1)]
EACH = [config.model_copy(update={"per_image": True}) for config in POOLED]
EVERYTHING = LossConfig(focal=1, jaccard=1, lovasz=1, tversky=1, presence=0.5, deep=0.4)
CONFIGS = [*BY_PIXEL, *POOLED, *EACH, EVERYTHING, EVERYTHING.model_copy(update={"per_image": True})]
every_config = pytest.mark.parametrize("config", CONFIGS, ids=repr)


def random_batch(seed: int, images: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, masks and presence of some images; the first has an empty mask."""
    generator = torch.Generator().manual_seed(seed)
    logits, masks = (torch.randn(images, 2, 5, 4, generator=generator) * 3 for _ in range(2))
    masks[0] = -1
    return logits, (masks > 1).float(), torch.randn(images, 1, generator=generator)


def loss(batch: tuple[Tensor, ...], config: LossConfig, weights: list[float] | None = None, **more: object) -> Tensor:
    logits, masks, presence = batch
    more |= {"weights": None if weights is None else torch.tensor(weights), "present": masks.flatten(1).amax(1)}
    return total_loss(logits, masks, config, presence, [logits / 2], **more)  # type: ignore[arg-type]


def rows(batch: tuple[Tensor, ...], *which: int) -> tuple[Tensor, ...]:
    return tuple(part[list(which)] for part in batch)


@every_config
def test_weights_of_one_are_no_weights(config: LossConfig):
    batch = random_batch(0)
    assert loss(batch, config, [1.0] * 4).item() == pytest.approx(loss(batch, config).item(), rel=1e-6)


@pytest.mark.parametrize("config", [*BY_PIXEL, *EACH], ids=repr)
def test_equal_weights_are_no_weights_where_the_loss_is_a_mean(config: LossConfig):
    batch = random_batch(0)
    assert loss(batch, config, [0.25] * 4).item() == pytest.approx(loss(batch, config).item(), rel=1e-6)


@every_config
def test_an_image_of_weight_zero_is_as_good_as_not_there(config: LossConfig):
    batch = random_batch(1)
    expected = loss(rows(batch, 0, 2), config).item()
    assert loss(batch, config, [1, 0, 1, 0]).item() == pytest.approx(expected, rel=1e-5)


@every_config
def test_an_image_of_weight_two_counts_like_two_of_it(config: LossConfig):
    batch = random_batch(2)
    expected = loss(rows(batch, 0, 1, 1, 2, 2, 2, 3), config).item()
    assert loss(batch, config, [1, 2, 3, 1]).item() == pytest.approx(expected, rel=1e-5)


@every_config
def test_a_batch_in_which_no_image_counts_costs_nothing_and_teaches_nothing(config: LossConfig):
    logits, masks, presence = random_batch(3)
    logits.requires_grad_()
    nothing = loss((logits, masks, presence), config, [0] * 4)
    (gradient,) = torch.autograd.grad(nothing, logits)
    assert nothing.item() == 0
    assert (gradient == 0).all()


@every_config
@pytest.mark.parametrize("weights", [[1, 0.5, 0.25, 2], [0, 0, 1, 0.5]])
def test_two_processes_have_the_mean_loss_and_the_mean_gradient_of_the_whole_batch(
    config: LossConfig, weights: list[float]
):
    logits, masks, presence = random_batch(4)
    logits.requires_grad_()
    batch = (logits, masks, presence)
    whole = loss(batch, config, weights)
    halves = [(rows(batch, 0, 1), weights[:2]), (rows(batch, 2, 3), weights[2:])]
    losses = []
    for mine, theirs in ((0, 1), (1, 0)):
        heard: list[Tensor] = []
        loss(
            halves[theirs][0],
            config,
            halves[theirs][1],
            all_reduce=lambda sums, heard=heard: heard.append(sums) or sums,
        )
        add = lambda sums, heard=heard: sums + heard.pop(0)  # noqa: E731
        losses.append(loss(halves[mine][0], config, halves[mine][1], all_reduce=add))
        assert not heard
    mean = sum(losses) / 2
    assert mean.item() == pytest.approx(whole.item(), rel=1e-5)
    gradients = [torch.autograd.grad(each, logits, retain_graph=True)[0] for each in (mean, whole)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


NEARLY_ALL = [name for name in TERMS if name != "lovasz"]


@settings(max_examples=40)
@given(
    st.integers(0, 10_000),
    st.sampled_from(NEARLY_ALL),
    st.booleans(),
    st.floats(0, 1),
)
def test_every_term_but_lovasz_is_least_where_probabilities_equal_soft_targets(
    seed: int, name: str, per_image: bool, of_one: float
):
    generator = torch.Generator().manual_seed(seed)
    targets = torch.rand(2, 1, 4, 4, generator=generator, dtype=torch.float64) * 0.9 * of_one + 0.05
    config = only(**{name: 1}, per_image=per_image)
    least = combo_loss(torch.logit(targets), targets, config)
    for scale in (0.01, 0.3, 3.0):
        moved = torch.logit(targets) + scale * torch.randn(targets.shape, generator=generator, dtype=torch.float64)
        assert combo_loss(moved, targets, config) >= least
    if name != "bce":  # whose least is the targets' own entropy
        assert least.item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_the_focal_loss_of_soft_targets_has_a_finite_gradient_where_it_is_least(gamma: float):
    targets = torch.tensor([[[[0.0, 0.3, 1.0]]]])
    logits = torch.logit(targets, eps=1e-9).requires_grad_()
    (gradient,) = torch.autograd.grad(combo_loss(logits, targets, only(focal=1, focal_gamma=gamma)), logits)
    assert gradient.isfinite().all()


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.floats(0.05, 0.95))
def test_lovasz_of_shares_is_the_extension_of_the_jaccard_loss_of_areas(seed: int, level: float):
    generator = torch.Generator().manual_seed(seed)
    shares = torch.rand(1, 1, 5, 6, generator=generator) * (torch.rand(1, 1, 5, 6, generator=generator) < level)
    loss = combo_loss(torch.full((1, 1, 5, 6), -1.0), shares, only(lovasz=1)).item()
    assert loss == pytest.approx(lovasz_of_nothing(shares), rel=1e-4)


def lovasz_of_nothing(shares: Tensor) -> float:
    """By the definition: errors of 2 x share in falling order, weighed by what each adds to 1 - overlap / union."""
    flat = sorted(shares.flatten().tolist(), reverse=True)
    total = 0.0
    for truth in (flat, [1 - share for share in flat]):
        loss, overlap, union = 0.0, sum(truth), sum(truth)
        for share, own in zip(flat, truth, strict=True):
            overlap, union = overlap - own, union + 1 - own
            now = 1 - overlap / union if union else 0.0
            total += 2 * share * (now - loss) / 2
            loss = now
    return total


def test_a_pixel_that_is_half_covered_pulls_lovasz_to_neither_side():
    shares = torch.tensor([[[[1.0, 1.0, 0.5, 0.0, 0.0]]]])
    logits = torch.tensor([[[[1.0, 1.0, 0.0, -1.0, -1.0]]]]).requires_grad_()
    (gradient,) = torch.autograd.grad(combo_loss(logits, shares, only(lovasz=1)), logits)
    assert gradient[0, 0, 0, 2].item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("share", "sign"), [(0.9, 1), (0.6, 1), (0.4, -1), (0.1, -1)])
def test_lovasz_is_least_where_each_pixel_is_on_the_side_of_its_larger_share(share: float, sign: int):
    shares = torch.full((1, 1, 4, 4), share)
    right, wrong = (combo_loss(torch.full((1, 1, 4, 4), float(side)), shares, only(lovasz=1)) for side in (sign, -sign))
    assert right < wrong
