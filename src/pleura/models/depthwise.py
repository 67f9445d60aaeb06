"""Depthwise convolutions with a stride, in a net that learns on a CPU in bfloat16: they stay in float32.

oneDNN has no fast bfloat16 kernel for the gradients of such a layer: they take four times as long as in float32
(benchmarks/precision.py has the measurement), and with them the step of a MobileNet or EfficientNet gains little.
Without gradients bfloat16 is the faster of the two, and is kept.
"""

from __future__ import annotations

from types import MethodType

import torch
from torch import Tensor, nn


def keep_strided_depthwise(net: nn.Module) -> None:
    """Let a net's convolutions with groups and a stride learn in float32 where autocast would shorten them on a CPU.

    Their classes, parameters, hooks and keys stay as they are, a deep copy computes with weights of its own, and
    without autocast, without gradients or on another device nothing changes.
    """
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d) and layer.groups > 1 and max(layer.stride) > 1:
            # Bound to this layer, so that copy.deepcopy binds it to the copy; `del layer.forward` takes it off again.
            layer.__dict__["forward"] = MethodType(_in_float32_if_it_learns, layer)


def _in_float32_if_it_learns(layer: nn.Conv2d, features: Tensor) -> Tensor:
    forward = type(layer).forward  # of a subclass too, such as timm's Conv2dSame
    learns = torch.is_grad_enabled() and (features.requires_grad or layer.weight.requires_grad)
    if not (learns and features.device.type == "cpu" and torch.is_autocast_enabled("cpu")):
        return forward(layer, features)
    with torch.autocast("cpu", enabled=False):
        return forward(layer, features.float())
