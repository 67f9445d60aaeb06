"""The story of a training: from a recipe and a dataset to checkpoints. The loop of a stage is in stage.py.

Everything random is a function of (seed, stage, epoch, step): a run that was killed and resumed ends in the same
weights as one that was not.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pleura.config.recipe import Recipe
from pleura.data.dataset import Dataset
from pleura.models.preprocessing import REDUCTION
from pleura.training.devices import build_accelerator, changed_precision, training_precision
from pleura.training.learner import Learner
from pleura.training.monitor import Monitor
from pleura.training.refusals import (
    refuse_no_weights_to_start_from,
    refuse_what_cannot_be_learned_or_scored,
    refuse_what_cannot_run,
)
from pleura.training.resuming import changed_settings, nothing_is_left, refuse_other_stages
from pleura.training.run import STATE, Progress, Run, run_at
from pleura.training.stage import Stage
from pleura.training.validation import Validator
from pleura.urls.url import Place

logger = logging.getLogger("pleura")


def train(
    recipe: Recipe,
    dataset: Dataset,
    out: Place,
    fold: int = 0,
    resume: bool = False,
    *,
    stage: str | None = None,
    weights: Path | None = None,
    tensorboard: bool = False,
) -> Place:
    """Train the stages of a recipe on the cases outside `fold`, choosing by the cases in it.

    out: a folder, or a URL, to which what is written follows after each state.
    resume: go on with the run in `out`, if there is one. stage: begin there, from the final weights of the stage
    before it in `out`. weights: a checkpoint that the first stage starts from.
    Returns: the folder of the fold, with best.safetensors, last.safetensors, a STAGE.safetensors for each stage,
    metrics.csv, averages.csv, curves, samples/, log.txt, recipe.yaml and state/.
    Raises: InputError if the fold is not in the dataset, or has no positive to learn from or to score by, or for a
    precision that the device does not have; OutputError
    if `out` holds another run, or one of other data or another net, or cannot be written; ConfigError for a net that
    cannot be built, a stage that is not there, or a batch that the processes cannot share or that leaves BatchNorm one
    image; NonFiniteLossError; CheckpointError if the state to resume from, or the weights to start from, are damaged;
    StoreError if the store of `out` is away at the beginning, or still at the end.
    """
    refuse_what_cannot_be_learned_or_scored(recipe, dataset, fold)
    folder = out / f"fold-{fold}"
    with run_at(folder, resume, stage) as run:
        _train(run, recipe, dataset, fold, resume, stage, weights, tensorboard)
    return folder


def _train(
    run: Run,
    recipe: Recipe,
    dataset: Dataset,
    fold: int,
    resume: bool,
    stage: str | None,
    weights: Path | None,
    tensorboard: bool,
) -> None:
    state = run.state(resume, stage)
    precision = training_precision(recipe, None if stage else state)
    accelerator = build_accelerator(recipe, precision)
    refuse_what_cannot_run(recipe, accelerator.num_processes, stage, weights)
    finished = state is not None and stage is None and nothing_is_left(state, recipe)
    if state and stage is None and not finished:
        refuse_other_stages(state, recipe)
    changes = changed_settings(state, recipe, dataset.data_hash, dataset.folder, stage, finished) if state else []
    if finished:
        with _logged(run, accelerator.is_main_process):
            logger.info("all stages are finished already, and nothing is trained")
            for change in changes:
                logger.info("not used, as all stages are finished: %s", change)
        return
    refuse_no_weights_to_start_from(recipe, Progress(**state["progress"]) if state else None, stage, weights)
    # --stage with the first stage begins anew, whatever the folder holds: from the recipe's own first weights.
    begins_anew = stage == recipe.stages[0].name or (stage is None and state is None)
    learner = Learner(recipe, dataset, accelerator, fold, fresh=begins_anew and weights is None)
    changes += learner.batches.changed_teachers(state) if state else []
    changes += changed_precision(state, precision, accelerator.device) if state and stage is None else []
    progress, resumed = _load_start(learner, run, state, stage, weights)
    with _logged(run, learner.writes):
        if resumed and weights:
            logger.info("--weights is not used: the run goes on from its own state")
        for change in changes:
            logger.info("resumed with another setting, from here on: %s", change)
        logger.info("computes in %s", precision)
        _train_stages(learner, run, progress, resumed, tensorboard)


def _load_start(
    learner: Learner, run: Run, state: dict[str, Any] | None, stage: str | None, weights: Path | None
) -> tuple[Progress, dict[str, Any] | None]:
    """Load the weights that the run starts from; return its progress, and the state if it goes on within a stage."""
    names = [each.name for each in learner.recipe.stages]
    progress = Progress(**state["progress"]) if state else Progress()
    if state and stage is None:
        learner.load_state(state, progress.stage + 1, run.folder / STATE)
        return progress, state
    if stage is not None:
        progress = progress.rewound(names[: names.index(stage)])
    if progress.stage:
        learner.continue_from(run.final_weights_of(names[progress.stage - 1]), "the stage before")
    elif weights is not None:
        learner.start_from(weights)
    return progress, None


def _train_stages(
    learner: Learner, run: Run, progress: Progress, state: dict[str, Any] | None, tensorboard: bool
) -> None:
    """Train the stages that are left, each from the final weights of the one before."""
    recipe, dataset, reduction = learner.recipe, learner.dataset, learner.batches.reduction
    validator = Validator(learner.accelerator, dataset, dataset.indices("val", learner.fold), recipe.tta == "flip")
    monitor = Monitor(run.folder, tensorboard, len(progress.history)) if learner.writes else None
    if reduction != REDUCTION:
        logger.info("images are reduced as when the run began: %s, not %s", reduction, REDUCTION)
    if not learner.batchnorm_is_global:
        logger.warning("BatchNorm sees each process's part of a batch alone: torch synchronises it on GPUs only")
    if monitor:
        run.write_recipe(recipe)
    try:
        for config in recipe.stages[progress.stage :]:
            Stage(config, learner, validator, run, progress, monitor).train(state)
            learner.load(run.final_weights_of(config.name).weights, config.name)
            progress, state = progress.next_stage(), None
    finally:
        if monitor:
            monitor.close()


@contextmanager
def _logged(run: Run, writes: bool) -> Iterator[None]:
    """Log to the run's log.txt too; the first process logs for all."""
    if writes:
        with run.held(), run.logged():
            yield
        return
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before
