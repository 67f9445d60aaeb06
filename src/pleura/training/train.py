"""The training loop: dataset + recipe -> checkpoints. `train` is the story, `_epoch` is the loop.

Everything random is a function of (seed, stage, epoch, step): a run that was killed and resumed ends in the same
weights as one that was not.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pleura.config.recipe import Recipe
from pleura.config.training import StageConfig
from pleura.data.dataset import Dataset
from pleura.errors import ConfigError, NonFiniteLossError
from pleura.models.resize import REDUCTION
from pleura.progress import Waiting, track
from pleura.training.averaging import RunningAverages
from pleura.training.devices import build_accelerator
from pleura.training.distributed import share_buffers, sum_over_processes
from pleura.training.final_weights import HandOver
from pleura.training.learner import Learner, number_of
from pleura.training.losses import total_loss
from pleura.training.monitor import Watch
from pleura.training.optimizers import build_optimizer, resume_optimizer
from pleura.training.run import METRICS, STATE, Progress, Run, changed_settings, nothing_is_left, refuse_other_stages
from pleura.training.schedule import Schedule
from pleura.training.validation import Validation, Validator, refuse_what_cannot_be_learned_or_scored

logger = logging.getLogger("pleura")


def train(
    recipe: Recipe,
    dataset: Dataset,
    out: Path,
    fold: int = 0,
    resume: bool = False,
    *,
    stage: str | None = None,
    weights: Path | None = None,
    tensorboard: bool = False,
) -> Path:
    """Train the stages of a recipe on the cases outside `fold`, choosing by the cases in it.

    resume: go on with the run that `out` holds, if it holds one. stage: begin there, from what the stage before it has
    left in `out`. weights: a checkpoint that the first stage starts from.
    Returns: the folder of the fold, with best.safetensors, last.safetensors, a STAGE.safetensors for each stage,
    metrics.csv, averages.csv, curves, samples/, log.txt, recipe.yaml and state/.
    Raises: InputError if the fold is not in the dataset, or has no positive to learn from or to score by; OutputError
    if `out` holds another run, or one of other data or another net, or cannot be written; ConfigError for a net that
    cannot be built, a stage that is not there, or a batch that the processes cannot share or that leaves BatchNorm one
    image; NonFiniteLossError; CheckpointError if the state to resume from, or the weights to start from, are damaged.
    """
    run, accelerator = Run(out / f"fold-{fold}"), build_accelerator(recipe)
    validator = Validator(accelerator, dataset, dataset.positions("val", fold), recipe.tta == "flip")
    refuse_what_cannot_be_learned_or_scored(recipe, dataset, fold)
    _refuse_what_cannot_run(recipe, accelerator.num_processes, stage, weights)
    state = run.state(resume, stage)
    if state and stage is None and nothing_is_left(state, recipe):
        with _logged(run, accelerator.is_main_process):
            _say_that_it_is_finished(changed_settings(state, recipe, dataset.data_hash, dataset.folder, finished=True))
        return run.folder
    if state and stage is None:
        refuse_other_stages(state, recipe)
    changes = changed_settings(state, recipe, dataset.data_hash, dataset.folder, stage) if state else []
    begun_at = stage not in (None, recipe.stages[0].name)
    learner = Learner(recipe, dataset, accelerator, fold, fresh=not (state or weights or begun_at))
    changes += learner.changed_teachers(state) if state else []
    training = _Training(learner, validator, run)
    training.begin(state, stage, weights)
    with _logged(run, accelerator.is_main_process):
        if state and weights and stage is None:
            logger.info("--weights is not used: the run goes on from its own state")
        for change in changes:
            logger.info("resumed with another setting, from here on: %s", change)
        training.all_stages(tensorboard)
    return run.folder


def _say_that_it_is_finished(changes: list[str]) -> None:
    logger.info("all stages are finished already, and nothing is trained")
    for change in changes:
        logger.info("not used, as all stages are finished: %s", change)


@contextmanager
def _logged(run: Run, speaks: bool) -> Iterator[None]:
    """Log to the run's log.txt too; one process speaks for all."""
    if speaks:
        with run.held(), run.logged():
            yield
        return
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def _refuse_what_cannot_run(recipe: Recipe, processes: int, begin_at: str | None, weights: Path | None) -> None:
    names = [stage.name for stage in recipe.stages]
    if weights is not None and begin_at not in (None, names[0]):
        raise ConfigError(f"--weights: stage {begin_at} starts from what the stage before it has left; leave one out")
    if begin_at is not None and begin_at not in names:
        raise ConfigError(f"--stage: there is no stage {begin_at!r}; the stages are {', '.join(names)}")
    for stage in recipe.stages:
        if stage.batch_size % processes:
            raise ConfigError(
                f"stages.{stage.name}.batch_size: {stage.batch_size} images cannot be shared by {processes} processes; "
                f"choose a multiple of {processes}"
            )


class _Training:
    """One fold of one run, from whatever state it is in to its end."""

    def __init__(self, learner: Learner, validator: Validator, run: Run) -> None:
        self.learner, self.validator, self.run = learner, validator, run
        self.recipe, self.progress = learner.recipe, Progress()
        self.state: dict[str, Any] | None = None
        self.is_fresh = True
        """Whether the first stage starts from weights that no training has made."""
        self.saved = self.epoch_began = time.monotonic()

    def begin(self, state: dict[str, Any] | None, stage: str | None, weights: Path | None) -> None:
        """Take up a state, or the weights to start from. Raises: CheckpointError, ConfigError."""
        names = [each.name for each in self.recipe.stages]
        if stage is not None:
            before = Progress(**state["progress"]) if state else Progress()
            self.progress = before.rewound(names[: names.index(stage)])
            if self.progress.stage:
                handed_on = self.run.handed_on_by(names[self.progress.stage - 1])
                self.learner.take_up(handed_on, "the stage before")
                self.learner.reduction = handed_on.preprocessing.reduction
        elif state:
            self.progress, self.state = Progress(**state["progress"]), state
            self.learner.go_on(state, self.progress.stage + 1, self.run.folder / STATE)
            return
        if weights is not None and self.progress.stage == 0:
            self.learner.start_from(weights)
            self.is_fresh = False

    def all_stages(self, tensorboard: bool) -> None:
        """Run the stages, each from what the one before handed on."""
        watch = Watch(self.run.folder, tensorboard, len(self.progress.history)) if self.learner.writes else None
        if self.learner.reduction != REDUCTION:
            logger.info("images are reduced as when the run began: %s, not %s", self.learner.reduction, REDUCTION)
        if watch:
            self.run.write_recipe(self.recipe)
        if not self.learner.batchnorm_is_global:
            logger.warning("BatchNorm sees each process's part of a batch alone: torch synchronises it on GPUs only")
        try:
            while True:
                stage = self.recipe.stages[self.progress.stage]
                self._one_stage(stage, watch)
                self.learner.load(self.run.handed_on_by(stage.name).weights, stage.name)
                if self.progress.stage + 1 == len(self.recipe.stages):
                    break
                self.progress, self.state = self.progress.next_stage(), None
        finally:
            if watch:
                watch.close()

    def _one_stage(self, stage: StageConfig, watch: Watch | None) -> None:
        learner, progress = self.learner, self.progress
        if not self.state and not (self.is_fresh and progress.stage == 0):
            self._measure_incoming(stage)
        if not progress.is_over(stage):
            learner.meet(stage)
        labels = learner.labels[stage.name]
        logger.info("stage %s learns from %s", stage.name, labels.in_words())
        if labels.teacher and not labels.teacher.tells:
            logger.warning(
                "%s: the teacher does not tell what it has learned from; if validation cases are among it, the scores "
                "of this run are too good",
                labels.teacher.path,
            )
        # The optimizer takes what can learn, also if that is frozen for a while.
        learner.freeze_encoder(stage, stage.freeze_encoder_epochs)
        optimizer = learner.accelerator.prepare_optimizer(build_optimizer(learner.net.parameters(), stage))
        schedule, averages = Schedule(stage), RunningAverages(learner.net, stage.averaging, stage.epochs)
        if self.state:
            resume_optimizer(optimizer, self.state["optimizer"], stage)
            schedule = Schedule(stage, **self.state["schedule"])
            averages.load(self.state["averages"])
            how = "is finished already" if progress.closed else "is gone on with"
            logger.info("stage %s %s, after epoch %d and %d steps", stage.name, how, progress.epoch, progress.step)
        else:
            self._save(stage, optimizer, schedule, averages)  # --resume then comes back to this stage, whatever it was
        if learner.writes and progress.epoch == progress.step == 0:
            self.run.forget([each.name for each in self.recipe.stages[progress.stage :]])
        self.saved = time.monotonic()
        while not progress.is_over(stage):
            progress.closed = False
            began, first = time.monotonic(), progress.step
            self.epoch_began = began - progress.spent_s
            waiting_s, size = self._epoch(stage, optimizer, schedule, averages)
            trained_s, images = time.monotonic() - began, (progress.step - first) * size
            averages.after_epoch(learner.net, progress.epoch)
            if not learner.batchnorm_is_global:
                share_buffers(learner.net)
            validation = self.validator(learner.net, stage, learner.preprocessing(stage))
            schedule.told(validation.score)
            row = {"stage": stage.name, "epoch": progress.epoch + 1, "lr": optimizer.param_groups[0]["lr"]}
            row |= {"loss": float(np.mean(progress.losses)), **validation.metrics}
            row |= {"images_per_s": images / trained_s, "waiting_share": waiting_s / trained_s}
            self._close_epoch(stage, row | {"seconds": time.monotonic() - self.epoch_began}, validation, watch)
            self._save(stage, optimizer, schedule, averages)
        if not progress.closed:
            HandOver(learner, self.validator, self.run, stage)(progress, averages)
            progress.closed = True
            self._save(stage, optimizer, schedule, averages)
            if watch:
                watch.stage_done(progress.history)

    def _measure_incoming(self, stage: StageConfig) -> None:
        """The weights that a stage starts from are a candidate for what it ends with, as they score at its size."""
        validation = self.validator(self.learner.net, stage, self.learner.preprocessing(stage))
        self.progress.incoming = validation.score
        if self.learner.writes:
            self.run.save_incoming(self.learner.checkpoint(stage, 0, validation, "incoming"), stage.name)
        logger.info("stage %s starts from weights of %s %.4f", stage.name, stage.select, validation.score)

    def _epoch(
        self, stage: StageConfig, optimizer: Any, schedule: Schedule, averages: RunningAverages
    ) -> tuple[float, int]:
        """The steps of an epoch that are still to do; returns the seconds they waited for data, and a batch's size."""
        learner, progress, accelerator = self.learner, self.progress, self.learner.accelerator
        gather = sum_over_processes if accelerator.num_processes > 1 else None
        order = learner.order(stage, progress.epoch, progress.history)
        steps, size = order.shape
        learner.freeze_encoder(stage, progress.epoch)
        learner.to_train()
        losses: list[torch.Tensor] = []
        source = Waiting(learner.batches(order[progress.step :]))
        described = f"{stage.name} {progress.epoch + 1}/{stage.epochs}" if learner.writes else None
        for batch in track(source, described, steps, progress.step, size):
            seed = (self.recipe.seed, progress.stage, progress.epoch, progress.step)
            inputs, targets = learner.prepared(batch, stage, seed, size)
            for group in optimizer.param_groups:
                group["lr"] = schedule.lr(progress.epoch, progress.step / steps)
            torch.manual_seed(number_of(*seed, accelerator.process_index))  # for dropout, whatever came before
            with accelerator.autocast():
                outputs = learner.model(inputs)
            further = (outputs.presence, outputs.deep, gather, targets.weights, targets.present)
            loss = total_loss(outputs.logits, targets.masks, stage.loss, *further)
            losses.append(accelerator.reduce(loss.detach(), "mean"))
            first = progress.step - progress.step % stage.accumulate_steps  # of the batches that are added up
            accelerator.backward(loss / min(stage.accumulate_steps, steps - first))
            progress.step += 1
            if progress.step % stage.accumulate_steps and progress.step < steps:
                continue
            norm = accelerator.clip_grad_norm_(learner.model.parameters(), stage.gradient_clip or float("inf"))
            # The one time in a step that the host waits for the device.
            *numbers, size_of_gradient = torch.stack([*losses, norm.to(losses[0])]).tolist()
            self._refuse_unless_finite(numbers, size_of_gradient, order[first : progress.step], stage)
            losses = []
            progress.losses += numbers
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if np.isfinite(size_of_gradient):  # else fp16 has overflowed, and the scaler has left the step out
                averages.after_step(learner.net)
            if progress.step < steps and time.monotonic() - self.saved >= 60 * self.recipe.save_minutes:
                self._save(stage, optimizer, schedule, averages)
        return source.waited_s, size

    def _refuse_unless_finite(
        self, losses: list[float], gradient: float, order: NDArray[np.int64], stage: StageConfig
    ) -> None:
        """order: (batches, cases) of the losses. fp16 may overflow while its scaler looks for a scale."""
        bad = [(value, "loss", order[row]) for row, value in enumerate(losses) if not np.isfinite(value)]
        if not bad and not np.isfinite(gradient) and not self.learner.may_overflow:
            bad = [(gradient, "gradient", order.reshape(-1))]
        if not bad:
            return
        value, what, positions = bad[0]
        names = ", ".join(self.learner.dataset.cases[int(position)].image_id for position in positions)
        raise NonFiniteLossError(
            f"the {what} became {value} in stage {stage.name}, on the cases {names}; the last good state is kept in "
            f"{self.run.folder}: lower stages.{stage.name}.lr or set training.gradient_clip, and add --resume (without "
            "--stage)"
        )

    def _close_epoch(
        self, stage: StageConfig, row: dict[str, Any], validation: Validation, watch: Watch | None
    ) -> None:
        """Take note of an epoch: scores, checkpoints, samples, one line of the log."""
        progress, score = self.progress, validation.score
        progress.epoch, progress.step, progress.losses = progress.epoch + 1, 0, []
        is_best = score > progress.best
        progress.best, progress.waited = (score, 0) if is_best else (progress.best, progress.waited + 1)
        progress.history.append(row)
        ranked = sorted([*progress.top, (score, progress.epoch)], key=lambda pair: (-pair[0], pair[1]))
        progress.top = ranked[: stage.averaging.top_k]
        if watch is None:
            return
        checkpoint = self.learner.checkpoint(stage, progress.epoch, validation)
        if (score, progress.epoch) in progress.top:
            self.run.save_top(checkpoint, stage.name, progress.epoch)
        self.run.save_epoch(checkpoint, stage.name, is_best, progress.incoming is None or score >= progress.incoming)
        self.run.write_table(METRICS, progress.history)
        watch.epoch(row)
        self._draw(stage, validation, watch)
        logger.info(_line(stage, row, is_best))

    def _draw(self, stage: StageConfig, validation: Validation, watch: Watch) -> None:
        learner, count = self.learner, self.recipe.samples
        if count:
            shown = self.validator.samples(learner.net, stage, learner.preprocessing(stage), count)
            watch.samples(f"{stage.name}-{self.progress.epoch:03d}", *shown[1:], validation.triplet, shown[0])

    def _save(self, stage: StageConfig, optimizer: Any, schedule: Schedule, averages: RunningAverages) -> None:
        self.saved = time.monotonic()
        self.progress.spent_s = self.saved - self.epoch_began if self.progress.step else 0.0
        if self.learner.writes:
            state = {
                "progress": vars(self.progress),
                "optimizer": optimizer.state_dict(),
                "schedule": schedule.state(),
                "averages": averages.state(),
                "recipe": self.recipe.model_dump(mode="json"),
                "data_sha256": self.learner.dataset.data_hash,
                **self.learner.state(),
            }
            self.run.save_state(state, stage.name, self.progress.top)


def _line(stage: StageConfig, row: dict[str, Any], best: bool) -> str:
    left_s = (stage.epochs - row["epoch"]) * row["seconds"]
    left = f", about {left_s / 60:.0f} min left in {stage.name}" if left_s >= 60 else ""
    return (
        f"{stage.name} {stage.size_px} px  epoch {row['epoch']:>3}/{stage.epochs}  lr {row['lr']:.1e}  "
        f"loss {row['loss']:.4f}  val: SIIM Dice {row['siim_dice']:.4f}, on positives "
        f"{row['dice_on_positives']:.4f}, AUROC {row['auroc']:.4f}  {row['images_per_s']:.1f} images/s, "
        f"{row['seconds']:.0f} s{left}{'  best' if best else ''}"
    )
