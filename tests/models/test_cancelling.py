"""Layers that subtract nearly all of what they compute, and what stays float32 because of them."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from pleura.models.cancelling import cancels, keep_cancelling
from pleura.models.checkpoint import load_checkpoint, net_of
from pleura.models.default import default_model


def net(deviations: float, folded: bool = False) -> nn.Sequential:
    """Three convolutions; the BatchNorm of the second takes so many deviations from a channel."""
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4), nn.Conv2d(4, 1, 3, padding=1)
    ).eval()
    with torch.no_grad():
        layers[2].running_mean[1], layers[2].running_var[1] = deviations * 1e-2, 1e-4
    return layers if not folded else nn.Sequential(layers[0], fuse_conv_bn_eval(layers[1], layers[2]), layers[3]).eval()


def kept(layers: nn.Module) -> list[bool]:
    return ["forward" in vars(layer) for layer in layers.modules() if isinstance(layer, nn.Conv2d)]


def in_bfloat16(layers: nn.Module, images: Tensor) -> Tensor:
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        result: Tensor = layers(images)
    return result.float()


@pytest.mark.parametrize("folded", [False, True])
def test_a_net_stays_float32_up_to_the_last_layer_that_cancels(folded: bool):
    for deviations, expected in ((600.0, [True, True, False]), (30.0, [False, False, False])):
        layers = net(deviations, folded)
        assert cancels(layers) == any(expected)
        keep_cancelling(layers)
        assert kept(layers) == expected


@pytest.mark.parametrize("folded", [False, True])
def test_a_channel_that_cancels_keeps_its_value(folded: bool):
    # 600 deviations of the second channel: a constant that the convolutions make, and the BatchNorm takes away.
    layers, images = net(0, folded=False), torch.rand(2, 1, 16, 16)
    with torch.no_grad():
        layers[0].bias[:] = 6
        layers[1].weight[1] = 1
        made = layers[:2](images)[:, 1]
        layers[2].running_mean[1], layers[2].running_var[1] = made.mean(), (made.mean() / 600) ** 2
        wanted = layers(images)
        if folded:
            layers = nn.Sequential(layers[0], fuse_conv_bn_eval(layers[1], layers[2]), layers[3]).eval()
    plain = (in_bfloat16(layers, images) - wanted).abs().mean()
    keep_cancelling(layers)
    exact = (in_bfloat16(layers, images) - wanted).abs().mean()
    assert exact < plain / 20


def test_without_autocast_nothing_changes_and_a_copy_has_weights_of_its_own():
    layers, images = net(600.0), torch.rand(2, 1, 16, 16)
    wanted = layers(images)
    keep_cancelling(layers)
    assert torch.equal(layers(images), wanted)
    other = copy.deepcopy(layers)
    nn.init.zeros_(other[0].weight)
    assert not torch.equal(other(images), wanted)
    assert torch.equal(layers(images), wanted)


def test_of_the_default_model_the_layers_up_to_the_first_expansion_at_stride_2_are_kept():
    default = net_of(load_checkpoint(default_model())).eval()
    keep_cancelling(default)
    names = [name for name, layer in default.named_modules() if "forward" in vars(layer)]
    encoder = ("conv_stem", "blocks.0.0.conv_dw", "blocks.0.0.conv_pw", "blocks.1.0.conv_pw")
    assert names == [f"encoder.net.{name}" for name in encoder]
