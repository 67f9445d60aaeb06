"""Optimizers by name, and encoders that are frozen for a while."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pleura.config.training import TrainingConfig
from pleura.training.optimizers import Freezer, build_optimizer, resume_optimizer


@pytest.mark.parametrize(
    ("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)]
)
def test_an_optimizer_has_the_settings_of_its_stage(name: str, kind: type):
    config = TrainingConfig(optimizer=name, lr=0.25, weight_decay=0.5, momentum=0.75)
    optimizer = build_optimizer(nn.Linear(1, 1).parameters(), config)
    group = optimizer.param_groups[0]
    assert type(optimizer) is kind
    assert (group["lr"], group["weight_decay"]) == (0.25, 0.5)
    assert group.get("momentum", 0.75) == 0.75


def test_a_resumed_optimizer_has_its_memory_and_the_settings_of_now():
    net = nn.Linear(1, 1)
    before = build_optimizer(net.parameters(), TrainingConfig(optimizer="sgd", momentum=0.5))
    net(torch.ones(1, 1)).sum().backward()
    before.step()
    after = build_optimizer(net.parameters(), TrainingConfig(optimizer="sgd"))
    resume_optimizer(after, before.state_dict(), TrainingConfig(optimizer="sgd", momentum=0.7, weight_decay=0.1))
    assert (after.param_groups[0]["momentum"], after.param_groups[0]["weight_decay"]) == (0.7, 0.1)
    assert torch.equal(after.state[net.weight]["momentum_buffer"], before.state[net.weight]["momentum_buffer"])


def test_parameters_without_gradients_are_not_the_optimizers():
    net = nn.Linear(2, 2)
    net.bias.requires_grad_(False)
    assert build_optimizer(net.parameters(), TrainingConfig()).param_groups[0]["params"] == [net.weight]


def test_a_frozen_encoder_learns_nothing_and_thaws_whole():
    encoder = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1), nn.Linear(1, 1).requires_grad_(False))
    learning = [parameter.requires_grad for parameter in encoder.parameters()]
    freezer = Freezer(encoder)
    assert freezer.freeze(encoder.parameters())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    encoder.train()
    freezer.hold_statistics()
    assert not encoder[1].training
    assert not freezer.freeze(encoder.parameters())
    assert freezer.freeze([])
    assert [parameter.requires_grad for parameter in encoder.parameters()] == learning


def test_the_first_layers_can_stay_frozen_with_their_statistics_while_the_others_learn():
    encoder = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1), nn.Linear(1, 1), nn.BatchNorm1d(1))
    freezer = Freezer(encoder)
    first = [*encoder[0].parameters(), *encoder[1].parameters()]
    assert freezer.freeze(first)
    assert [parameter.requires_grad for parameter in encoder.parameters()] == [False] * 4 + [True] * 4
    encoder.train()
    freezer.hold_statistics()
    assert (encoder[1].training, encoder[3].training) == (False, True)
    assert freezer.freeze(encoder.parameters())
    assert freezer.freeze(first)
    assert [parameter.requires_grad for parameter in encoder.parameters()] == [False] * 4 + [True] * 4
