"""The end of a stage: each average of its weights is measured beside the best epoch, and one is handed on."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from pleura.config.training import StageConfig
from pleura.models.checkpoint import Checkpoint
from pleura.training.averaging import RunningAverages, greedy_soup, mean_weights, refresh_batchnorm
from pleura.training.distributed import share_buffers
from pleura.training.learner import Learner
from pleura.training.run import AVERAGES, Progress, Run
from pleura.training.validation import Validator

logger = logging.getLogger("pleura")


@dataclass(frozen=True)
class _Candidate:
    """Weights that a stage could hand on."""

    checkpoint: Checkpoint
    score: float
    epochs: int
    """How many epochs are in it."""


class HandOver:
    """What a stage that has trained ends with."""

    def __init__(self, learner: Learner, validator: Validator, run: Run, stage: StageConfig) -> None:
        self.learner, self.validator, self.run, self.stage = learner, validator, run, stage

    def __call__(self, progress: Progress, averages: RunningAverages) -> None:
        """Write STAGE.safetensors, the averages beside it, and averages.csv. Raises: OutputError, CheckpointError."""
        stage, learner, writes = self.stage, self.learner, self.learner.writes
        learner.accelerator.wait_for_everyone()  # all read what the first process wrote
        found = {"best": _Candidate(self.run.best_of(stage.name), progress.best, 1)}
        found |= self._averages(progress, averages)
        if progress.incoming is not None:
            found["incoming"] = _Candidate(self.run.incoming_of(stage.name), progress.incoming, 0)
        chosen = self._chosen(found)
        progress.averages = [row for row in progress.averages if row["stage"] != stage.name]
        for kind, candidate in found.items():
            row = {"stage": stage.name, "kind": kind, "epochs": candidate.epochs, "handed_on": int(kind == chosen)}
            scores = {key: value for key, value in candidate.checkpoint.scores.items() if key != "split"}
            progress.averages.append(row | scores)
            if writes and kind not in ("best", "incoming"):
                self.run.save_average(candidate.checkpoint, stage.name, kind)
            if writes and len(found) > 1:
                last = ", handed on" if kind == chosen else ""
                logger.info("%s: %s has %s %.4f%s", stage.name, kind, stage.select, candidate.score, last)
        if writes:
            self.run.write_table(AVERAGES, progress.averages)
            self.run.hand_on(found[chosen].checkpoint, stage.name)
        # The state that is saved next stands after the last epoch, should the stage be made longer.
        learner.load(self.run.last().weights, "the last epoch")
        learner.accelerator.wait_for_everyone()

    def _chosen(self, found: Mapping[str, _Candidate]) -> str:
        """What the recipe says, unless the weights that the stage started from score higher at its own size."""
        stage, speaks = self.stage, self.learner.writes
        chosen: str = stage.averaging.hand_on
        if chosen == "best_on_val":
            chosen = max(found, key=lambda kind: found[kind].score)
        if chosen not in found:
            if speaks:
                logger.warning("%s: ended too early for %s, hands on its best epoch", stage.name, chosen)
            chosen = "best"
        if "incoming" in found and found["incoming"].score > found[chosen].score:
            if speaks:
                logger.warning(
                    "%s: %s has %s %.4f, the weights that the stage started from %.4f; those are handed on",
                    stage.name,
                    chosen,
                    stage.select,
                    found[chosen].score,
                    found["incoming"].score,
                )
            chosen = "incoming"
        return chosen

    def _averages(self, progress: Progress, averages: RunningAverages) -> dict[str, _Candidate]:
        config, epochs = self.stage.averaging, progress.epoch
        counts = {"swa": min(config.swa_epochs, epochs), "ema": epochs}
        found = {
            kind: self._measured(weights, kind, counts[kind], progress) for kind, weights in averages.weights().items()
        }
        if config.top_k and len(progress.top) > 1:
            top = self.run.top_weights(self.stage.name, progress.top)
            found["top_k"] = self._measured(mean_weights(top), "top_k", len(top), progress)
            if config.soup:
                soup, count = greedy_soup(top, lambda weights: self._measured(weights, "soup", len(top), progress))
                found["soup"] = _Candidate(soup.checkpoint, soup.score, count)
        return found

    def _measured(self, weights: Mapping[str, Tensor], kind: str, epochs: int, progress: Progress) -> _Candidate:
        """Weights with BatchNorm statistics of their own, and how they do on the validation cases."""
        learner, stage = self.learner, self.stage
        learner.load(weights, f"{kind} of stage {stage.name}")
        if stage.averaging.refresh_cases:
            learner.freeze_encoder(stage, progress.epoch - 1)  # as the last epoch had it
            inputs = learner.inputs_like_those_of(stage, progress)
            refresh_batchnorm(learner.net, inputs, learner.to_train, learner.accelerator.autocast)
        if not learner.batchnorm_is_global:
            share_buffers(learner.net)  # each process has averaged statistics of its own
        validation = self.validator(learner.net, stage, learner.preprocessing(stage))
        return _Candidate(learner.checkpoint(stage, progress.epoch, validation, kind), validation.score, epochs)
