"""From grey images to probabilities: sizes, ranges, the sigmoid once, and a flip that is fair to both sides."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pleura.model.inference import Preprocessing, infer, normalise, resize_images, resize_masks

SMALL = Preprocessing(prepared_px=16, size_px=16, in_channels=1, mean=0.5, std=0.25)

sizes = st.integers(1, 40)


def random_images(seed: int, side: int = 16, n: int = 2) -> Tensor:
    return torch.rand(n, 1, side, side, generator=torch.Generator().manual_seed(seed))


def lopsided() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 5, padding=2), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1)).eval()


class Constant(nn.Module):
    """A net that answers one logit everywhere, in a dtype of choice."""

    def __init__(self, logit: float, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.logit, self.dtype = logit, dtype

    def forward(self, images: Tensor) -> Tensor:
        return torch.full_like(images, self.logit, dtype=self.dtype)


@settings(max_examples=40, deadline=None)
@given(sizes, sizes, st.integers(0, 99))
def test_a_resized_image_has_the_size_and_stays_in_the_range_of_its_values(side: int, wanted: int, seed: int):
    images = random_images(seed, side)
    resized = resize_images(images, wanted)
    assert resized.shape == (2, 1, wanted, wanted)
    assert resized.dtype == torch.float32
    assert resized.min() >= images.min() - 1e-6
    assert resized.max() <= images.max() + 1e-6


def test_bytes_become_shares_of_255():
    images = torch.tensor([[[[0, 51], [204, 255]]]], dtype=torch.uint8)
    torch.testing.assert_close(resize_images(images, 2), torch.tensor([[[[0.0, 0.2], [0.8, 1.0]]]]))


def test_an_image_of_the_right_size_is_left_alone():
    images = random_images(0)
    assert resize_images(images, 16) is images


@pytest.mark.parametrize("times", [2, 4])
def test_a_reduced_image_is_the_mean_over_area(times: int):
    images = random_images(1, 16)
    blocks = images.reshape(2, 1, 16 // times, times, 16 // times, times).mean(dim=(3, 5))
    torch.testing.assert_close(resize_images(images, 16 // times), blocks)


@settings(max_examples=30, deadline=None)
@given(sizes, sizes, st.integers(0, 99))
def test_a_mirrored_image_is_resized_to_the_mirror_of_its_resized_self(side: int, wanted: int, seed: int):
    images = random_images(seed, side)
    torch.testing.assert_close(resize_images(images.flip(-1), wanted), resize_images(images, wanted).flip(-1))


@settings(max_examples=40, deadline=None)
@given(sizes, sizes, st.integers(0, 99))
def test_a_resized_mask_stays_binary(side: int, wanted: int, seed: int):
    masks = (random_images(seed, side) > 0.5).byte()
    resized = resize_masks(masks, wanted)
    assert resized.shape == (2, 1, wanted, wanted)
    assert resized.dtype == torch.float32
    assert set(resized.unique().tolist()) <= {0.0, 1.0}


def test_a_reduced_mask_is_set_where_half_of_the_area_is():
    masks = torch.tensor([[[[1, 0, 1, 0], [0, 0, 0, 1], [1, 1, 0, 0], [1, 0, 0, 0]]]], dtype=torch.uint8)
    assert resize_masks(masks, 2).tolist() == [[[[0.0, 1.0], [1.0, 0.0]]]]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(1, 4), st.integers(0, 99))
def test_an_enlarged_mask_reduces_to_itself(side: int, times: int, seed: int):
    masks = (random_images(seed, side) > 0.5).float()
    assert torch.equal(resize_masks(resize_masks(masks, side * times), side), masks)


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_is_normalised_alike_in_all_channels(channels: int):
    images = random_images(0)
    inputs = normalise(images, Preprocessing(16, 16, channels, mean=0.4, std=0.2))
    assert inputs.shape == (2, channels, 16, 16)
    torch.testing.assert_close(inputs, ((images - 0.4) / 0.2).expand(-1, channels, -1, -1))


def test_the_probabilities_are_the_sigmoid_of_the_logits_once():
    model, images = lopsided(), random_images(3)
    expected = torch.sigmoid(model((images - 0.5) / 0.25))[:, 0]
    torch.testing.assert_close(infer(model, images, SMALL), expected)


@pytest.mark.parametrize(("flip", "times"), [(False, 1), (True, 2)])
def test_the_sigmoid_is_called_once_for_each_run_of_the_net(monkeypatch: pytest.MonkeyPatch, flip: bool, times: int):
    calls, sigmoid = [], torch.sigmoid
    monkeypatch.setattr(torch, "sigmoid", lambda logits: calls.append(1) or sigmoid(logits))
    infer(lopsided(), random_images(0), SMALL, flip=flip)
    assert len(calls) == times


@pytest.mark.parametrize(("logit", "probability"), [(0.0, 0.5), (-100.0, 0.0), (100.0, 1.0), (1.0, 0.7310586)])
def test_a_constant_logit_is_a_constant_probability(logit: float, probability: float):
    probabilities = infer(Constant(logit), random_images(0), SMALL, flip=True)
    torch.testing.assert_close(probabilities, torch.full((2, 16, 16), probability))


def test_half_precision_logits_give_single_precision_probabilities():
    probabilities = infer(Constant(3.0, torch.bfloat16), random_images(0), SMALL)
    assert probabilities.dtype == torch.float32
    assert probabilities[0, 0, 0].item() == pytest.approx(0.95257413)


def test_the_flip_sees_both_sides_alike():
    model, images = lopsided(), random_images(5)
    mirrored = infer(model, images.flip(-1), SMALL, flip=True)
    torch.testing.assert_close(mirrored, infer(model, images, SMALL, flip=True).flip(-1))
    assert not torch.allclose(infer(model, images.flip(-1), SMALL), infer(model, images, SMALL).flip(-1))


def test_the_flip_is_the_mean_of_probabilities_and_not_of_logits():
    model, images = lopsided(), random_images(5)
    here, there = infer(model, images, SMALL), infer(model, images.flip(-1), SMALL).flip(-1)
    torch.testing.assert_close(infer(model, images, SMALL, flip=True), (here + there) / 2)


def test_bytes_of_any_side_come_out_at_the_size_of_the_net():
    images = (random_images(0, side=50) * 255).byte()
    probabilities = infer(lopsided(), images, SMALL)
    assert probabilities.shape == (2, 16, 16)
    assert not probabilities.requires_grad


def test_an_image_gets_the_same_answer_alone_and_in_a_batch():
    model, images = lopsided(), random_images(0, n=3)
    together = infer(model, images, SMALL)
    torch.testing.assert_close(infer(model, images[1:2], SMALL), together[1:2])
