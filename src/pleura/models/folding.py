"""BatchNorm folded into the convolution before it, for nets that only predict.

In evaluation a BatchNorm multiplies and shifts each channel by constants, and a convolution behind which it stands can
do that with its own weights. Which one stands behind which is seen in a run, not in names or in the order of layers.

Source: Jacob et al. 2018 (arXiv 1712.05877), section 3.2.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.overrides import TorchFunctionMode

from pleura.models.net import Net

WITH_ACTIVATION = "timm.layers.norm_act.BatchNormAct2d"
"""timm's BatchNorm with dropout and activation inside; by name, because importing timm takes seconds."""
MOST_OFF = 1e-3
"""Of the largest logit: rounding is some 1e-6 of it, and a fold that does not hold about 1."""


def folded(net: Net) -> Net:
    """Return a net in evaluation mode that computes the same without the BatchNorms that convolutions can do.

    net: on the CPU; it stays as it is. A BatchNorm is folded where its only input is the output of one convolution
    that runs once and feeds nothing else, and where it has statistics; all others stay, as those in front of a
    convolution. Outputs differ by the rounding of float32. Keys of the state differ: it is no net to save.
    """
    net.eval()
    images = torch.randn(
        (1, net.config.in_channels, 2 * net.stride, 2 * net.stride), generator=torch.Generator().manual_seed(0)
    )
    copy = deepcopy(net)
    with torch.no_grad():  # weights of inference mode could be used in no other
        expected, pairs = _pairs(copy, images)
        by: dict[nn.Module, nn.Module] = {}
        for convolution, norm in pairs:
            # What is left of a norm: nothing, or timm's dropout and activation, which it holds in this order.
            by |= {convolution: fuse_conv_bn_eval(convolution, norm), norm: nn.Sequential(*norm.children())}
        _replace(copy, by)
        # Layers of other libraries may use their weights, or each other's outputs, in ways that a run does not show.
        return copy if _equal(_logits(copy, images), expected) else net


class _Calls(TorchFunctionMode):
    """Counts from how many calls of torch each tensor goes into another tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.uses: Counter[int] = Counter()
        self.seen: list[Any] = []
        """Holds every tensor, so that no other gets its identity."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if made := list(_tensors([result])):  # not where its shape alone is asked for
            tensors = list(_tensors([*args, *(kwargs or {}).values()]))
            self.uses.update({id(tensor) for tensor in tensors})
            self.seen += [*tensors, *made]
        return result


def _tensors(values: Iterable[Any]) -> Iterable[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _pairs(net: Net, images: Tensor) -> tuple[list[Tensor], list[tuple[nn.Conv2d, nn.BatchNorm2d]]]:
    """Run a net; returns its logits, and each BatchNorm that can be folded with its convolution."""
    ran: Counter[nn.Module] = Counter()
    made: dict[int, nn.Conv2d] = {}
    took: dict[nn.BatchNorm2d, int] = {}

    def after(module: nn.Module, _: Any, output: Tensor) -> None:
        ran[module] += 1
        if isinstance(module, nn.Conv2d):
            made[id(output)] = module

    def before(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if isinstance(module, nn.BatchNorm2d) and inputs:
            took[module] = id(inputs[0])

    layers = [module for module in net.modules() if _is_plain(module)]
    handles = [layer.register_forward_hook(after) for layer in layers]
    handles += [layer.register_forward_pre_hook(before) for layer in layers]
    with _Calls() as calls:
        logits = _logits(net, images)
    for handle in handles:
        handle.remove()
    weights = Counter(id(parameter) for layer in layers for parameter in layer.parameters())
    pairs = []
    for norm, given in took.items():
        convolution = made.get(given)
        if convolution is None or calls.uses[given] != 1 or ran[convolution] != 1 or ran[norm] != 1:
            continue
        if all(weights[id(parameter)] == 1 for parameter in convolution.parameters()):
            pairs.append((convolution, norm))
    return logits, pairs


def _is_plain(module: nn.Module) -> bool:
    """Whether a layer is a convolution, or a BatchNorm that can be taken away, and nobody else looks at its output."""
    if module._forward_hooks or module._forward_pre_hooks:
        return False
    if isinstance(module, nn.BatchNorm2d):
        known = (
            type(module) is nn.BatchNorm2d or f"{type(module).__module__}.{type(module).__name__}" == WITH_ACTIVATION
        )
        return known and module.running_mean is not None and module.running_var is not None
    return isinstance(module, nn.Conv2d)


def _replace(net: nn.Module, by: Mapping[nn.Module, nn.Module]) -> None:
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if child in by:
                setattr(parent, name, by[child])


def _logits(net: Net, images: Tensor) -> list[Tensor]:
    outputs = net.outputs(images)
    return [outputs.logits, *([] if outputs.presence is None else [outputs.presence])]


def _equal(logits: list[Tensor], expected: list[Tensor]) -> bool:
    """Whether each differs by rounding alone; not if any is not finite."""
    pairs = zip(logits, expected, strict=True)
    return all(bool((one - other).abs().max() <= MOST_OFF * other.abs().max()) for one, other in pairs)
