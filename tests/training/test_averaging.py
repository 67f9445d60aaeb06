"""Averages of weights: SWA, EMA, means, greedy soups, and the BatchNorm statistics they need anew."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from pleura.config.training import AveragingConfig
from pleura.training.averaging import (
    RunningAverages,
    greedy_soup,
    interpolated_weights,
    mean_weights,
    refresh_batchnorm,
)


def net_of(value: float) -> nn.Module:
    net = nn.Linear(1, 1, bias=False)
    nn.init.constant_(net.weight, value)
    return net


def follow(config: AveragingConfig, values: list[float], epochs: int | None = None) -> dict[str, float]:
    """The averages of a net whose weight is each of `values` after an epoch of one step."""
    net = net_of(99.0)
    averages = RunningAverages(net, config, epochs or len(values))
    for epoch, value in enumerate(values):
        nn.init.constant_(net.weight, value)
        averages.after_step(net)
        averages.after_epoch(net, epoch)
    return {kind: float(weights["weight"]) for kind, weights in averages.weights().items()}


def test_swa_is_the_mean_of_the_last_epochs_alone():
    assert follow(AveragingConfig(swa_epochs=3), [1.0, 2.0, 4.0, 6.0, 11.0]) == {"swa": pytest.approx(7.0)}


def test_ema_follows_its_recurrence_from_the_first_step():
    expected = 1.0
    for value in (2.0, 4.0):
        expected = 0.9 * expected + 0.1 * value
    assert follow(AveragingConfig(ema_decay=0.9), [1.0, 2.0, 4.0]) == {"ema": pytest.approx(expected)}


def test_an_average_that_has_seen_nothing_is_not_there():
    assert follow(AveragingConfig(swa_epochs=1), [1.0, 2.0], epochs=5) == {}
    assert follow(AveragingConfig(), [1.0]) == {}


def test_averages_go_on_from_their_state_as_if_nothing_had_happened():
    config, net = AveragingConfig(swa_epochs=4, ema_decay=0.5), net_of(0.0)
    whole, first = (RunningAverages(net, config, 4) for _ in range(2))
    second = RunningAverages(net_of(-5.0), config, 4)
    for epoch, value in enumerate((1.0, 3.0, 8.0, 0.0)):
        nn.init.constant_(net.weight, value)
        if epoch == 2:
            second.load(first.state())
        for averages in (whole, first if epoch < 2 else second):
            averages.after_step(net)
            averages.after_epoch(net, epoch)
    for kind, weights in whole.weights().items():
        assert torch.equal(weights["weight"], second.weights()[kind]["weight"])


def test_a_mean_of_weights_keeps_types_and_counts():
    one = {"weight": torch.tensor([1.0]), "half": torch.tensor([1.0]).half(), "count": torch.tensor(3)}
    two = {"weight": torch.tensor([2.0]), "half": torch.tensor([4.0]).half(), "count": torch.tensor(9)}
    mean = mean_weights([one, two])
    assert (mean["weight"].item(), mean["half"].item(), mean["count"].item()) == (1.5, 2.5, 3)
    assert mean["half"].dtype == torch.half


def test_interpolated_weights_keep_types_and_counts():
    one = {"weight": torch.tensor([1.0]), "half": torch.tensor([1.0]).half(), "count": torch.tensor(3)}
    two = {"weight": torch.tensor([2.0]), "half": torch.tensor([4.0]), "count": torch.tensor(9)}
    mean = interpolated_weights(one, two, 0.25)
    assert (mean["weight"].item(), mean["half"].item(), mean["count"].item()) == (1.25, 1.75, 3)
    assert mean["half"].dtype == torch.half


@dataclass(frozen=True)
class Measured:
    value: float
    score: float


def test_a_greedy_soup_takes_what_helps_and_leaves_what_does_not():
    def measure(weights):
        value = float(weights["weight"])
        return Measured(value, -abs(value - 3.0))

    soup, count = greedy_soup([{"weight": torch.tensor(value)} for value in (2.0, 9.0, 4.0)], measure)
    assert (soup.value, count) == (3.0, 2)  # 2 and 4; with the 9 it would be 5.5, then 5


def batchnorm_net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.BatchNorm2d(2))


def test_refreshed_statistics_are_those_of_the_inputs():
    torch.manual_seed(0)
    net, inputs = batchnorm_net(), torch.randn(6, 1, 4, 4) * 3 + 5
    nn.init.constant_(net[1].running_mean, 77.0)
    refresh_batchnorm(net, [inputs[:3], inputs[3:]])
    features = net[0](inputs)
    assert net[1].running_mean.tolist() == pytest.approx(features.mean((0, 2, 3)).tolist(), rel=1e-5)
    assert net[1].num_batches_tracked.item() == 2


def test_without_a_refresh_the_statistics_are_averaged_like_the_weights():
    net = batchnorm_net()
    averages = RunningAverages(net, AveragingConfig(swa_epochs=2, ema_decay=0.5, refresh_cases=0), 2)
    for epoch, value in enumerate((1.0, 3.0)):
        nn.init.constant_(net[1].running_mean, value)
        averages.after_step(net)
        averages.after_epoch(net, epoch)
    assert {kind: float(weights["1.running_mean"][0]) for kind, weights in averages.weights().items()} == {
        "swa": 2.0,
        "ema": 2.0,
    }


def test_a_net_without_batchnorm_reads_no_input():
    def unread():
        raise AssertionError("an input was read")
        yield

    refresh_batchnorm(nn.Conv2d(1, 1, 1), unread())
