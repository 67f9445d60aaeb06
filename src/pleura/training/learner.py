"""The net of a run on its devices, its optimizer and averages, and the steps they take."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, channels_last, nn

from pleura import __version__
from pleura.config.recipe import Recipe
from pleura.config.training import StageConfig
from pleura.data.dataset import Dataset
from pleura.errors import ConfigError, OutputError
from pleura.models.build import build_model, preprocessing_of
from pleura.models.checkpoint import Checkpoint, load_checkpoint, load_weights
from pleura.models.depthwise import keep_strided_depthwise
from pleura.models.header import unlisted
from pleura.models.preprocessing import OLD_REDUCTION
from pleura.training.averaging import RunningAverages
from pleura.training.batches import Batches
from pleura.training.devices import precision_name
from pleura.training.distributed import AllOutputs, machine, share_buffers, synchronise_batchnorm
from pleura.training.features import Projections
from pleura.training.optimizers import Freezer, build_optimizer, resume_optimizer
from pleura.training.provenance import Provenance
from pleura.training.refusals import refuse_lone_images
from pleura.training.schedule import Schedule
from pleura.training.targets import refuse_leaks
from pleura.training.validation import Validation


class Learner:
    """One net that learns from the cases of one fold, one stage after the other."""

    stage: StageConfig
    optimizer: Any
    schedule: Schedule
    averages: RunningAverages
    """These are of the stage that `begin_stage` was last given."""

    def __init__(
        self, recipe: Recipe, dataset: Dataset, accelerator: Accelerator, fold: int, fresh: bool = True
    ) -> None:
        """fresh: whether the encoder begins with its pretrained weights; false where others take their place.

        Raises: ConfigError for a net that cannot be built or labels that are not there; InputError for weights or a
        fold that are not there, or a teacher that has learned from validation cases; CheckpointError for a damaged one.
        """
        self.recipe, self.dataset, self.accelerator, self.fold = recipe, dataset, accelerator, fold
        set_seed(recipe.seed)
        begins_with = recipe.model if fresh else recipe.model.model_copy(update={"pretrained": False})
        net = build_model(begins_with)
        # Channels last is up to twice as fast on CPUs, and what tensor cores want.
        net = net.to(accelerator.device, memory_format=channels_last)  # type: ignore[call-overload]
        self.batchnorm_is_global = True
        if accelerator.num_processes > 1:
            net, self.batchnorm_is_global = synchronise_batchnorm(net, accelerator.device)
        self.precision = precision_name(accelerator)
        """What its passes compute in: `float32`, `bfloat16` or `float16`."""
        if self.precision != "float32" and accelerator.device.type == "cpu":
            keep_strided_depthwise(net)
        self.net, self.model = net, accelerator.prepare_model(AllOutputs(net))
        self.projections: Projections | None = None
        """Of the teacher's features that the stage learns."""
        self.is_fresh = True
        """Whether no training has made its weights."""
        self.encoder = net.encoder
        self.freezer = Freezer(self.encoder)
        for stage in recipe.stages:
            self._frozen(stage, 0)  # a stride that cannot be frozen is refused now, not hours later
        unknown = unlisted({"model": {"pretrained": begins_with.pretrained}}, {})
        self.provenance = Provenance(dataset, fold, unknown)
        expected = preprocessing_of(net)
        self.batches = Batches(recipe, dataset, accelerator, fold, expected.mean, expected.std)
        apart = 1 if self.batchnorm_is_global else accelerator.num_processes
        for stage in recipe.stages:
            cases, trains_batchnorm = self.batches.fewest_cases(stage), self._trains_batchnorm(stage)
            self.batches.refuse_features(stage, self.encoder)
            refuse_lone_images(stage, cases, accelerator.num_processes, apart, trains_batchnorm)

    @property
    def writes(self) -> bool:
        """Whether this process is the one that writes files and the log."""
        return bool(self.accelerator.is_main_process)

    @property
    def may_overflow(self) -> bool:
        """Whether a gradient that is not finite may come from the loss scale of fp16: the step is then left out.

        At a scale below 1 the gradient itself is at fault.
        """
        scaler = self.accelerator.scaler
        return scaler is not None and scaler.get_scale() >= 1

    @property
    def lr(self) -> float:
        """The learning rate of the last step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def begin_stage(self, stage: StageConfig, state: Mapping[str, Any] | None = None) -> None:
        """Make the optimizer, schedule and averages of a stage; state: of a run that was stopped in it."""
        self.stage = stage
        # The optimizer takes what can learn, also if that is frozen for a while.
        self.freeze_encoder(stage.freeze_encoder_epochs)
        if projections := self.batches.projections(stage, self.encoder):
            if state:
                _load_projections(projections, state, stage)
            self.projections = projections
            self.model = self.accelerator.prepare_model(AllOutputs(self.net, projections))
        elif self.projections:
            self.projections, self.model = None, self.accelerator.prepare_model(AllOutputs(self.net))
        learning = [*self.net.parameters(), *(projections.parameters() if projections else ())]
        self.optimizer = self.accelerator.prepare_optimizer(build_optimizer(learning, stage))
        self.schedule = Schedule(stage, **(state["schedule"] if state else {}))
        self.averages = RunningAverages(self.net, stage.averaging, stage.epochs)
        if state:
            resume_optimizer(self.optimizer, state["optimizer"], stage)
            self.averages.load(state["averages"])

    def freeze_encoder(self, epoch: int) -> None:
        """Let the encoder learn, or what of it learns in epoch 0, 1, ... of the stage."""
        if self.freezer.freeze(self._frozen(self.stage, epoch)) and self.accelerator.num_processes > 1:
            # DistributedDataParallel notes which parameters have gradients when it is made.
            self.model = self.accelerator.prepare_model(AllOutputs(self.net, self.projections))

    def to_train(self) -> None:
        """Set the net to train; what is frozen of the encoder keeps its BatchNorm statistics."""
        self.model.train()
        self.freezer.hold_statistics()

    def set_lr(self, epoch: int, share: float) -> None:
        """Set the learning rate of a step at `share` in [0, 1) of epoch 0, 1, ... of the stage."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.lr(epoch, share)

    def step(self, gradient_norm: float) -> None:
        """Update the weights and their averages by the gradients, and clear these."""
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if np.isfinite(gradient_norm):  # else fp16 has overflowed, and the scaler has left the step out
            self.averages.after_step(self.net)

    def end_epoch(self, epoch: int) -> None:
        """Add the weights to the averages of epochs, and make BatchNorm's statistics the same in all processes."""
        self.averages.after_epoch(self.net, epoch)
        self.share_statistics()

    def share_statistics(self) -> None:
        """Give all processes the BatchNorm statistics of the first, where each has its own."""
        if not self.batchnorm_is_global:
            share_buffers(self.net)

    def load(self, weights: Mapping[str, Tensor], origin: Path | str) -> None:
        """Put weights into the net. Raises: CheckpointError if they are another net's."""
        load_weights(self.net, weights, origin)
        self.is_fresh = False

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
        self.load(checkpoint.weights, path)
        self.provenance.start_from(checkpoint)

    def continue_from(self, checkpoint: Checkpoint, origin: Path | str) -> None:
        """Go on from the final weights of a stage of this run. Raises: CheckpointError."""
        self.load(checkpoint.weights, origin)
        self.provenance.continue_from(checkpoint)
        self.batches.reduction = checkpoint.preprocessing.reduction

    def load_state(self, state: Mapping[str, Any], stages: int, origin: Path | str) -> None:
        """Go on from a state in which so many stages have begun; `begin_stage` loads the rest of it.

        Raises: CheckpointError.
        """
        self.load(state["model"], origin)
        self.batches.reduction = state.get("reduction", OLD_REDUCTION)
        self.provenance.load_state(state)
        if self.accelerator.scaler and state.get("scaler"):
            self.accelerator.scaler.load_state_dict(state["scaler"])
        if "teachers" not in state:  # of a version whose states did not name the cases that the run had learned from
            for stage in self.recipe.stages[:stages]:
                self.provenance.add_stage(self.batches.labels[stage.name])

    def state(self) -> dict[str, Any]:
        """Return what `load_state` and `begin_stage` need; the keys are those of every state on disk."""
        scaler = self.accelerator.scaler
        return {
            "model": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state(),
            "averages": self.averages.state(),
            "projections": self.projections.state_dict() if self.projections else None,
            "scaler": scaler.state_dict() if scaler else None,
            "precision": self.precision,
            "reduction": self.batches.reduction,
            "teachers": self.batches.teachers(),
            **self.provenance.state(),
        }

    def checkpoint(self, stage: StageConfig, epoch: int, validation: Validation, what: str = "epoch") -> Checkpoint:
        """Return the net as it is, with its scores and provenance. what: `epoch`, or the kind of average that it is."""
        tuned = f"val, fold {self.fold}, at {stage.size_px} px, triplet tuned on the same cases"
        scores = {key: round(value, 6) for key, value in validation.metrics.items() if np.isfinite(value)}
        return Checkpoint(
            model=self.recipe.model,
            weights={key: tensor.detach().clone() for key, tensor in self.net.state_dict().items()},
            preprocessing=self.batches.preprocessing(stage),
            triplet=validation.triplet,
            recipe=self.recipe.model_dump(mode="json"),
            scores={"split": tuned, **scores},
            seen=self.provenance.all_seen(),
            provenance={
                "data_sha256": self.dataset.data_hash,
                "fold": self.fold,
                "stage": stage.name,
                "epoch": epoch,
                "weights": what,
                "seed": self.recipe.seed,
                "machine": machine(self.accelerator.device, self.accelerator.num_processes),
                "precision": self.precision,
                "pleura": __version__,
                **self.provenance.header(),
            },
        )

    def _frozen(self, stage: StageConfig, epoch: int) -> list[nn.Parameter]:
        """Return what of the encoder does not learn in an epoch of a stage. Raises: ConfigError."""
        frozen = self.encoder.until_stride(stage.freeze_encoder_stride) if stage.freeze_encoder_stride else []
        return list(self.encoder.parameters()) if epoch < stage.freeze_encoder_epochs else frozen

    def _trains_batchnorm(self, stage: StageConfig) -> bool:
        """Whether some epoch of a stage has a BatchNorm that is not frozen."""
        frozen = set(self._frozen(stage, stage.epochs - 1))
        kinds = nn.modules.batchnorm._BatchNorm
        return any(isinstance(module, kinds) and module.weight not in frozen for module in self.net.modules())


def _load_projections(projections: Projections, state: Mapping[str, Any], stage: StageConfig) -> None:
    """Go on with those of a state. Raises: OutputError if they are of a teacher with other features."""
    try:
        projections.load_state_dict(state["projections"])
    except RuntimeError as error:
        raise OutputError(
            f"stages.{stage.name}.labels.teacher: has other features than when the run was stopped; begin the stage "
            f"again with --stage {stage.name}"
        ) from error
