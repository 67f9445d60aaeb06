"""From grey images to probabilities: sizes, ranges, the sigmoid once, and a flip that is fair to both sides."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel

from pleura.config.model import ModelConfig
from pleura.decision.triplet import Triplet
from pleura.errors import CheckpointError, ConfigError
from pleura.inference.engines.torch import infer
from pleura.models.build import build_model
from pleura.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from pleura.models.net import Net, Outputs, PresenceHead, image_logits, with_presence
from pleura.models.preprocessing import Preprocessing, normalise
from pleura.models.resize import resize_images

SMALL = Preprocessing(prepared_px=16, size_px=16, in_channels=1, mean=0.5, std=0.25)


def random_images(seed: int, side: int = 16, n: int = 2) -> Tensor:
    return torch.rand(n, 1, side, side, generator=torch.Generator().manual_seed(seed))


WITHOUT_HEADS = ModelConfig(encoder="test_resnet")


class Lopsided(Net):
    """Three layers with weights of their own on the left and on the right."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(1, 4, 5, padding=2), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1))
        self.config, self.presence = WITHOUT_HEADS, None

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


def lopsided() -> Net:
    return Lopsided().eval()


class Constant(Net):
    """A net that answers one logit everywhere, in a dtype of choice."""

    def __init__(self, logit: float, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.logit, self.dtype = logit, dtype
        self.config, self.presence = WITHOUT_HEADS, None

    def forward(self, images: Tensor) -> Tensor:
        return torch.full_like(images, self.logit, dtype=self.dtype)


@pytest.mark.parametrize("channels", [1, 3])
def test_image_is_normalised_alike_in_all_channels(channels: int):
    images = random_images(0)
    inputs = normalise(images, Preprocessing(16, 16, channels, mean=0.4, std=0.2))
    assert inputs.shape == (2, channels, 16, 16)
    torch.testing.assert_close(inputs, ((images - 0.4) / 0.2).expand(-1, channels, -1, -1))


def test_each_channel_can_have_numbers_of_its_own():
    images, mean, std = random_images(0), [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    inputs = normalise(images, Preprocessing(16, 16, 3, mean=mean, std=std))
    assert (inputs.shape, inputs.dtype) == ((2, 3, 16, 16), torch.float32)
    for channel in range(3):
        torch.testing.assert_close(inputs[:, channel], (images[:, 0] - mean[channel]) / std[channel])


def test_one_number_for_all_is_the_same_as_it_for_each():
    images = random_images(0)
    for_all = normalise(images, Preprocessing(16, 16, 3, mean=0.4, std=0.2))
    for_each = normalise(images, Preprocessing(16, 16, 3, mean=[0.4] * 3, std=[0.2] * 3))
    mixed = normalise(images, Preprocessing(16, 16, 3, mean=[0.4] * 3, std=0.2))
    assert torch.equal(for_all, for_each)
    assert torch.equal(for_all, mixed)


@pytest.mark.parametrize(("mean", "std"), [([0.5] * 2, 0.2), (0.5, [0.2]), ([], 0.2)])
def test_numbers_that_do_not_fit_the_channels_are_refused(mean: float | list[float], std: float | list[float]):
    with pytest.raises(CheckpointError, match=r"preprocessing.(mean|std) has \d numbers for 3 channels; give one for"):
        Preprocessing(16, 16, 3, mean=mean, std=std)


@pytest.mark.parametrize("reduction", ["area", "adaptive"])
def test_net_sees_images_reduced_as_its_checkpoint_says(reduction: str):
    images, model = random_images(2, side=21), lopsided()
    reduced = resize_images(images, 16, reduction)
    expected = torch.sigmoid(model((reduced - 0.5) / 0.25))[:, 0]
    preprocessing = Preprocessing(21, 16, 1, mean=0.5, std=0.25, reduction=reduction)
    torch.testing.assert_close(infer(model, images, preprocessing), expected)


def test_header_without_a_reduction_is_of_a_net_that_was_trained_with_the_first_one():
    images, model = random_images(2, side=21), lopsided()
    old = functional.interpolate(images, size=16, mode="area")
    unnamed = Preprocessing(prepared_px=21, size_px=16, in_channels=1, mean=0.5, std=0.25)
    expected = torch.sigmoid(model(((old - 0.5) / 0.25).contiguous(memory_format=torch.channels_last)))[:, 0]
    assert torch.equal(infer(model, images, unnamed), expected)


def test_reduction_that_is_not_there_is_refused():
    with pytest.raises(CheckpointError, match=r"preprocessing.reduction is 'magic'; .* has area, adaptive"):
        Preprocessing(21, 16, 1, mean=0.5, std=0.25, reduction="magic")


@pytest.mark.parametrize("mean", [0.449, [0.485, 0.456, 0.406]])
def test_checkpoint_carries_numbers_for_each_channel(tmp_path: Path, mean: float | list[float]):
    preprocessing = Preprocessing(16, 32, 3, mean=mean, std=[0.229, 0.224, 0.225])
    settings = {"encoder": "test_resnet", "pretrained": False, "in_channels": 3}
    checkpoint = Checkpoint(ModelConfig(**settings), preprocessing, Triplet(), weights={})
    save_checkpoint(tmp_path / "c.safetensors", checkpoint)
    assert load_checkpoint(tmp_path / "c.safetensors").preprocessing == preprocessing


def test_probabilities_are_the_sigmoid_of_the_logits_once():
    model, images = lopsided(), random_images(3)
    expected = torch.sigmoid(model((images - 0.5) / 0.25))[:, 0]
    torch.testing.assert_close(infer(model, images, SMALL), expected)


@pytest.mark.parametrize(("flip", "times"), [(False, 1), (True, 2)])
def test_sigmoid_is_called_once_for_each_run_of_the_net(monkeypatch: pytest.MonkeyPatch, flip: bool, times: int):
    calls, sigmoid = [], torch.sigmoid
    monkeypatch.setattr(torch, "sigmoid", lambda logits: calls.append(1) or sigmoid(logits))
    infer(lopsided(), random_images(0), SMALL, flip=flip)
    assert len(calls) == times


@pytest.mark.parametrize(("logit", "probability"), [(0.0, 0.5), (-100.0, 0.0), (100.0, 1.0), (1.0, 0.7310586)])
def test_constant_logit_is_a_constant_probability(logit: float, probability: float):
    probabilities = infer(Constant(logit), random_images(0), SMALL, flip=True)
    torch.testing.assert_close(probabilities, torch.full((2, 16, 16), probability))


def test_half_precision_logits_give_single_precision_probabilities():
    probabilities = infer(Constant(3.0, torch.bfloat16), random_images(0), SMALL)
    assert probabilities.dtype == torch.float32
    assert probabilities[0, 0, 0].item() == pytest.approx(0.95257413)


def test_flip_sees_both_sides_alike():
    model, images = lopsided(), random_images(5)
    mirrored = infer(model, images.flip(-1), SMALL, flip=True)
    torch.testing.assert_close(mirrored, infer(model, images, SMALL, flip=True).flip(-1))
    assert not torch.allclose(infer(model, images.flip(-1), SMALL), infer(model, images, SMALL).flip(-1))


def test_flip_is_the_mean_of_probabilities_and_not_of_logits():
    model, images = lopsided(), random_images(5)
    here, there = infer(model, images, SMALL), infer(model, images.flip(-1), SMALL).flip(-1)
    torch.testing.assert_close(infer(model, images, SMALL, flip=True), (here + there) / 2)


def test_bytes_of_any_side_come_out_at_the_size_of_the_net():
    images = (random_images(0, side=50) * 255).byte()
    probabilities = infer(lopsided(), images, SMALL)
    assert probabilities.shape == (2, 16, 16)
    assert not probabilities.requires_grad


def test_image_gets_the_same_answer_alone_and_in_a_batch():
    model, images = lopsided(), random_images(0, n=3)
    together = infer(model, images, SMALL)
    torch.testing.assert_close(infer(model, images[1:2], SMALL), together[1:2])


# --- the presence rule


class Doubting(Net):
    """A net with a logit for each pixel and one for the image, which depends on the image's left half."""

    def __init__(self, dtype: torch.dtype = torch.float32, rule: Literal["cap", "mean"] = "cap") -> None:
        super().__init__()
        self.presence = PresenceHead(1)
        self.config = ModelConfig(encoder="test_resnet", presence_head=True, presence_rule=rule)
        nn.init.constant_(self.presence.linear.weight, 20.0)
        nn.init.constant_(self.presence.linear.bias, 0.3)
        self.dtype = dtype

    def forward(self, images: Tensor) -> Tensor:
        return (5 * images).to(self.dtype)

    def outputs(self, images: Tensor) -> Outputs:
        left = images[..., : images.shape[-1] // 2]
        return Outputs(self(images), self.presence(left).to(self.dtype))


def doubting_parts(images: Tensor) -> tuple[Tensor, Tensor]:
    outputs = Doubting().outputs((images - 0.5) / 0.25)
    return torch.sigmoid(outputs.logits)[:, 0], torch.sigmoid(outputs.presence)[:, :, None]


@settings(max_examples=30)
@given(st.integers(0, 999))
def test_no_pixel_is_more_probable_than_a_pneumothorax_on_its_image(seed: int):
    images = random_images(seed)
    pixels, presence = doubting_parts(images)
    capped = infer(Doubting(), images, SMALL)
    assert (capped <= presence + 1e-6).all()
    torch.testing.assert_close(capped, torch.minimum(pixels, presence))


def test_cap_is_each_images_own():
    images = torch.stack([torch.full((1, 16, 16), 0.42), torch.full((1, 16, 16), 0.9)])
    images[:, :, :, 8:] = 1.0  # the pixels on the right are sure, whatever the head says
    dark, bright = infer(Doubting(), images, SMALL)
    assert dark.max() < 0.01
    assert bright.max() > 0.99


def test_each_view_is_capped_before_the_mean():
    images = torch.zeros(1, 1, 16, 16)
    images[..., 8:] = 1.0  # the head sees nothing here, and everything in the mirror
    here, there = infer(Doubting(), images, SMALL), infer(Doubting(), images.flip(-1), SMALL).flip(-1)
    assert here.max() < 1e-6
    assert there.max() > 0.99
    torch.testing.assert_close(infer(Doubting(), images, SMALL, flip=True), (here + there) / 2)


@pytest.mark.parametrize(("flip", "times"), [(False, 1), (True, 2)])
def test_sigmoid_is_called_once_with_a_presence_head_too(monkeypatch: pytest.MonkeyPatch, flip: bool, times: int):
    calls, sigmoid = [], torch.sigmoid
    monkeypatch.setattr(torch, "sigmoid", lambda logits: calls.append(1) or sigmoid(logits))
    infer(Doubting(), random_images(0), SMALL, flip=flip)
    assert len(calls) == times


def test_half_precision_is_capped_in_single_precision():
    probabilities = infer(Doubting(torch.bfloat16), random_images(0), SMALL)
    assert probabilities.dtype == torch.float32
    torch.testing.assert_close(probabilities, infer(Doubting(), random_images(0), SMALL), atol=0.02, rtol=0.02)


def test_averaged_net_is_capped_as_well():
    images = random_images(0)
    assert torch.equal(infer(AveragedModel(Doubting()).module, images, SMALL), infer(Doubting(), images, SMALL))


def test_real_net_with_a_presence_head_that_says_no_finds_nothing():
    settings = {"encoder": "test_resnet", "pretrained": False, "presence_head": True, "deep_supervision": True}
    net, images = build_model(settings).eval(), random_images(0, side=64)
    preprocessing = Preprocessing(64, 64, 1, mean=0.449, std=0.226)
    nn.init.constant_(net.presence.linear.bias, 100.0)
    free = infer(net, images, preprocessing)
    torch.testing.assert_close(free, torch.sigmoid(net(normalise(images, preprocessing)))[:, 0])
    nn.init.constant_(net.presence.linear.bias, -100.0)
    assert infer(net, images, preprocessing, flip=True).max() < 1e-6 < free.max()


# --- the presence rule, as a mean


@settings(max_examples=30)
@given(st.integers(0, 999))
def test_mean_rule_moves_the_highest_pixel_halfway_to_the_head_and_keeps_the_order(seed: int):
    images = random_images(seed)
    outputs = Doubting().outputs((images - 0.5) / 0.25)
    found = infer(Doubting(rule="mean"), images, SMALL)
    highest, head = outputs.logits.amax((1, 2, 3)).double(), outputs.presence[:, 0].double()
    torch.testing.assert_close(torch.logit(found.amax((1, 2)).double()), (highest + head) / 2, atol=1e-3, rtol=1e-3)
    lower = (found.flatten(1)[:, :-1] < found.flatten(1)[:, 1:]) & (found > 0).all()
    assert (outputs.logits.flatten(1)[:, :-1] < outputs.logits.flatten(1)[:, 1:])[lower].all()


def test_mean_rule_changes_nothing_where_the_head_equals_the_highest_pixel():
    images = torch.full((1, 1, 16, 16), 0.6)
    net = Doubting(rule="mean")
    nn.init.constant_(net.presence.linear.weight, 5.0)
    nn.init.constant_(net.presence.linear.bias, 0.0)
    torch.testing.assert_close(infer(net, images, SMALL), torch.sigmoid(5 * (images[:, 0] - 0.5) / 0.25))


def test_mean_rule_can_raise_all_pixels():
    images = torch.full((1, 1, 16, 16), 0.42)
    net = Doubting(rule="mean")
    nn.init.constant_(net.presence.linear.weight, 0.0)
    nn.init.constant_(net.presence.linear.bias, 8.0)
    assert infer(net, images, SMALL).min() > 0.5 > torch.sigmoid(torch.tensor(5 * (0.42 - 0.5) / 0.25))


def test_net_passes_the_rule_of_its_settings_on():
    given = {"encoder": "test_resnet", "pretrained": False, "presence_head": True}
    assert build_model(given).config.presence_rule == "cap"
    assert build_model({**given, "presence_rule": "mean"}).config.presence_rule == "mean"


@pytest.mark.parametrize("setting", [{"presence_rule": "mean"}, {"presence_pooling": "mean_max"}])
def test_setting_of_a_head_without_a_head_is_refused(setting):
    with pytest.raises(ConfigError, match="presence_head=true"):
        build_model({"encoder": "test_resnet", "pretrained": False, **setting})


@pytest.mark.parametrize("rule", ["cap", "mean"])
@pytest.mark.parametrize("has_head", [True, False])
def test_image_logit_is_that_of_the_highest_pixel_after_the_presence_rule(rule: str, has_head: bool):
    torch.manual_seed(0)
    logits, presence = torch.randn(4, 1, 8, 8), torch.randn(4, 1) if has_head else None
    stated = with_presence(logits, presence, rule).amax((1, 2, 3))[:, None]
    torch.testing.assert_close(image_logits(logits, presence, rule), stated)
