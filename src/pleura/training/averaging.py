"""Averages of a net's weights: SWA and EMA while it trains, means and greedy soups of its best epochs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pleura.config.training import AveragingConfig


class Scored(Protocol):
    """A measurement of weights."""

    @property
    def score(self) -> float:
        """By which weights are chosen; higher is better."""


Measured = TypeVar("Measured", bound=Scored)


class RunningAverages:
    """SWA and EMA of a net while its stage trains; those that are off cost nothing.

    Sources: Izmailov et al. 2018 (arXiv 1803.05407) for SWA; both are torch.optim.swa_utils'.
    """

    def __init__(self, net: nn.Module, config: AveragingConfig, epochs: int) -> None:
        self.from_epoch = epochs - config.swa_epochs
        buffers = config.refresh_cases == 0  # else `refresh_batchnorm` computes the statistics
        self.models: dict[str, AveragedModel] = {}
        if config.swa_epochs:
            self.models["swa"] = AveragedModel(net, use_buffers=buffers)
        if config.ema_decay:
            average = get_ema_multi_avg_fn(config.ema_decay)  # type: ignore[no-untyped-call]
            self.models["ema"] = AveragedModel(net, multi_avg_fn=average, use_buffers=buffers)

    def after_step(self, net: nn.Module) -> None:
        """Add the weights after an optimizer step."""
        if "ema" in self.models:
            self.models["ema"].update_parameters(net)

    def after_epoch(self, net: nn.Module, epoch: int) -> None:
        """Add the weights after epoch 0, 1, ... of the stage."""
        if "swa" in self.models and epoch >= self.from_epoch:
            self.models["swa"].update_parameters(net)

    def weights(self) -> dict[str, dict[str, Tensor]]:
        """Return the weights of each average to which any were added, by its kind."""
        return {kind: model.module.state_dict() for kind, model in self.models.items() if int(model.n_averaged)}

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs."""
        return {kind: model.state_dict() for kind, model in self.models.items()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from `state()`; an average that it lacks begins anew."""
        for kind, model in self.models.items():
            if kind in state:
                model.load_state_dict(state[kind])


def mean_weights(all_weights: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the mean of state dicts of one net, summed in float64; integer tensors are those of the first."""
    first = all_weights[0]
    return {
        key: torch.stack([weights[key].double() for weights in all_weights]).mean(0).to(tensor.dtype)
        if tensor.is_floating_point()
        else tensor.clone()
        for key, tensor in first.items()
    }


def interpolated_weights(
    weights: Mapping[str, Tensor], other: Mapping[str, Tensor], other_share: float
) -> dict[str, Tensor]:
    """Return the mean of two state dicts of one net, of which `other` has a share in [0, 1]; integers are the first's.

    On the CPU: not every device has the float64 that it is computed in.
    Source: Wortsman et al. 2022 (arXiv 2109.01903), equation 1.
    """
    return {
        key: tensor.cpu().double().lerp(other[key].cpu().double(), other_share).to(tensor.dtype)
        if tensor.is_floating_point()
        else tensor.clone()
        for key, tensor in weights.items()
    }


def greedy_soup(
    best_first: Sequence[Mapping[str, Tensor]], measure: Callable[[Mapping[str, Tensor]], Measured]
) -> tuple[Measured, int]:
    """Average the best epochs one by one; each stays in if the score does not fall.

    Returns: how the soup measures, and how many epochs are in it.
    Source: Wortsman et al. 2022 (arXiv 2203.05482), recipe 1.
    """
    chosen = [best_first[0]]
    measured = measure(mean_weights(chosen))
    for candidate in best_first[1:]:
        result = measure(mean_weights([*chosen, candidate]))
        if result.score >= measured.score:
            chosen, measured = [*chosen, candidate], result
    return measured, len(chosen)


def refresh_batchnorm(
    net: nn.Module,
    inputs: Iterable[Tensor],
    to_train: Callable[[], object] | None = None,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> None:
    """Compute BatchNorm's running statistics from inputs (N, C, H, W): an average of weights has none of its own.

    to_train: sets the net to train as its stage did; layers that this leaves in evaluation, because they are frozen,
    keep their statistics and use them. None: all train. A net in which no BatchNorm trains reads no input. autocast:
    for the net's passes.
    Source: arXiv 1803.05407, section 3.2; torch's `update_bn` does it for all layers.
    """
    (to_train or net.train)()
    kinds = nn.modules.batchnorm._BatchNorm
    anew = [module for module in net.modules() if isinstance(module, kinds) and module.training]
    if not anew:
        return
    momenta = [module.momentum for module in anew]
    for module in anew:
        module.reset_running_stats()
        module.momentum = None  # the mean over all batches
    with torch.no_grad():
        for batch in inputs:
            with autocast():
                net(batch)
    for module, momentum in zip(anew, momenta, strict=True):
        module.momentum = momentum
