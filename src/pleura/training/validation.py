"""Validation while a net trains: metrics of the held-out cases, with the best triplet for them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from numpy.typing import NDArray
from torch import Tensor

from pleura.config.training import StageConfig
from pleura.data.dataset import Dataset
from pleura.data.loader import batches
from pleura.decision.search import Histograms, search
from pleura.decision.triplet import SIIM_PREVALENCE, Triplet, prevalence_weights
from pleura.evaluation.bfloat16 import BothScores
from pleura.evaluation.scoring import CaseScores, on_grid, score_batch
from pleura.inference.engines.torch import infer
from pleura.inference.predictor import Predictor
from pleura.models.bfloat16 import Bfloat16Change
from pleura.models.cancelling import cancels
from pleura.models.checkpoint import Checkpoint
from pleura.models.net import Net
from pleura.models.preprocessing import Preprocessing


@dataclass(frozen=True)
class Validation:
    """The scores of some weights on the validation cases, by the best triplet for these cases."""

    metrics: dict[str, float]
    triplet: Triplet
    score: float
    """The metric that `select` names."""


def best_triplet(histograms: Histograms, select: str) -> Triplet:
    """Return the best triplet for some cases, as they are, or at SIIM's prevalence if a stage is chosen by that."""
    reweighted = select == "siim_dice_at_siim_prevalence"
    return search(histograms, prevalence_weights(histograms.positive, SIIM_PREVALENCE) if reweighted else None).triplet


class Validator:
    """Scorer of nets on the validation cases of one fold, at the size of a stage."""

    def __init__(self, accelerator: Accelerator, dataset: Dataset, indices: NDArray[np.int64], flip: bool) -> None:
        self.accelerator, self.dataset, self.indices, self.flip = accelerator, dataset, indices, flip

    def __call__(self, net: Net, stage: StageConfig, preprocessing: Preprocessing) -> Validation:
        """Score a net; every process takes a share of the cases, and all return the same.

        As in `pleura evaluate`, probabilities are enlarged to the prepared size and compared with the masks of that
        size: no small finding is lost, and the scores of stages of other sizes have the same ground truth.
        """
        net.eval()

        def probabilities(images: Tensor) -> NDArray[np.float32]:
            with self._precision_of(net):
                found = infer(net, images.to(self.accelerator.device), preprocessing, self.flip)
            return np.asarray(found.cpu().numpy())

        cases = self._scores(stage, probabilities)
        triplet = best_triplet(cases.histograms, stage.select)
        metrics = cases.by(triplet).summary()
        return Validation(metrics, triplet, metrics[stage.select])

    def bfloat16_change(self, stage: StageConfig, checkpoint: Checkpoint) -> Bfloat16Change | None:
        """Score a checkpoint as it predicts, in float32 and in bfloat16; None without a positive."""
        device = self.accelerator.device

        def scores(precision: str) -> CaseScores:
            predictor = Predictor([checkpoint], device=str(device), precision=precision)
            return self._scores(stage, lambda images: predictor.probabilities(images[:, 0].numpy()))

        both = BothScores(scores("float32"), scores("bfloat16"), "flip" if self.flip else "none", device.type)
        return both.change(checkpoint, self.dataset.data_hash)

    def _scores(self, stage: StageConfig, probabilities: Callable[[Tensor], NDArray[np.float32]]) -> CaseScores:
        """Score all cases, a share in each process. probabilities: of images (n, 1, H, W) uint8."""
        accelerator = self.accelerator
        mine = self.indices[accelerator.process_index :: accelerator.num_processes]
        parts = [
            score_batch(probabilities(batch.images), batch.masks[:, 0].numpy())
            for batch in batches(self.dataset, mine, max(1, stage.batch_size // accelerator.num_processes))
        ]
        return CaseScores.join(gather_object(parts) if accelerator.num_processes > 1 else parts)

    def _precision_of(self, net: Net) -> AbstractContextManager[Any]:
        """The run's, or float32 for a net whose masks bfloat16 would change: they choose epochs and triplet."""
        return nullcontext() if cancels(net) else self.accelerator.autocast()

    def samples(
        self, net: Net, stage: StageConfig, preprocessing: Preprocessing, count: int
    ) -> tuple[list[str], NDArray[np.float32], NDArray[np.float32], NDArray[np.uint8]]:
        """Return a few cases, always the same: ids, then images in [0, 1], probabilities and masks, all (n, S, S)."""
        net.eval()
        indices = _spread(self.dataset, self.indices, count)
        images = torch.from_numpy(np.stack([self.dataset.images[index] for index in indices]))[:, None]
        with self._precision_of(net):
            parts = [
                infer(net, part.to(self.accelerator.device), preprocessing, self.flip).cpu()
                for part in torch.split(images, stage.batch_size)
            ]
        ids = [self.dataset.cases[index].image_id for index in indices]
        shown = images[:, 0].numpy().astype(np.float32) / np.float32(255)
        return ids, shown, on_grid(torch.cat(parts).numpy(), self.dataset.size_px), self.dataset.masks(indices)


def _spread(dataset: Dataset, indices: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return the cases to draw after each epoch: three positives to a negative, spread over the fold."""
    positive = dataset.positive[indices]
    wanted = -(-count * 3 // 4)
    chosen = [
        part[np.linspace(0, len(part) - 1, min(number, len(part))).astype(np.int64)]
        for part, number in ((indices[positive], wanted), (indices[~positive], count - wanted))
        if len(part) and number > 0
    ]
    return np.concatenate(chosen) if chosen else indices[:0]
