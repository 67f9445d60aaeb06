"""Validation while a net trains: metrics of the held-out cases, with the best triplet for them."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from numpy.typing import NDArray

from pleura.config.training import StageConfig
from pleura.data.dataset import Dataset
from pleura.data.loader import batches
from pleura.decision.search import Histograms, search
from pleura.decision.triplet import SIIM_PREVALENCE, Triplet, prevalence_weights
from pleura.evaluation.scoring import CaseScores, on_grid, score_batch
from pleura.inference.engines.torch import infer
from pleura.models.cancelling import cancels
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
        accelerator = self.accelerator
        net.eval()
        mine = self.indices[accelerator.process_index :: accelerator.num_processes]
        parts: list[CaseScores] = []
        for batch in batches(self.dataset, mine, max(1, stage.batch_size // accelerator.num_processes)):
            with self._precision_of(net):
                found = infer(net, batch.images.to(accelerator.device), preprocessing, self.flip).cpu().numpy()
            parts.append(score_batch(found, batch.masks[:, 0].numpy()))
        cases = CaseScores.join(gather_object(parts) if accelerator.num_processes > 1 else parts)
        triplet = best_triplet(cases.histograms, stage.select)
        metrics = cases.by(triplet).summary()
        return Validation(metrics, triplet, metrics[stage.select])

    def _precision_of(self, net: Net) -> AbstractContextManager[Any]:
        """The run's, or float32 where a predictor takes that: triplet and choice of epochs are for what it finds."""
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
