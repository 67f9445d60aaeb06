"""What is refused before anything is trained: stages, batches and folds that could not be learned from or scored."""

from __future__ import annotations

from pathlib import Path

from pleura.config.recipe import Recipe
from pleura.config.training import StageConfig
from pleura.data.dataset import Dataset
from pleura.errors import ConfigError, InputError
from pleura.training.run import Progress


def refuse_what_cannot_be_learned_or_scored(recipe: Recipe, dataset: Dataset, fold: int) -> None:
    """Refuse, before any image is read, what could not be trained or chosen by.

    Raises: InputError if the fold has nothing to learn from, or to score by; ConfigError for a share of positives where
    there are none.
    """
    learned, scored = (dataset.positive[dataset.indices(part, fold)] for part in ("train", "val"))
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


def refuse_what_cannot_run(recipe: Recipe, processes: int, begin_at: str | None, weights: Path | None) -> None:
    """Refuse a stage to begin at, or a batch, that is not possible.

    Raises: ConfigError.
    """
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


def refuse_no_weights_to_start_from(
    recipe: Recipe, progress: Progress | None, begin_at: str | None, weights: Path | None
) -> None:
    """Refuse a mean with the weights that a stage starts from where it starts from no trained ones.

    progress: of a run that was begun before. Every stage but the first starts from the one before.
    Raises: ConfigError.
    """
    goes_on = progress is not None and begin_at is None
    stage = recipe.stages[progress.stage if progress is not None and goes_on else 0]
    if not stage.averaging.incoming_share:
        return
    setting = f"stages.{stage.name}.averaging.incoming_share"
    if progress is not None and goes_on and progress.incoming is None:
        raise ConfigError(
            f"{setting}: the stage started from no trained weights; set it to 0, or begin it again with --stage "
            f"{stage.name} --weights"
        )
    if not goes_on and weights is None and begin_at in (None, stage.name):
        raise ConfigError(f"{setting}: the stage starts from no trained weights; give it --weights, or set it to 0")


def global_batch_size(stage: StageConfig, cases: int, processes: int) -> int:
    """Return the images of a batch, over all processes, of an epoch of so many cases.

    Raises: ConfigError if there are fewer cases than processes.
    """
    if cases < processes:
        raise ConfigError(
            f"stages.{stage.name}: an epoch has {cases} training case{'s' if cases > 1 else ''}, fewer than the "
            f"{processes} processes that share it; use as many processes, or fewer"
        )
    return min(stage.batch_size, cases - cases % processes)


def refuse_lone_images(stage: StageConfig, cases: int, processes: int, apart: int, trains_batchnorm: bool) -> None:
    """Refuse a batch of one image, from which BatchNorm cannot take a variance.

    cases: of the shortest epoch. apart: into how many parts BatchNorm divides a batch; 1 where it sees all of it.
    Raises: ConfigError, also if there are fewer cases than processes.
    """
    size = global_batch_size(stage, cases, processes)
    if size // apart > 1 or not trains_batchnorm:
        return
    setting, way_out = "batch_size", f"set it to {2 * apart} or more, or take a net without BatchNorm"
    if stage.batch_size // apart > 1:
        if stage.cases_per_epoch == cases:
            setting = "cases_per_epoch"
        elif stage.positive_rate is not None:
            setting = "positive_rate"
        way_out = f"an epoch has {cases} training case{'s' if cases > 1 else ''}; it takes {2 * apart} at least"
    share = f", shared by {processes} processes," if apart > 1 else ""
    raise ConfigError(
        f"stages.{stage.name}.{setting}: a batch of {size}{share} leaves BatchNorm one image of {stage.size_px} px "
        f"to take a variance from; {way_out}"
    )
