"""Optimizers by name, and which parameters learn."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import nn

from pleura.config.training import TrainingConfig

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}


def build_optimizer(parameters: Iterable[nn.Parameter], config: TrainingConfig) -> torch.optim.Optimizer:
    """Build the optimizer of a stage over the parameters that have gradients."""
    build: Any = OPTIMIZERS[config.optimizer]
    if config.optimizer == "sgd":
        build = partial(build, momentum=config.momentum)
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    # One pass over the parameters: a third of the time that Adam takes by default on CPUs.
    optimizer: torch.optim.Optimizer = build(trainable, lr=config.lr, weight_decay=config.weight_decay, fused=True)
    return optimizer


def resume_optimizer(optimizer: Any, state: Any, config: TrainingConfig) -> None:
    """Load the state of an optimizer of the same kind, with the settings that the stage has now."""
    optimizer.load_state_dict(state)
    for group in optimizer.param_groups:
        group["weight_decay"] = config.weight_decay
        if "momentum" in group:
            group["momentum"] = config.momentum


class Freezer:
    """Switch for the gradients of an encoder, or of its first layers; parameters that never learn stay off."""

    def __init__(self, encoder: nn.Module) -> None:
        self.encoder = encoder
        self.learning = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
        self.frozen: frozenset[nn.Parameter] = frozenset()

    def freeze(self, these: Iterable[nn.Parameter]) -> bool:
        """Freeze these parameters of the encoder, and thaw all others; return whether that changed anything."""
        frozen = frozenset(these) & frozenset(self.learning)
        changed, self.frozen = frozen != self.frozen, frozen
        for parameter in self.learning:
            parameter.requires_grad_(parameter not in frozen)
        return changed

    def hold_statistics(self) -> None:
        """Keep the BatchNorm statistics of what is frozen too; after each `model.train()`."""
        if self.frozen and len(self.frozen) == len(self.learning):
            self.encoder.eval()
            return
        for module in self.encoder.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.weight in self.frozen:
                module.eval()
