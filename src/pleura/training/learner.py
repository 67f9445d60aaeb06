"""The net of a run on its devices, and what feeds it: orders of cases, inputs, checkpoints."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import set_seed
from numpy.typing import NDArray
from torch import Tensor, nn

from pleura import __version__
from pleura.data.augment import augment
from pleura.data.batches import Batch, batches
from pleura.data.dataset import Dataset
from pleura.data.sampler import epoch_order, negatives_wanted, rank_bounds, rate_of_epoch
from pleura.errors import ConfigError, InputError
from pleura.learn.checkpoint import Checkpoint, case_key, load_checkpoint, load_weights
from pleura.learn.optimizers import Freezer
from pleura.learn.processes import synchronise_batchnorm
from pleura.learn.run import Progress
from pleura.model import build_model
from pleura.model.encoders import Encoder
from pleura.model.inference import Preprocessing, normalise, resize_images, resize_masks
from pleura.settings import Recipe, StageConfig
from pleura.training.validate import Validation


def build_accelerator(recipe: Recipe) -> Accelerator:
    """The devices and processes of this run, as accelerate or torchrun have launched it; bfloat16 on GPUs."""
    # A head whose loss has no weight gets no gradient, which DistributedDataParallel has to be told.
    heads = recipe.model.presence_head or recipe.model.deep_supervision
    unused = DistributedDataParallelKwargs(find_unused_parameters=heads)
    has_gpu = torch.cuda.is_available()
    # Without being told, accelerate takes processes on CPUs for so many runs of one.
    on_cpus = not has_gpu and int(os.environ.get("WORLD_SIZE", "1")) > 1
    return Accelerator(mixed_precision="bf16" if has_gpu else "no", cpu=on_cpus, kwargs_handlers=[unused])


class Learner:
    """One net and the cases of one fold."""

    def __init__(self, recipe: Recipe, dataset: Dataset, accelerator: Accelerator, fold: int) -> None:
        """Raises: ConfigError for a net that cannot be built, InputError for weights or a fold that are not there."""
        self.recipe, self.dataset, self.accelerator, self.fold = recipe, dataset, accelerator, fold
        self.train_positions, self.val_positions = dataset.positions("train", fold), dataset.positions("val", fold)
        set_seed(recipe.seed)
        # Channels last is up to twice as fast on CPUs, and what tensor cores want.
        net: nn.Module = build_model(recipe.model)
        net = net.to(accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.batchnorm_is_global = True
        if accelerator.num_processes > 1:
            net, self.batchnorm_is_global = synchronise_batchnorm(net, accelerator.device)
        self.net, self.model = net, accelerator.prepare_model(net)
        encoder = cast(Encoder, net.encoder)
        self.freezer = Freezer(encoder)
        self.met: dict[str, list[str]] = {"train": [], "val": []}
        scaled = recipe.model.input_scaling == "encoder"
        self.mean, self.std = (encoder.mean, encoder.std) if scaled else (0.0, 1.0)

    @property
    def writes(self) -> bool:
        """Whether this process is the one that writes files and the log."""
        return bool(self.accelerator.is_main_process)

    def start_from(self, path: Path) -> None:
        """Begin with the weights of a checkpoint of another run.

        Raises: CheckpointError; ConfigError if it takes other images; InputError if it has learned from cases that this
        fold validates on.
        """
        checkpoint = load_checkpoint(path)
        leaked = set(checkpoint.seen.get("train", [])) & set(self._keys(self.val_positions))
        if leaked:
            raise InputError(
                f"{path}: has learned from {len(leaked)} of the validation cases of fold {self.fold}; train the fold "
                "that it left out, or start from other weights"
            )
        channels = checkpoint.model.in_channels
        if channels != self.recipe.model.in_channels:
            raise ConfigError(f"{path}: its net takes {channels} channels; set model.in_channels={channels} for it")
        self.take_up(checkpoint, path)

    def take_up(self, checkpoint: Checkpoint, origin: Path | str) -> None:
        """Take the weights of a checkpoint, and remember which cases it has met. Raises: CheckpointError."""
        self.load(checkpoint.weights, origin)
        self.met = {part: checkpoint.seen.get(part, []) for part in ("train", "val")}

    def load(self, weights: Mapping[str, Tensor], origin: Path | str) -> None:
        """Put weights into the net. Raises: CheckpointError if they are another net's."""
        load_weights(self.net, weights, origin)

    def freeze_encoder(self, frozen: bool) -> None:
        """Let the encoder learn, or not."""
        if self.freezer.freeze(frozen) and self.accelerator.num_processes > 1:
            # DistributedDataParallel notes which parameters have gradients when it is made.
            self.model = self.accelerator.prepare_model(self.net)

    def to_train(self) -> None:
        """Set the net to train; a frozen encoder keeps its BatchNorm statistics."""
        self.model.train()
        self.freezer.hold_statistics()

    def preprocessing(self, stage: StageConfig) -> Preprocessing:
        """What happens to an image of the dataset before the net sees it in this stage."""
        channels = self.recipe.model.in_channels
        return Preprocessing(self.dataset.size_px, stage.size_px, channels, self.mean, self.std)

    def order(self, stage: StageConfig, epoch: int, history: Sequence[Mapping[str, Any]]) -> NDArray[np.int64]:
        """Positions of the cases of an epoch of a stage, (steps, global batch).

        The last batch is filled up with the epoch's first cases: BatchNorm suffers from a batch of one.
        Raises: ConfigError if there are fewer cases than processes.
        """
        positive, processes = self.dataset.positive[self.train_positions], self.accelerator.num_processes
        before = [
            rate_of_epoch(earlier.positive_rate, each, earlier.epochs)
            for earlier, each in self._epochs_before(stage, epoch, history)
        ]
        # Counted over all stages, so that the rotation of negatives goes on where the stage before left it.
        shown = sum(negatives_wanted(positive, rate) for rate in before)
        rate = rate_of_epoch(stage.positive_rate, epoch, stage.epochs)
        chosen = epoch_order(positive, rate, self.recipe.seed, len(before), shown)[: stage.cases_per_epoch]
        size = min(stage.batch_size, len(chosen) - len(chosen) % processes)
        if size == 0:
            raise ConfigError(f"{len(chosen)} training cases cannot be shared by {processes} processes; use fewer")
        return np.resize(self.train_positions[chosen], (-(-len(chosen) // size), size))

    def _epochs_before(
        self, stage: StageConfig, epoch: int, history: Sequence[Mapping[str, Any]]
    ) -> Iterator[tuple[StageConfig, int]]:
        for earlier in self.recipe.stages:
            if earlier.name == stage.name:
                break
            yield from ((earlier, each) for each in range(sum(row["stage"] == earlier.name for row in history)))
        yield from ((stage, each) for each in range(epoch))

    def batches(self, order: NDArray[np.int64]) -> Iterator[Batch]:
        """This process's part of each global batch (steps, global batch), read one ahead."""
        first, last = self._rows(order.shape[1])
        return batches(self.dataset, order[:, first:last].reshape(-1), last - first)

    def prepared(self, batch: Batch, stage: StageConfig, seed: tuple[int, ...], of: int) -> tuple[Tensor, Tensor]:
        """A part of a global batch of `of` cases as the net takes it, resized and augmented on the device.

        Returns: inputs (n, in_channels, S, S), normalised, and masks (n, classes, S, S), float32.
        """
        device = self.accelerator.device
        images = resize_images(batch.images.to(device), stage.size_px)
        masks = resize_masks(batch.masks.to(device), stage.size_px)
        first = self._rows(of)[0] if len(images) < of else 0
        images, masks = augment(images, masks, stage.augment, seed, of=(first, of))
        inputs = normalise(images, self.preprocessing(stage)).contiguous(memory_format=torch.channels_last)
        return inputs, masks.expand(-1, self.recipe.model.classes, -1, -1)

    def inputs_like_those_of(self, stage: StageConfig, progress: Progress) -> Iterator[Tensor]:
        """Inputs as the stage's last epoch trained on them, `refresh_cases` in all; the same in every process."""
        order = self.order(stage, stage.epochs - 1, progress.history).reshape(-1)[: stage.averaging.refresh_cases]
        if len(order) > 1 and len(order) % stage.batch_size == 1:
            order = order[:-1]  # BatchNorm has no variance to take from a batch of one
        torch.manual_seed(number_of(self.recipe.seed, progress.stage, stage.epochs))
        for step, batch in enumerate(batches(self.dataset, order, stage.batch_size)):
            seed = (self.recipe.seed, progress.stage, stage.epochs, step)
            yield self.prepared(batch, stage, seed, len(batch.positions))[0]

    def checkpoint(self, stage: StageConfig, epoch: int, validation: Validation, what: str = "epoch") -> Checkpoint:
        """The net as it is, with what is known of it. what: `epoch`, or the kind of average that it is."""
        tuned = f"val, fold {self.fold}, at {stage.size_px} px, triplet tuned on the same cases"
        scores = {key: round(value, 6) for key, value in validation.metrics.items() if np.isfinite(value)}
        return Checkpoint(
            model=self.recipe.model,
            weights={key: tensor.detach().clone() for key, tensor in self.net.state_dict().items()},
            preprocessing=asdict(self.preprocessing(stage)),
            triplet=asdict(validation.triplet),
            recipe=self.recipe.model_dump(mode="json"),
            scores={"split": tuned, **scores},
            seen=self._seen(),
            provenance={
                "data_sha256": self.dataset.data_hash,
                "fold": self.fold,
                "stage": stage.name,
                "epoch": epoch,
                "weights": what,
                "seed": self.recipe.seed,
                "pleura": __version__,
            },
        )

    def _seen(self) -> dict[str, list[str]]:
        """What the weights have met now or before; a case they learn from is no case they are merely chosen on."""
        learned = dict.fromkeys([*self._keys(self.train_positions), *self.met["train"]])
        chosen = dict.fromkeys([*self._keys(self.val_positions), *self.met["val"]])
        return {"train": list(learned), "val": [key for key in chosen if key not in learned]}

    def _rows(self, size: int) -> tuple[int, int]:
        return rank_bounds(size, self.accelerator.process_index, self.accelerator.num_processes)

    def _keys(self, positions: NDArray[np.int64]) -> list[str]:
        return [case_key(self.dataset.cases[position].image_id) for position in positions]


def number_of(*seed: int) -> int:
    """One seed for torch made of several numbers."""
    return int(np.random.SeedSequence(seed).generate_state(1)[0])
