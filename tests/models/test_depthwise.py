"""Strided depthwise convolutions that learn in float32 within autocast: what changes, and what stays."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from pleura.models.depthwise import keep_strided_depthwise


class Padded(nn.Conv2d):
    """With a `forward` of its own, as timm's Conv2dSame, which its EfficientNets of TensorFlow have."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return super().forward(functional.pad(features, (0, 1, 0, 1)))


def depthwise(kind: type[nn.Conv2d] = nn.Conv2d, stride: int = 2, groups: int = 8) -> nn.Conv2d:
    torch.manual_seed(0)
    layer = kind(8, 8, 3, stride=stride, groups=groups)
    keep_strided_depthwise(nn.Sequential(layer))
    return layer


def in_bfloat16(layer: nn.Module, images: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        result: torch.Tensor = layer(images)
    return result


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 8, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", [nn.Conv2d, Padded])
def test_it_learns_in_float32_what_it_would_learn_without_autocast(kind: type[nn.Conv2d], images: torch.Tensor):
    layer = depthwise(kind)
    found = in_bfloat16(layer, images.bfloat16())
    assert found.dtype == torch.float32
    found.square().sum().backward()
    gradient, layer.weight.grad = layer.weight.grad, None
    wanted = layer(images.bfloat16().float())
    wanted.square().sum().backward()
    assert torch.equal(found, wanted)
    assert torch.equal(gradient, layer.weight.grad)


@pytest.mark.parametrize(("stride", "groups"), [(1, 8), (2, 1)])
def test_other_convolutions_are_left_to_autocast(images: torch.Tensor, stride: int, groups: int):
    layer = depthwise(stride=stride, groups=groups)
    assert "forward" not in vars(layer)
    assert in_bfloat16(layer, images).dtype == torch.bfloat16


def test_without_gradients_bfloat16_is_kept(images: torch.Tensor):
    layer = depthwise()
    with torch.inference_mode():
        assert in_bfloat16(layer, images).dtype == torch.bfloat16
    frozen = layer.requires_grad_(False)
    assert in_bfloat16(frozen, images).dtype == torch.bfloat16
    assert in_bfloat16(frozen, images.requires_grad_()).dtype == torch.float32  # something before it learns


def test_a_copy_computes_with_weights_of_its_own_and_keys_stay(images: torch.Tensor):
    layer = depthwise()
    other = copy.deepcopy(layer)
    with torch.no_grad():
        other.weight.zero_()
        other.bias.zero_()
    assert not in_bfloat16(other, images).any()
    assert in_bfloat16(layer, images).any()
    assert list(layer.state_dict()) == ["weight", "bias"]


def test_it_can_be_taken_off_again(images: torch.Tensor):
    layer = depthwise()
    del layer.forward
    assert in_bfloat16(layer, images).dtype == torch.bfloat16
