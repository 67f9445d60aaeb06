"""The loop: the epochs of a stage, each its steps, a validation and a saved state. `train_epoch` is the steps."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pleura.config.training import StageConfig
from pleura.errors import NonFiniteLossError
from pleura.models.net import image_logits
from pleura.progress import Waiting, track
from pleura.training.batches import torch_seed
from pleura.training.distributed import sum_over_processes
from pleura.training.features import feature_loss
from pleura.training.final_weights import FinalWeights
from pleura.training.learner import Learner
from pleura.training.losses import total_loss
from pleura.training.monitor import Monitor
from pleura.training.run import METRICS, Progress, Run
from pleura.training.validation import Validation, Validator

logger = logging.getLogger("pleura")


class Stage:
    """One stage of a run, from where its progress stands to its final weights."""

    def __init__(
        self,
        config: StageConfig,
        learner: Learner,
        validator: Validator,
        run: Run,
        progress: Progress,
        monitor: Monitor | None,
    ) -> None:
        """monitor: None in all processes but the first."""
        self.config, self.learner, self.validator = config, learner, validator
        self.run, self.progress, self.monitor = run, progress, monitor
        self.saved_at = self.epoch_began = time.monotonic()

    def train(self, state: Mapping[str, Any] | None) -> None:
        """Train the epochs that are left, and choose the final weights.

        state: of a run that was stopped in this stage; None: the stage begins.
        Raises: NonFiniteLossError, OutputError, CheckpointError.
        """
        config, learner, progress = self.config, self.learner, self.progress
        self._begin(state)
        while not progress.is_over(config):
            progress.closed = False
            began, first = time.monotonic(), progress.step
            self.epoch_began = began - progress.spent_s
            waited_s, batch_size = self.train_epoch()
            trained_s, images = time.monotonic() - began, (progress.step - first) * batch_size
            learner.end_epoch(progress.epoch)
            validation = self.validator(learner.net, config, learner.batches.preprocessing(config))
            learner.schedule.after_epoch(validation.score)
            row = {"stage": config.name, "epoch": progress.epoch + 1, "lr": learner.lr}
            row |= {"loss": float(np.mean(progress.losses)), **validation.metrics}
            row |= {"images_per_s": images / trained_s, "waiting_share": waited_s / trained_s}
            self._close_epoch(row | {"seconds": time.monotonic() - self.epoch_began}, validation)
            self._save()
        if not progress.closed:
            FinalWeights(learner, self.validator, self.run, config).choose(progress)
            progress.closed = True
            self._save()
            if self.monitor:
                self.monitor.draw_curves(progress.history)

    def train_epoch(self) -> tuple[float, int]:
        """Take the steps of an epoch that are left; return the seconds of waiting for data, and the batch size."""
        config, learner, progress = self.config, self.learner, self.progress
        accelerator, recipe, batches = learner.accelerator, learner.recipe, learner.batches
        all_reduce = sum_over_processes if accelerator.num_processes > 1 else None
        order = batches.order(config, progress.epoch, progress.history)
        steps, batch_size = order.shape
        learner.freeze_encoder(progress.epoch)
        learner.to_train()
        losses: list[torch.Tensor] = []
        source = Waiting(batches.read(order[progress.step :]))
        title = f"{config.name} {progress.epoch + 1}/{config.epochs}" if learner.writes else None
        for batch in track(source, title, steps, progress.step, batch_size):
            seed = (recipe.seed, progress.stage, progress.epoch, progress.step)
            inputs, targets = batches.prepared(batch, config, seed, batch_size, learner.projections)
            learner.set_lr(progress.epoch, progress.step / steps)
            torch.manual_seed(torch_seed(*seed, accelerator.process_index))  # for dropout, whatever came before
            with accelerator.autocast():
                outputs, projected = learner.model(inputs)
            image = None
            if config.loss.image:
                image = image_logits(outputs.logits, outputs.presence, recipe.model.presence_rule)
            further = (outputs.presence, outputs.deep, all_reduce, targets.weights, targets.present, image)
            loss = total_loss(outputs.logits, targets.masks, config.loss, *further)
            if targets.features is not None:
                loss = loss + config.labels.features * feature_loss(projected, targets.features, all_reduce)
            losses.append(accelerator.reduce(loss.detach(), "mean"))
            first = progress.step - progress.step % config.accumulate_steps  # of the batches that are added up
            accelerator.backward(loss / min(config.accumulate_steps, steps - first))
            progress.step += 1
            if progress.step % config.accumulate_steps and progress.step < steps:
                continue
            norm = accelerator.clip_grad_norm_(learner.model.parameters(), config.gradient_clip or float("inf"))
            # The one time in a step that the host waits for the device.
            *numbers, gradient_norm = torch.stack([*losses, norm.to(losses[0])]).tolist()
            self._refuse_unless_finite(numbers, gradient_norm, order[first : progress.step])
            losses = []
            progress.losses += numbers
            learner.step(gradient_norm)
            if progress.step < steps and time.monotonic() - self.saved_at >= 60 * recipe.save_minutes:
                self._save()
        return source.waited_s, batch_size

    def _warn_of_enlarged_images(self) -> None:
        config, prepared_px = self.config, self.learner.batches.dataset.size_px
        sizes = {"size_px": config.size_px, "labels.teacher_size_px": config.labels.teacher_size_px}
        for setting, size_px in sizes.items():
            if size_px and size_px > prepared_px:
                logger.warning(
                    "stages.%s.%s: the dataset's images of %d px are enlarged to %d px, which shows no more of a "
                    "radiograph; prepare it with --size %d",
                    config.name,
                    setting,
                    prepared_px,
                    size_px,
                    size_px,
                )

    def _begin(self, state: Mapping[str, Any] | None) -> None:
        config, learner, progress = self.config, self.learner, self.progress
        if state is None and not learner.is_fresh:
            self._measure_incoming()
        labels = learner.batches.labels[config.name]
        if not progress.is_over(config):
            learner.provenance.add_stage(labels)
            self._warn_of_enlarged_images()
        logger.info("stage %s learns from %s", config.name, labels.in_words())
        sees_px = config.labels.teacher_size_px or config.size_px
        if labels.teacher and 2 * sees_px <= labels.teacher.size_px:
            logger.warning(
                "%s: the teacher has learned from images of %d px and sees %d px here, of which it may know little; "
                "set stages.%s.labels.teacher_size_px",
                labels.teacher.path,
                labels.teacher.size_px,
                sees_px,
                config.name,
            )
        if labels.teacher and not labels.teacher.lists_its_cases:
            logger.warning(
                "%s: the teacher does not list the cases that it has learned from; if validation cases are among them, "
                "the scores of this run are too good",
                labels.teacher.path,
            )
        if state is not None and not (progress.closed and progress.is_over(config)):
            self.run.refuse_if_incomplete(config.name, progress)
        learner.begin_stage(config, state)
        if state is None:
            self._save()  # --resume then comes back to this stage, whatever it was
        else:
            how = "is finished already," if progress.closed else "resumes"
            logger.info("stage %s %s after epoch %d and %d steps", config.name, how, progress.epoch, progress.step)
        if learner.writes and progress.epoch == progress.step == 0:
            self.run.forget([each.name for each in learner.recipe.stages[progress.stage :]])
        self.saved_at = time.monotonic()

    def _measure_incoming(self) -> None:
        """Score the weights that the stage starts from at its own size: they are a candidate for its final weights."""
        config, learner = self.config, self.learner
        validation = self.validator(learner.net, config, learner.batches.preprocessing(config))
        self.progress.incoming = validation.score
        if learner.writes:
            self.run.save_candidate(learner.checkpoint(config, 0, validation, "incoming"), config.name, "incoming")
        logger.info("stage %s starts from weights of %s %.4f", config.name, config.select, validation.score)

    def _refuse_unless_finite(self, losses: list[float], gradient: float, order: NDArray[np.int64]) -> None:
        """order: (batches, cases) of the losses. fp16 may overflow while its scaler looks for a scale."""
        bad = [(value, "loss", order[row]) for row, value in enumerate(losses) if not np.isfinite(value)]
        if not bad and not np.isfinite(gradient) and not self.learner.may_overflow:
            bad = [(gradient, "gradient", order.reshape(-1))]
        if not bad:
            return
        value, what, indices = bad[0]
        names = ", ".join(self.learner.dataset.cases[int(index)].image_id for index in indices)
        raise NonFiniteLossError(
            f"the {what} became {value} in stage {self.config.name}, on the cases {names}; the last good state is kept "
            f"in {self.run.folder}: lower stages.{self.config.name}.lr or set training.gradient_clip, and add --resume "
            "(without --stage)"
        )

    def _close_epoch(self, row: dict[str, Any], validation: Validation) -> None:
        """Record an epoch: its scores, checkpoints, samples, and one line of the log."""
        config, learner, progress, score = self.config, self.learner, self.progress, validation.score
        is_best = progress.close_epoch(row, score, config.averaging.top_k)
        if self.monitor is None:
            return
        checkpoint = learner.checkpoint(config, progress.epoch, validation)
        if (score, progress.epoch) in progress.top:
            self.run.save_top(checkpoint, config.name, progress.epoch)
        gains = progress.incoming is None or score >= progress.incoming
        self.run.save_epoch(checkpoint, config.name, is_best, gains)
        self.run.write_table(METRICS, progress.history)
        self.monitor.add_epoch(row)
        if count := learner.recipe.samples:
            samples = self.validator.samples(learner.net, config, learner.batches.preprocessing(config), count)
            self.monitor.draw_samples(f"{config.name}-{progress.epoch:03d}", *samples, validation.triplet)
        logger.info(_line(config, row, is_best))

    def _save(self) -> None:
        self.saved_at = time.monotonic()
        self.progress.spent_s = self.saved_at - self.epoch_began if self.progress.step else 0.0
        if self.learner.writes:
            state = {
                "progress": vars(self.progress),
                "recipe": self.learner.recipe.model_dump(mode="json"),
                "data_sha256": self.learner.dataset.data_hash,
                **self.learner.state(),
            }
            self.run.save_state(state, self.config.name, self.progress.top)


def _line(config: StageConfig, row: dict[str, Any], best: bool) -> str:
    left_s = (config.epochs - row["epoch"]) * row["seconds"]
    left = f", about {left_s / 60:.0f} min left in {config.name}" if left_s >= 60 else ""
    return (
        f"{config.name} {config.size_px} px  epoch {row['epoch']:>3}/{config.epochs}  lr {row['lr']:.1e}  "
        f"loss {row['loss']:.4f}  val: SIIM Dice {row['siim_dice']:.4f}, on positives "
        f"{row['dice_on_positives']:.4f}, AUROC {row['auroc']:.4f}  {row['images_per_s']:.1f} images/s, "
        f"{row['seconds']:.0f} s{left}{'  best' if best else ''}"
    )
