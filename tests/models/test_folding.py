"""BatchNorm folded into convolutions: the same probabilities, from fewer layers, and only where that is exact."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pleura.config.model import ModelConfig
from pleura.models.build import build_model
from pleura.models.checkpoint import load_checkpoint, net_of
from pleura.models.default import default_model
from pleura.models.folding import folded
from pleura.models.net import Net


def used(net: Net, images: Tensor) -> Net:
    """With statistics, scales and shifts that are not those of a new net."""
    for norm in norms(net):
        if norm.affine:
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.2)
    with torch.no_grad():
        net.train()(images)
    return net.eval()


def norms(net: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]


@pytest.mark.parametrize(
    ("config", "left"),
    [
        ({"encoder": "mobilenetv2_100", "normalisation": "batch", "presence_head": True}, 0),
        ({"encoder": "densenet121"}, 62),  # of 121: the others stand in front of a convolution
        ({"encoder": "resnet34", "normalisation": "batch"}, 0),
        ({"architecture": "albunet", "encoder": "resnet34"}, 0),
        ({"encoder": "efficientnet_lite0"}, 0),
        ({"encoder": "tf_efficientnet_b0"}, 0),  # with padding of its own, and gates
    ],
)
def test_probabilities_are_those_of_the_whole_net(config: dict[str, Any], left: int) -> None:
    torch.manual_seed(1)
    net = used(build_model({**config, "pretrained": False, "in_channels": 1}), torch.randn(2, 1, 64, 64))
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    less, images = folded(net), torch.randn(2, 1, 64, 96)
    with torch.inference_mode():
        torch.testing.assert_close(less.probabilities(images), net.probabilities(images), atol=1e-5, rtol=0)
        torch.testing.assert_close(less(images), net(images), atol=1e-5, rtol=1e-4)
    assert len(norms(less)) == left < len(norms(net))
    assert all(torch.equal(tensor, before[key]) for key, tensor in net.state_dict().items())


def test_default_model_has_no_norm_left_and_the_same_probabilities() -> None:
    net = net_of(load_checkpoint(default_model())).eval()
    less, images = folded(net), torch.randn(1, 1, 128, 128, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        torch.testing.assert_close(less.probabilities(images), net.probabilities(images), atol=1e-5, rtol=0)
    assert not norms(less)


class Small(Net):
    """A net of one convolution and one BatchNorm, wired by a test."""

    stride, presence = 4, None

    def __init__(self, wiring: Callable[[Small, Tensor], Tensor], norm: nn.BatchNorm2d | None = None) -> None:
        super().__init__()
        self.config, self.wiring = ModelConfig(in_channels=1), wiring
        self.convolution, self.norm = nn.Conv2d(1, 1, 3, padding=1, bias=False), norm or nn.BatchNorm2d(1)

    def forward(self, images: Tensor) -> Tensor:
        return self.wiring(self, images)


def beside(net: Small, images: Tensor) -> Tensor:
    features = net.convolution(images)
    return features + net.norm(features)


KEPT: dict[str, Callable[[Small, Tensor], Tensor]] = {
    "in front of the convolution": lambda net, images: net.convolution(net.norm(images)),
    "an activation between": lambda net, images: net.norm(net.convolution(images).relu()),
    "one that is written in place": lambda net, images: net.norm(net.convolution(images).relu_()),
    "the convolution's output has another reader": beside,
    "the convolution runs twice": lambda net, images: net.norm(net.convolution(net.convolution(images))),
    "the norm runs twice": lambda net, images: net.norm(net.norm(net.convolution(images))),
    "the weight has another use": lambda net, images: net.norm(net.convolution(images)) * net.convolution.weight.mean(),
}


@pytest.mark.parametrize("wiring", KEPT.values(), ids=KEPT.keys())
def test_norm_stays_where_folding_it_would_change_something(wiring: Callable[[Small, Tensor], Tensor]) -> None:
    net, images = used(Small(wiring), torch.randn(2, 1, 8, 8)), torch.randn(1, 1, 8, 8)
    assert norms(folded(net))
    with torch.inference_mode():
        assert torch.equal(folded(net)(images), net(images))


def plain(net: Small, images: Tensor) -> Tensor:
    return net.norm(net.convolution(images))


def test_norm_goes_where_it_is_behind_the_convolution_alone() -> None:
    assert not norms(folded(used(Small(plain), torch.randn(2, 1, 8, 8))))
    assert not norms(folded(used(Small(plain, nn.BatchNorm2d(1, affine=False)), torch.randn(2, 1, 8, 8))))


def test_norm_without_statistics_stays() -> None:
    net = used(Small(plain, nn.BatchNorm2d(1, track_running_stats=False)), torch.randn(2, 1, 8, 8))
    assert norms(folded(net))


def test_norm_that_something_listens_to_stays() -> None:
    net = used(Small(plain), torch.randn(2, 1, 8, 8))
    heard: list[Tensor] = []
    net.norm.register_forward_hook(lambda module, inputs, output: heard.append(output))
    assert norms(folded(net))


class WithoutBias(nn.Conv2d):
    """Leaves out the bias that folding would need."""

    def forward(self, images: Tensor) -> Tensor:
        return self._conv_forward(images, self.weight, None)


def test_net_stays_whole_where_its_outputs_would_change() -> None:
    net = Small(plain)
    net.convolution = WithoutBias(1, 1, 3, padding=1, bias=False)
    net = used(net, torch.randn(2, 1, 8, 8) + 1)
    assert folded(net) is net


def test_random_numbers_are_not_drawn_from_the_common_generator() -> None:
    net = used(Small(plain), torch.randn(2, 1, 8, 8))
    state = torch.random.get_rng_state()
    folded(net)
    assert torch.equal(torch.random.get_rng_state(), state)
