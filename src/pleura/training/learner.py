"""The net of a run on its devices, and what feeds it: orders of cases, inputs, checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from numpy.typing import NDArray
from torch import Tensor, nn

from pleura import __version__
from pleura.config.recipe import Recipe
from pleura.config.training import StageConfig
from pleura.data.augmentation import augment
from pleura.data.dataset import Dataset
from pleura.data.loader import Batch, batches
from pleura.data.sampler import Shown, epoch_order, rank_bounds, rate_of_epoch
from pleura.errors import ConfigError
from pleura.models.build import build_model, preprocessing_of
from pleura.models.checkpoint import Checkpoint, load_checkpoint, load_weights
from pleura.models.header import unlisted
from pleura.models.identity import weights_hash
from pleura.models.preprocessing import Preprocessing, normalise
from pleura.models.resize import OLD_REDUCTION, REDUCTION, mask_shares, resize_images
from pleura.models.seen import STARTED, SeenCases, among, case_key
from pleura.training.distributed import AllOutputs, machine, synchronise_batchnorm
from pleura.training.optimizers import Freezer
from pleura.training.run import Progress
from pleura.training.targets import Labels, Targets, Teacher, refuse_leaks
from pleura.training.validation import Validation, batch_of


class Learner:
    """One net and the cases of one fold."""

    def __init__(
        self, recipe: Recipe, dataset: Dataset, accelerator: Accelerator, fold: int, fresh: bool = True
    ) -> None:
        """fresh: whether the encoder begins with its pretrained weights; false where others take their place.

        Raises: ConfigError for a net that cannot be built or labels that are not there; InputError for weights or a
        fold that are not there, or a teacher that has learned from validation cases; CheckpointError for a damaged one.
        """
        self.recipe, self.dataset, self.accelerator, self.fold = recipe, dataset, accelerator, fold
        self.train_positions, self.val_positions = dataset.positions("train", fold), dataset.positions("val", fold)
        set_seed(recipe.seed)
        # Channels last is up to twice as fast on CPUs, and what tensor cores want.
        begins_with = recipe.model if fresh else recipe.model.model_copy(update={"pretrained": False})
        net = build_model(begins_with)
        net = net.to(accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.batchnorm_is_global = True
        if accelerator.num_processes > 1:
            net, self.batchnorm_is_global = synchronise_batchnorm(net, accelerator.device)
        self.net, self.model = net, accelerator.prepare_model(AllOutputs(net))
        encoder = net.encoder
        self.freezer = Freezer(encoder)
        for stage in recipe.stages:
            if stage.freeze_encoder_stride:
                encoder.until_stride(stage.freeze_encoder_stride)  # refused now, not hours later
        self.seen = SeenCases(unknown=tuple(unlisted({"model": {"pretrained": begins_with.pretrained}}, {})))
        """What the weights have learned from and were chosen on so far, this fold's validation cases apart."""
        self.started_from: list[str] = []
        """Hashes of the weights that `start_from` has taken up, and of those that they had started from."""
        self.taught: dict[str, Any] = {}
        """Of all teachers so far: `weights_sha256`, and whether each `tells_what_it_has_seen`; empty: none so far."""
        self.reduction = REDUCTION
        """How images are reduced, a name in `REDUCTIONS`: a run goes on with the one that it began with."""
        expected = preprocessing_of(net)
        self.mean, self.std = expected.mean, expected.std
        self._teachers: dict[str, Teacher] = {}
        self.labels = {
            stage.name: Labels(stage, dataset, self.train_positions, self._teacher) for stage in recipe.stages
        }
        for stage in recipe.stages:
            self._refuse_lone_images(stage)

    @property
    def writes(self) -> bool:
        """Whether this process is the one that writes files and the log."""
        return bool(self.accelerator.is_main_process)

    @property
    def may_overflow(self) -> bool:
        """Whether a gradient that is not finite is fp16's scale alone: a step to leave out, not a net that diverges.

        At a scale below 1 the gradient itself is at fault.
        """
        scaler = self.accelerator.scaler
        return scaler is not None and scaler.get_scale() >= 1

    def start_from(self, path: Path) -> None:
        """Begin with the weights of a checkpoint of another run.

        Raises: CheckpointError; ConfigError if it takes other images; InputError if it has learned from cases that this
        fold validates on.
        """
        checkpoint = load_checkpoint(path)
        refuse_leaks(path, checkpoint.seen, self.dataset, self.fold, "start from other weights")
        channels = checkpoint.model.in_channels
        if channels != self.recipe.model.in_channels:
            raise ConfigError(f"{path}: its net takes {channels} channels; set model.in_channels={channels} for it")
        self.take_up(checkpoint, path)
        if not checkpoint.seen.is_complete:
            self.seen |= SeenCases(unknown=(STARTED,))
        self.started_from = [*self.started_from, weights_hash(checkpoint.weights)]

    def _teacher(self, path: str) -> Teacher:
        """A teacher, loaded once for all stages."""
        if path not in self._teachers:
            teacher = Teacher(path, self.accelerator.device)
            refuse_leaks(path, teacher.seen, self.dataset, self.fold, "take another teacher")
            self._teachers[path] = teacher
        return self._teachers[path]

    def take_up(self, checkpoint: Checkpoint, origin: Path | str) -> None:
        """Take the weights of a checkpoint, and remember which cases it has seen. Raises: CheckpointError."""
        self.load(checkpoint.weights, origin)
        self.seen = checkpoint.seen
        self.taught = dict(checkpoint.provenance.get("teacher") or {})
        self.started_from = list(checkpoint.provenance.get("started_from", []))

    def go_on(self, state: Mapping[str, Any], stages: int, origin: Path | str) -> None:
        """Go on from a state in which so many stages have begun. Raises: CheckpointError."""
        self.load(state["model"], origin)
        self.taught, self.started_from = state.get("taught", {}), state.get("started_from", [])
        self.reduction = state.get("reduction", OLD_REDUCTION)
        earlier = {"teacher": self.taught, "started_from": self.started_from}  # of a state that says no more
        unsaid = () if "unknown" in state["met"] else unlisted(state.get("recipe", {}), earlier)
        self.seen = SeenCases.of(state["met"], unsaid)
        if self.accelerator.scaler and state.get("scaler"):
            self.accelerator.scaler.load_state_dict(state["scaler"])
        if "teachers" not in state:  # of a version whose states did not name the cases that the run had learned from
            for stage in self.recipe.stages[:stages]:
                self.meet(stage)

    def state(self) -> dict[str, Any]:
        """What `go_on` takes up, and by which weights of which teachers."""
        teachers = {path: teacher.weights_sha256 for path, teacher in self._teachers.items()}
        origin = {"taught": self.taught, "started_from": self.started_from, "teachers": teachers}
        scaler = self.accelerator.scaler
        part = {"model": self.net.state_dict(), "scaler": scaler.state_dict() if scaler else None}
        return {**part, "met": self.seen.header(), "reduction": self.reduction, **origin}

    def changed_teachers(self, state: Mapping[str, Any]) -> list[str]:
        """The teachers that are others than when a run was stopped, under the same path; one sentence each."""
        before: Mapping[str, list[str]] = state.get("teachers", {})
        now = {path: teacher.weights_sha256 for path, teacher in self._teachers.items() if path in before}
        return [
            f"the weights of the teacher {path} were {_in_short(before[path])}, are {_in_short(hashes)}"
            for path, hashes in now.items()
            if hashes != before[path]
        ]

    def load(self, weights: Mapping[str, Tensor], origin: Path | str) -> None:
        """Put weights into the net. Raises: CheckpointError if they are another net's."""
        load_weights(self.net, weights, origin)

    def freeze_encoder(self, stage: StageConfig, epoch: int) -> None:
        """Let the encoder learn, or what of it learns in this epoch (0, 1, ...) of a stage. Raises: ConfigError."""
        encoder = self.net.encoder
        frozen = encoder.until_stride(stage.freeze_encoder_stride) if stage.freeze_encoder_stride else []
        if epoch < stage.freeze_encoder_epochs:
            frozen = list(encoder.parameters())
        if self.freezer.freeze(frozen) and self.accelerator.num_processes > 1:
            # DistributedDataParallel notes which parameters have gradients when it is made.
            self.model = self.accelerator.prepare_model(AllOutputs(self.net))

    def to_train(self) -> None:
        """Set the net to train; what is frozen of the encoder keeps its BatchNorm statistics."""
        self.model.train()
        self.freezer.hold_statistics()

    def preprocessing(self, stage: StageConfig) -> Preprocessing:
        """What happens to an image of the dataset before the net sees it in this stage."""
        channels = self.recipe.model.in_channels
        return Preprocessing(self.dataset.size_px, stage.size_px, channels, self.mean, self.std, self.reduction)

    def order(self, stage: StageConfig, epoch: int, history: Sequence[Mapping[str, Any]]) -> NDArray[np.int64]:
        """Positions of the cases of an epoch of a stage, (steps, global batch).

        The last batch is filled up with the epoch's first cases: BatchNorm suffers from a batch of one.
        Raises: ConfigError if there are fewer cases than processes.
        """
        positions, processes = self.labels[stage.name].positions, self.accelerator.num_processes
        positive = self.dataset.positive[positions]
        shown, before = Shown(), 0
        # Counted over all stages, so that the rotations go on where the stage before left them.
        for earlier, each in self._epochs_before(stage, epoch, history):
            cases = self.dataset.positive[self.labels[earlier.name].positions]
            rate = rate_of_epoch(earlier.positive_rate, each, earlier.epochs)
            shown, before = shown.after(cases, rate, earlier.cases_per_epoch), before + 1
        rate = rate_of_epoch(stage.positive_rate, epoch, stage.epochs)
        chosen = epoch_order(positive, rate, self.recipe.seed, before, shown, stage.cases_per_epoch)
        size = batch_of(stage, len(chosen), processes)
        return np.resize(positions[chosen], (-(-len(chosen) // size), size))

    def _epochs_before(
        self, stage: StageConfig, epoch: int, history: Sequence[Mapping[str, Any]]
    ) -> Iterator[tuple[StageConfig, int]]:
        for earlier in self.recipe.stages:
            if earlier.name == stage.name:
                break
            yield from ((earlier, each) for each in range(sum(row["stage"] == earlier.name for row in history)))
        yield from ((stage, each) for each in range(epoch))

    def _refuse_lone_images(self, stage: StageConfig) -> None:
        """BatchNorm has no variance to take from one image. Raises: ConfigError."""
        processes = self.accelerator.num_processes
        sees = 1 if self.batchnorm_is_global else processes
        cases = min(self._cases_of(stage, epoch) for epoch in range(stage.epochs))
        size = batch_of(stage, cases, processes)
        if size // sees > 1 or not self._trains_batchnorm(stage):
            return
        setting, way_out = "batch_size", f"set it to {2 * sees} or more, or take a net without BatchNorm"
        if stage.batch_size // sees > 1:
            if stage.cases_per_epoch == cases:
                setting = "cases_per_epoch"
            elif stage.positive_rate is not None:
                setting = "positive_rate"
            way_out = f"an epoch has {cases} training case{'s' if cases > 1 else ''}; it takes {2 * sees} at least"
        share = f", shared by {processes} processes," if sees > 1 else ""
        raise ConfigError(
            f"stages.{stage.name}.{setting}: a batch of {size}{share} leaves BatchNorm one image of {stage.size_px} px "
            f"to take a variance from; {way_out}"
        )

    def _cases_of(self, stage: StageConfig, epoch: int) -> int:
        positive = self.dataset.positive[self.labels[stage.name].positions]
        rate = rate_of_epoch(stage.positive_rate, epoch, stage.epochs)
        return Shown().after(positive, rate, stage.cases_per_epoch).cases

    def _trains_batchnorm(self, stage: StageConfig) -> bool:
        """Whether some epoch of a stage has a BatchNorm that is not frozen."""
        encoder = self.net.encoder
        frozen = set(encoder.until_stride(stage.freeze_encoder_stride)) if stage.freeze_encoder_stride else set()
        if stage.freeze_encoder_epochs >= stage.epochs:
            frozen = set(encoder.parameters())
        kinds = nn.modules.batchnorm._BatchNorm
        return any(isinstance(module, kinds) and module.weight not in frozen for module in self.net.modules())

    def batches(self, order: NDArray[np.int64]) -> Iterator[Batch]:
        """This process's part of each global batch (steps, global batch), read one ahead."""
        first, last = self._rows(order.shape[1])
        return batches(self.dataset, order[:, first:last].reshape(-1), last - first)

    def prepared(self, batch: Batch, stage: StageConfig, seed: tuple[int, ...], of: int) -> tuple[Tensor, Targets]:
        """A part of a global batch of `of` cases as the net takes it, resized and augmented on the device.

        Returns: inputs (n, in_channels, S, S), normalised, float32; what the net shall say of them.
        """
        images, masks = self._augmented(batch, stage, seed, of)
        targets = self.labels[stage.name].targets(batch.positions, images, masks, self.accelerator.autocast)
        masks = targets.masks.expand(-1, self.recipe.model.classes, -1, -1)
        return self._inputs(images, stage), replace(targets, masks=masks)

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

    def inputs_like_those_of(self, stage: StageConfig, progress: Progress) -> Iterator[Tensor]:
        """Inputs as the stage's last epoch trained on them, `refresh_cases` in all; the same in every process."""
        order = self.order(stage, stage.epochs - 1, progress.history).reshape(-1)[: stage.averaging.refresh_cases]
        if len(order) > 1 and len(order) % stage.batch_size == 1:
            order = order[:-1]  # BatchNorm has no variance to take from a batch of one
        torch.manual_seed(number_of(self.recipe.seed, progress.stage, stage.epochs))
        for step, batch in enumerate(batches(self.dataset, order, stage.batch_size)):
            seed = (self.recipe.seed, progress.stage, stage.epochs, step)
            yield self._inputs(self._augmented(batch, stage, seed, len(batch.positions))[0], stage)

    def checkpoint(self, stage: StageConfig, epoch: int, validation: Validation, what: str = "epoch") -> Checkpoint:
        """The net as it is, with what is known of it. what: `epoch`, or the kind of average that it is."""
        tuned = f"val, fold {self.fold}, at {stage.size_px} px, triplet tuned on the same cases"
        scores = {key: round(value, 6) for key, value in validation.metrics.items() if np.isfinite(value)}
        return Checkpoint(
            model=self.recipe.model,
            weights={key: tensor.detach().clone() for key, tensor in self.net.state_dict().items()},
            preprocessing=self.preprocessing(stage),
            triplet=validation.triplet,
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
                "machine": machine(self.accelerator.device, self.accelerator.num_processes),
                "pleura": __version__,
                **({"started_from": self.started_from} if self.started_from else {}),
                **({"teacher": self.taught} if self.taught else {}),
            },
        )

    def meet(self, stage: StageConfig) -> None:
        """Remember the cases that a stage is about to learn from, and those that its teacher has seen.

        What it knows of them, the net is about to learn. Kept, because a resumed run may have other settings.
        """
        labels = self.labels[stage.name]
        self.seen |= SeenCases(train=tuple(self._keys(labels.positions)))
        if teacher := labels.teacher:
            self.seen |= teacher.seen
            hashes = dict.fromkeys([*self.taught.get("weights_sha256", []), *teacher.weights_sha256])
            tells = teacher.tells and self.taught.get("tells_what_it_has_seen", True)
            self.taught = {"weights_sha256": list(hashes), "tells_what_it_has_seen": tells}

    def _seen(self) -> SeenCases:
        """What the weights have seen now or before; a case they learn from is no case they are merely chosen on."""
        chosen = list(dict.fromkeys([*self._keys(self.val_positions), *self.seen.val]))
        learned = among(self.seen.train, chosen)
        return replace(self.seen, val=tuple(key for row, key in enumerate(chosen) if not learned[row]))

    def _rows(self, size: int) -> tuple[int, int]:
        return rank_bounds(size, self.accelerator.process_index, self.accelerator.num_processes)

    def _keys(self, positions: NDArray[np.int64]) -> list[str]:
        return [case_key(self.dataset.cases[position].image_id) for position in positions]


def _in_short(hashes: Sequence[str]) -> str:
    return ", ".join(each[:12] for each in hashes)


def number_of(*seed: int) -> int:
    """One seed for torch made of several numbers."""
    return int(np.random.SeedSequence(seed).generate_state(1)[0])
