"""What feeds the net: the order of cases in each epoch, and the inputs and targets that are made of a batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor

from pleura.config.recipe import Recipe
from pleura.config.training import StageConfig
from pleura.data.augmentation import augment
from pleura.data.dataset import Dataset
from pleura.data.loader import Batch, batches
from pleura.data.sampler import Shown, epoch_order, rank_bounds, rate_of_epoch
from pleura.errors import ConfigError
from pleura.models.encoders import Encoder
from pleura.models.preprocessing import REDUCTION, Preprocessing, normalise
from pleura.models.resize import mask_shares, resize_images
from pleura.training.features import Projections, strides_in_common
from pleura.training.refusals import global_batch_size
from pleura.training.run import Progress
from pleura.training.targets import Targets, labels_of_stages

SAMPLE_CASES = 64
"""Of whose features the mean and the deviation of a teacher's channels are taken."""


class Batches:
    """The training cases of one fold, as the stages of a recipe take them."""

    def __init__(
        self,
        recipe: Recipe,
        dataset: Dataset,
        accelerator: Accelerator,
        fold: int,
        mean: float | list[float],
        std: float | list[float],
    ) -> None:
        """mean, std: of all channels or of each, as the net expects them.

        Raises: ConfigError for labels that are not there; InputError, CheckpointError for a teacher that cannot be
        used.
        """
        self.recipe, self.dataset, self.accelerator, self.mean, self.std = recipe, dataset, accelerator, mean, std
        self.reduction = REDUCTION
        """How images are reduced, a name in `REDUCTIONS`: a run goes on with the one that it began with."""
        self.labels = labels_of_stages(recipe, dataset, fold, accelerator.device)
        """By the name of the stage."""

    def preprocessing(self, stage: StageConfig) -> Preprocessing:
        """Return what turns an image of the dataset into an input of the net in this stage."""
        channels = self.recipe.model.in_channels
        return Preprocessing(self.dataset.size_px, stage.size_px, channels, self.mean, self.std, self.reduction)

    def order(self, stage: StageConfig, epoch: int, history: Sequence[Mapping[str, Any]]) -> NDArray[np.int64]:
        """Return the rows of the dataset that an epoch of a stage shows, (steps, global batch).

        history: a row for each epoch of the stages before. The last batch is filled up with the epoch's first cases:
        BatchNorm suffers from a batch of one.
        Raises: ConfigError if there are fewer cases than processes.
        """
        shown, before = Shown(), 0
        # Counted over all stages, so that the rotations go on where the stage before left them.
        for earlier, each in self._epochs_before(stage, epoch, history):
            rate = rate_of_epoch(earlier.positive_rate, each, earlier.epochs)
            shown, before = shown.after(self._positive(earlier), rate, earlier.cases_per_epoch), before + 1
        rate = rate_of_epoch(stage.positive_rate, epoch, stage.epochs)
        chosen = epoch_order(self._positive(stage), rate, self.recipe.seed, before, shown, stage.cases_per_epoch)
        size = global_batch_size(stage, len(chosen), self.accelerator.num_processes)
        return np.resize(self.labels[stage.name].indices[chosen], (-(-len(chosen) // size), size))

    def _epochs_before(
        self, stage: StageConfig, epoch: int, history: Sequence[Mapping[str, Any]]
    ) -> Iterator[tuple[StageConfig, int]]:
        for earlier in self.recipe.stages:
            if earlier.name == stage.name:
                break
            yield from ((earlier, each) for each in range(sum(row["stage"] == earlier.name for row in history)))
        yield from ((stage, each) for each in range(epoch))

    def fewest_cases(self, stage: StageConfig) -> int:
        """Return how many cases the shortest epoch of a stage shows."""
        rates = (rate_of_epoch(stage.positive_rate, epoch, stage.epochs) for epoch in range(stage.epochs))
        positive = self._positive(stage)
        return min(Shown().after(positive, rate, stage.cases_per_epoch).cases for rate in rates)

    def _positive(self, stage: StageConfig) -> NDArray[np.bool_]:
        positive: NDArray[np.bool_] = self.dataset.positive[self.labels[stage.name].indices]
        return positive

    def read(self, order: NDArray[np.int64]) -> Iterator[Batch]:
        """Yield this process's part of each global batch (steps, global batch), read one ahead."""
        first, last = self._rows(order.shape[1])
        return batches(self.dataset, order[:, first:last].reshape(-1), last - first)

    def prepared(
        self,
        batch: Batch,
        stage: StageConfig,
        seed: tuple[int, ...],
        of: int,
        projections: Projections | None = None,
    ) -> tuple[Tensor, Targets]:
        """Resize and augment a part of a global batch of `of` cases on the device.

        projections: as the method makes them. Returns: inputs (n, in_channels, S, S), normalised, float32; their
        targets.
        """
        images, masks = self._augmented(batch, stage, seed, of)
        seen, autocast = images, self.accelerator.autocast
        if _size_of_teacher(stage) != stage.size_px:
            # The same warps of the same cases: what is drawn does not depend on the size.
            of_teacher = stage.model_copy(update={"size_px": stage.labels.teacher_size_px})
            seen, _ = self._augmented(batch, of_teacher, seed, of)
        targets = self.labels[stage.name].targets(batch.indices, seen, masks, autocast, projections)
        masks = targets.masks.expand(-1, self.recipe.model.classes, -1, -1)
        return self._inputs(images, stage), replace(targets, masks=masks)

    def refuse_features(self, stage: StageConfig, pupil: Encoder) -> None:
        """Refuse features of a stage's teacher that its pupil cannot learn. Raises: ConfigError."""
        teacher, where = self.labels[stage.name].teacher, f"stages.{stage.name}.labels.features"
        if teacher is None or not stage.labels.features:
            return
        try:
            strides_in_common(pupil, teacher.encoder)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}; take another teacher, or set it to 0") from error
        # Nets pad what is no multiple of their strides: of two sides the same share is padding only where none is.
        size_px, step = _size_of_teacher(stage), max(pupil.reductions[-1], teacher.encoder.reductions[-1])
        if size_px % step or stage.size_px % step:
            raise ConfigError(
                f"{where}: needs multiples of {step} px for the images of the stage and of the teacher, which have "
                f"{stage.size_px} and {size_px}; change size_px or labels.teacher_size_px, or set it to 0"
            )

    def projections(self, stage: StageConfig, pupil: Encoder) -> Projections | None:
        """Make what predicts the features of a stage's teacher from its pupil's; None where they are not learned.

        The same in every process.
        """
        labels = self.labels[stage.name]
        if labels.teacher is None or not stage.labels.features:
            return None
        teacher, size_px = labels.teacher, _size_of_teacher(stage)
        rows = np.unique(np.linspace(0, len(labels.indices) - 1, SAMPLE_CASES).astype(np.int64))
        sample = (
            teacher.with_features(resize_images(batch.images.to(self.accelerator.device), size_px, self.reduction))[1]
            for batch in batches(self.dataset, labels.indices[rows], 8)
        )
        seed = torch_seed(self.recipe.seed, self.recipe.stages.index(stage))
        return Projections(pupil, teacher.encoder, sample, seed).to(self.accelerator.device)

    def refresh_inputs(self, stage: StageConfig, progress: Progress) -> Iterator[Tensor]:
        """Yield inputs as the last epoch of a stage had them, `refresh_cases` in all; the same in every process."""
        order = self.order(stage, stage.epochs - 1, progress.history).reshape(-1)[: stage.averaging.refresh_cases]
        if len(order) > 1 and len(order) % stage.batch_size == 1:
            order = order[:-1]  # BatchNorm has no variance to take from a batch of one
        torch.manual_seed(torch_seed(self.recipe.seed, progress.stage, stage.epochs))
        for step, batch in enumerate(batches(self.dataset, order, stage.batch_size)):
            seed = (self.recipe.seed, progress.stage, stage.epochs, step)
            yield self._inputs(self._augmented(batch, stage, seed, len(batch.indices))[0], stage)

    def _augmented(self, batch: Batch, stage: StageConfig, seed: tuple[int, ...], of: int) -> tuple[Tensor, Tensor]:
        device, size_px = self.accelerator.device, stage.size_px
        larger = batch.images.to(device).float() / 255, batch.masks.to(device).float()
        images, masks = resize_images(larger[0], size_px, self.reduction), mask_shares(larger[1], size_px)
        first = self._rows(of)[0] if len(images) < of else 0
        # The old filter reduced first, and warped what was left.
        reduced = batch.images.shape[-1] > size_px and self.reduction == REDUCTION
        return augment(images, masks, stage.augment, seed, of=(first, of), larger=larger if reduced else None)

    def _inputs(self, images: Tensor, stage: StageConfig) -> Tensor:
        return normalise(images, self.preprocessing(stage)).contiguous(memory_format=torch.channels_last)

    def _rows(self, size: int) -> tuple[int, int]:
        return rank_bounds(size, self.accelerator.process_index, self.accelerator.num_processes)

    def teachers(self) -> dict[str, list[str]]:
        """Return the hashes of the weights of each teacher, by its path."""
        return {each.teacher.path: each.teacher.weights_sha256 for each in self.labels.values() if each.teacher}

    def changed_teachers(self, state: Mapping[str, Any]) -> list[str]:
        """Return a sentence for each teacher with other weights than when a run was stopped, under the same path."""
        before: Mapping[str, list[str]] = state.get("teachers", {})
        return [
            f"the weights of the teacher {path} were {_in_short(before[path])}, are {_in_short(hashes)}"
            for path, hashes in self.teachers().items()
            if path in before and hashes != before[path]
        ]


def _size_of_teacher(stage: StageConfig) -> int:
    """Return the side of the images that a stage's teacher sees."""
    return stage.labels.teacher_size_px or stage.size_px


def _in_short(hashes: Sequence[str]) -> str:
    return ", ".join(each[:12] for each in hashes)


def torch_seed(*numbers: int) -> int:
    """Return one seed for torch made of several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
