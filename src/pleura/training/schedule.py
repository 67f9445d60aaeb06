"""Learning rates over a stage, as pure functions where they can be: a resumed run needs no replay."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pleura.config.training import TrainingConfig


@dataclass
class Schedule:
    """The learning rate at each step of a stage.

    `plateau` follows the scores (higher is better) of `after_epoch`, and has a `state()`; the others need none.
    Sources: Loshchilov & Hutter 2017 (arXiv 1608.03983) for the cosine; torch's CosineAnnealingLR for its rise after
    `period_epochs` (no restart); torch's ReduceLROnPlateau for the plateau.
    """

    config: TrainingConfig
    reductions: int = 0
    waited: int = 0
    best: float = -math.inf

    def lr(self, epoch: int, share: float) -> float:
        """Return the learning rate at `share` in [0, 1) of epoch 0, 1, 2 ..."""
        config = self.config.schedule
        low, high = min(config.min_lr, self.config.lr), self.config.lr
        if config.name == "constant":
            return high
        if config.name == "plateau":
            return max(low, high * config.factor**self.reductions)
        done = epoch + share
        if done < config.warmup_epochs:
            return high * (done + 0.01) / (config.warmup_epochs + 0.01)
        done -= config.warmup_epochs
        if config.period_epochs is None:
            part = min(done / max(self.config.epochs - config.warmup_epochs, 1e-9), 1.0)
        else:
            part = done / config.period_epochs
        return low + (high - low) * (1 + math.cos(math.pi * part)) / 2

    def after_epoch(self, score: float) -> None:
        """Follow an epoch's validation score: `plateau` reduces the rate once `patience` epochs gain nothing."""
        if score > self.best:
            self.best, self.waited = score, 0
        else:
            self.waited += 1
        if self.waited > self.config.schedule.patience:
            self.reductions, self.waited = self.reductions + 1, 0

    def state(self) -> dict[str, float]:
        """Return what a resumed run needs."""
        return {"reductions": self.reductions, "waited": self.waited, "best": self.best}
