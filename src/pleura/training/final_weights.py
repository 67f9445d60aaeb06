"""The end of a stage: averages are scored beside its best epoch, and one of them becomes its final weights."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from pleura.config.training import StageConfig
from pleura.models.checkpoint import Checkpoint
from pleura.training.averaging import greedy_soup, interpolated_weights, mean_weights, refresh_batchnorm
from pleura.training.learner import Learner
from pleura.training.run import AVERAGES, Progress, Run
from pleura.training.validation import Validator

logger = logging.getLogger("pleura")


@dataclass(frozen=True)
class _Candidate:
    """Weights that could become the final ones."""

    checkpoint: Checkpoint
    score: float
    epochs: int
    """How many epochs are in it."""


class FinalWeights:
    """The choice of what a trained stage ends with."""

    def __init__(self, learner: Learner, validator: Validator, run: Run, stage: StageConfig) -> None:
        self.learner, self.validator, self.run, self.stage = learner, validator, run, stage

    def choose(self, progress: Progress) -> None:
        """Write STAGE.safetensors, the averages beside it, and averages.csv. Raises: OutputError, CheckpointError."""
        stage, learner, writes = self.stage, self.learner, self.learner.writes
        learner.accelerator.wait_for_everyone()  # all read what the first process wrote
        candidates = {"best": _Candidate(self.run.candidate_of(stage.name, "best"), progress.best, 1)}
        candidates |= self._averages(progress)
        if progress.incoming is not None:
            candidates["incoming"] = _Candidate(self.run.candidate_of(stage.name, "incoming"), progress.incoming, 0)
        candidates |= self._interpolated(candidates, progress)
        chosen = self._chosen(candidates)
        progress.averages = [row for row in progress.averages if row["stage"] != stage.name]
        for kind, candidate in candidates.items():
            row = {"stage": stage.name, "kind": kind, "epochs": candidate.epochs, "handed_on": int(kind == chosen)}
            scores = {key: value for key, value in candidate.checkpoint.scores.items() if key != "split"}
            progress.averages.append(row | scores)
            if writes and kind not in ("best", "incoming"):
                self.run.save_candidate(candidate.checkpoint, stage.name, kind)
            if writes and len(candidates) > 1:
                last = ", chosen" if kind == chosen else ""
                logger.info("%s: %s has %s %.4f%s", stage.name, kind, stage.select, candidate.score, last)
        final = self._with_bfloat16(candidates[chosen].checkpoint)
        if writes:
            self.run.write_table(AVERAGES, progress.averages)
            self.run.save_final_weights(final, stage.name)
        # The state that is saved next stands after the last epoch, should the stage be made longer.
        learner.load(self.run.last().weights, "the last epoch")
        learner.accelerator.wait_for_everyone()

    def _end(self, candidates: Mapping[str, _Candidate]) -> str:
        """Return the kind that `hand_on` names; the best epoch where the stage ended too early for it."""
        trained = {kind: each.score for kind, each in candidates.items() if kind not in ("incoming", "interpolated")}
        named: str = self.stage.averaging.hand_on
        if named == "best_on_val":
            return max(trained, key=lambda kind: trained[kind])
        return named if named in trained else "best"

    def _interpolated(self, candidates: Mapping[str, _Candidate], progress: Progress) -> dict[str, _Candidate]:
        """Return the mean of what the recipe names and the weights that the stage started from, if it asks for it."""
        share = self.stage.averaging.incoming_share
        if not share:
            return {}
        end = candidates[self._end(candidates)]
        mean = interpolated_weights(end.checkpoint.weights, candidates["incoming"].checkpoint.weights, share)
        return {"interpolated": self._scored(mean, "interpolated", end.epochs, progress)}

    def _chosen(self, candidates: Mapping[str, _Candidate]) -> str:
        """Return what the recipe names, unless the weights that the stage started from score higher at its own size."""
        stage, writes = self.stage, self.learner.writes
        chosen = self._end(candidates)
        if stage.averaging.hand_on not in (chosen, "best_on_val") and writes:
            logger.warning(
                "%s: ended too early for %s; its best epoch takes its place", stage.name, stage.averaging.hand_on
            )
        if "interpolated" in candidates:
            mean, end = (candidates[kind].score for kind in ("interpolated", chosen))
            if mean >= end:
                chosen = "interpolated"
            elif writes:
                logger.warning(
                    "%s: the mean with what the stage started from has %s %.4f, %s alone %.4f, which is taken",
                    stage.name,
                    stage.select,
                    mean,
                    chosen,
                    end,
                )
        if "incoming" in candidates and candidates["incoming"].score > candidates[chosen].score:
            if writes:
                logger.warning(
                    "%s: %s has %s %.4f, the weights that the stage started from %.4f; those are chosen",
                    stage.name,
                    chosen,
                    stage.select,
                    candidates[chosen].score,
                    candidates["incoming"].score,
                )
            chosen = "incoming"
        return chosen

    def _with_bfloat16(self, checkpoint: Checkpoint) -> Checkpoint:
        """Return what a run in bfloat16 ends with, with what that changes in its results."""
        learner, stage = self.learner, self.stage
        if learner.precision != "bfloat16" or stage.name != learner.recipe.stages[-1].name:
            return checkpoint
        change = self.validator.bfloat16_change(stage, checkpoint)
        if change and learner.writes:
            logger.info("%s: %s", stage.name, change.verdict)
        return replace(checkpoint, bfloat16=change)

    def _averages(self, progress: Progress) -> dict[str, _Candidate]:
        config, epochs, running = self.stage.averaging, progress.epoch, self.learner.averages.weights()
        counts = {"swa": min(config.swa_epochs, epochs), "ema": epochs}
        candidates = {kind: self._scored(weights, kind, counts[kind], progress) for kind, weights in running.items()}
        if config.top_k and len(progress.top) > 1:
            top = self.run.top_weights(self.stage.name, progress.top)
            candidates["top_k"] = self._scored(mean_weights(top), "top_k", len(top), progress)
            if config.soup:
                soup, count = greedy_soup(top, lambda weights: self._scored(weights, "soup", len(top), progress))
                candidates["soup"] = _Candidate(soup.checkpoint, soup.score, count)
        return candidates

    def _scored(self, weights: Mapping[str, Tensor], kind: str, epochs: int, progress: Progress) -> _Candidate:
        """Refresh the BatchNorm statistics of weights, and score them on the validation cases."""
        learner, stage = self.learner, self.stage
        learner.load(weights, f"{kind} of stage {stage.name}")
        if stage.averaging.refresh_cases:
            learner.freeze_encoder(progress.epoch - 1)  # as the last epoch had it
            inputs = learner.batches.refresh_inputs(stage, progress)
            refresh_batchnorm(learner.net, inputs, learner.to_train, learner.accelerator.autocast)
        learner.share_statistics()  # each process has averaged its own
        validation = self.validator(learner.net, stage, learner.batches.preprocessing(stage))
        return _Candidate(learner.checkpoint(stage, progress.epoch, validation, kind), validation.score, epochs)
