"""How much faster this machine's CPU computes in bfloat16 than in float32, measured on a small net."""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn

from pleura.models.depthwise import keep_strided_depthwise

MEASURED_S, BATCH, SIDE_PX = 0.5, 2, 128


def measured_gain(training: bool) -> float:
    """Measure a net of the kinds of layers that the default model has: the time in float32 over that in bfloat16.

    In turn, and in processor time: other work on this machine, or another process that trains, falls on neither.
    """
    with torch.random.fork_rng(devices=[]):  # what is random elsewhere must not depend on whether this was known
        net, images = _net().train(training), torch.rand(BATCH, 1, SIDE_PX, SIDE_PX)
    images = images.contiguous(memory_format=torch.channels_last)
    net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    keep_strided_depthwise(net)

    def seconds(bfloat16: bool) -> float:
        began = time.process_time()
        with torch.set_grad_enabled(training):
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                logits: Tensor = net(images)
            if training:
                torch.autograd.backward(logits.float().sum())
                net.zero_grad()
        return time.process_time() - began

    for bfloat16 in (False, True):
        seconds(bfloat16)  # kernels are made here
    took = {False: 0.0, True: 0.0}
    while sum(took.values()) < MEASURED_S * torch.get_num_threads():
        took = {bfloat16: so_far + seconds(bfloat16) for bfloat16, so_far in took.items()}
    return round(took[False] / took[True], 3)


def _net() -> nn.Module:
    """A stem, two inverted residual blocks, one of them with a stride, and a decoder stage, with random weights."""
    layers: list[nn.Module] = [*_convolution(1, 32, 3, stride=2)]
    for ins, between, stride in ((32, 96, 2), (24, 144, 1)):
        layers += [*_convolution(ins, between, 1), *_convolution(between, between, 3, stride, groups=between)]
        layers += [nn.Conv2d(between, 24, 1, bias=False), nn.BatchNorm2d(24)]
    layers += [*_convolution(24, 96, 3), *_convolution(96, 64, 3), nn.Conv2d(64, 1, 1)]
    return nn.Sequential(*layers)


def _convolution(ins: int, width: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    layer = nn.Conv2d(ins, width, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [layer, nn.BatchNorm2d(width), nn.ReLU6(inplace=True)]
