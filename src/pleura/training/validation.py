"""Validation while a net trains: metrics of the held-out cases, with the best triplet for them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from numpy.typing import NDArray

from pleura.config.recipe import Recipe
from pleura.config.training import StageConfig
from pleura.data.dataset import Dataset
from pleura.data.loader import batches
from pleura.decision.search import search
from pleura.decision.triplet import SIIM_PREVALENCE, Triplet, prevalence_weights
from pleura.errors import ConfigError, InputError
from pleura.evaluation.scoring import CaseScores, on_grid, score_batch
from pleura.inference.engines.torch import infer
from pleura.models.net import Net
from pleura.models.preprocessing import Preprocessing


@dataclass(frozen=True)
class Validation:
    """How some weights do on the validation cases, by the triplet that suits these cases best."""

    metrics: dict[str, float]
    triplet: Triplet
    score: float
    """The metric that `select` names."""


class Validator:
    """The validation cases of one fold, ready to measure nets at the size of a stage."""

    def __init__(self, accelerator: Accelerator, dataset: Dataset, positions: NDArray[np.int64], flip: bool) -> None:
        self.accelerator, self.dataset, self.positions, self.flip = accelerator, dataset, positions, flip

    def __call__(self, net: Net, stage: StageConfig, preprocessing: Preprocessing) -> Validation:
        """Measure a net; every process takes a share of the cases, and all get the same answer.

        As `pleura evaluate` does: probabilities are enlarged to the prepared size and scored by the masks as they are,
        so that no small finding is lost and the scores of stages of other sizes are of the same truth.
        """
        accelerator = self.accelerator
        net.eval()
        mine = self.positions[accelerator.process_index :: accelerator.num_processes]
        parts: list[CaseScores] = []
        for batch in batches(self.dataset, mine, max(1, stage.batch_size // accelerator.num_processes)):
            with accelerator.autocast():
                found = infer(net, batch.images.to(accelerator.device), preprocessing, self.flip).cpu().numpy()
            parts.append(score_batch(found, batch.masks[:, 0].numpy()))
        cases = CaseScores.join(gather_object(parts) if accelerator.num_processes > 1 else parts)
        weights = None
        if stage.select == "siim_dice_at_siim_prevalence":
            weights = prevalence_weights(cases.histograms.positive, SIIM_PREVALENCE)
        triplet = search(cases.histograms, weights).triplet
        metrics = cases.by(triplet).summary()
        return Validation(metrics, triplet, metrics[stage.select])

    def samples(
        self, net: Net, stage: StageConfig, preprocessing: Preprocessing, count: int
    ) -> tuple[list[str], NDArray[np.float32], NDArray[np.float32], NDArray[np.uint8]]:
        """The same few cases each time: ids, images, probabilities and masks, all (n, S, S), images in [0, 1]."""
        net.eval()
        positions = _spread(self.dataset, self.positions, count)
        images = torch.from_numpy(np.stack([self.dataset.images[position] for position in positions]))[:, None]
        with self.accelerator.autocast():
            parts = [
                infer(net, part.to(self.accelerator.device), preprocessing, self.flip).cpu()
                for part in torch.split(images, stage.batch_size)
            ]
        ids = [self.dataset.cases[position].image_id for position in positions]
        shown = images[:, 0].numpy().astype(np.float32) / np.float32(255)
        return ids, shown, on_grid(torch.cat(parts).numpy(), self.dataset.size_px), self.dataset.masks(positions)


def refuse_what_cannot_be_learned_or_scored(recipe: Recipe, dataset: Dataset, fold: int) -> None:
    """Told before any image is read.

    Raises: InputError if the fold has nothing to learn from, or to score by; ConfigError for a share of positives where
    there are none.
    """
    learned, scored = (dataset.positive[dataset.positions(part, fold)] for part in ("train", "val"))
    for stage in recipe.stages:
        is_taught = stage.labels.teacher is not None and stage.labels.teacher_share > 0
        if not learned.any() and not is_taught:
            raise InputError(
                f"{dataset.folder}: none of the {len(learned)} training cases of fold {fold} has a pneumothorax: "
                f"stages.{stage.name} has nothing to learn from; prepare it with the masks of positive cases"
            )
        if not learned.any() and stage.positive_rate is not None:
            raise ConfigError(
                f"stages.{stage.name}.positive_rate: none of the {len(learned)} training cases of fold {fold} has a "
                "pneumothorax; set it to null"
            )
        if not scored.any():
            raise InputError(
                f"{dataset.folder}: none of the {len(scored)} validation cases of fold {fold} has a pneumothorax: by "
                f"stages.{stage.name}.select={stage.select} finding nothing would be perfect; choose another --fold, "
                "or prepare it with fewer --folds"
            )
        if scored.all() and stage.select in ("siim_dice_at_siim_prevalence", "auroc"):
            raise InputError(
                f"{dataset.folder}: fold {fold} has positives alone, so that stages.{stage.name}.select={stage.select} "
                "cannot be had; choose another --fold, or set training.select=siim_dice"
            )


def _spread(dataset: Dataset, positions: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Cases to look at after each epoch, always the same: three positives to a negative, spread over the fold."""
    positive = dataset.positive[positions]
    wanted = -(-count * 3 // 4)
    chosen = [
        part[np.linspace(0, len(part) - 1, min(number, len(part))).astype(np.int64)]
        for part, number in ((positions[positive], wanted), (positions[~positive], count - wanted))
        if len(part) and number > 0
    ]
    return np.concatenate(chosen) if chosen else positions[:0]


def batch_of(stage: StageConfig, cases: int, processes: int) -> int:
    """The images of a batch of an epoch of so many cases. Raises: ConfigError if there are fewer than processes."""
    if cases < processes:
        raise ConfigError(
            f"stages.{stage.name}: an epoch has {cases} training case{'s' if cases > 1 else ''}, fewer than the "
            f"{processes} processes that share it; use as many processes, or fewer"
        )
    return min(stage.batch_size, cases - cases % processes)
