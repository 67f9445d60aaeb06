"""Layers that subtract nearly all of what they compute: bfloat16 would leave little but its rounding there.

A BatchNorm whose channel has a mean many times its deviation takes the one from the other. bfloat16 rounds the inputs
and weights of the convolution before it by up to 1/256, so that with a mean of 600 deviations the error is one or two
deviations. The first weights of timm's mobilenetv2_100 have one such channel, at stride 2; its neighbours stay below 3.
"""

from __future__ import annotations

from types import MethodType

import torch
from torch import Tensor, nn

MOST_DEVIATIONS = 64.0
"""From here on the rounding is a quarter of a deviation, and the layers up to there stay float32."""


def keep_cancelling(net: nn.Module) -> None:
    """Let a net compute in float32, within autocast, up to the last layer that cancels: its inputs must be exact too.

    Layers are registered in the order that images take. Without autocast, and
    in a net without such a layer, nothing changes; a BatchNorm may be folded into its convolution.
    """
    for layer in _up_to_the_last(net):
        if isinstance(layer, nn.Conv2d):
            # Bound to this layer, so that copy.deepcopy binds it to the copy.
            layer.__dict__["forward"] = MethodType(_in_float32, layer)


def cancels(net: nn.Module) -> bool:
    """Whether a net has a layer that cancels, so that bfloat16 would change its masks while it is trained."""
    return bool(_up_to_the_last(net))


def _up_to_the_last(net: nn.Module) -> list[nn.Module]:
    """Return the convolutions and BatchNorms up to the last one that cancels; none where none does."""
    layers = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d | nn.modules.batchnorm._BatchNorm)]
    last = max((number for number, layer in enumerate(layers) if _deviations(layer) > MOST_DEVIATIONS), default=-1)
    return list(layers[: last + 1])


@torch.no_grad()
def _deviations(layer: nn.Conv2d | nn.modules.batchnorm._BatchNorm) -> float:
    """Return the most that a layer takes from a channel, in deviations of it times the scale that it is given."""
    if isinstance(layer, nn.Conv2d):  # with a BatchNorm folded into it
        return 0.0 if layer.bias is None else float(layer.bias.abs().max())
    if layer.running_mean is None or layer.running_var is None:
        return 0.0
    taken = layer.running_mean.abs() / (layer.running_var + layer.eps).sqrt()
    return float((taken if layer.weight is None else taken * layer.weight.abs()).max())


def _in_float32(layer: nn.Conv2d, features: Tensor) -> Tensor:
    with torch.autocast(features.device.type, enabled=False):
        return type(layer).forward(layer, features.float())
