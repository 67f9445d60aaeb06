"""`pleura train`: train a recipe."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pleura.cli.options import Ray, RayCpus, RayGpus, RayWorkers, cluster_options
from pleura.cli.printing import show
from pleura.models.default import as_typed, named
from pleura.urls.url import Place, Url, place_of

if TYPE_CHECKING:  # --help imports no verb
    from pleura.cluster.connection import ClusterOptions
    from pleura.config.recipe import Ensemble, Recipe
    from pleura.data.dataset import Dataset
    from pleura.training.folds import FoldsSummary

_NET = ("architecture", "encoder", "pretrained", "in_channels", "decoder_widths", "normalisation", "output_stride")
_ALWAYS = (
    *("size_px", "epochs", "batch_size", "optimizer", "lr", "positive_rate", "loss.bce", "loss.dice"),
    *("schedule.name", "select"),
)


def train(
    recipe: Annotated[Path, typer.Argument(help="The recipe: a YAML file, or the name of one of pleura recipes.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key=value: training.lr=1e-4, stages.low.epochs=2.")
    ] = None,
    data: Annotated[Path, typer.Option(help="The dataset folder of pleura prepare.")] = ...,  # type: ignore[assignment]
    out: Annotated[Path, typer.Option("--out", "-o", help="The run's folder, or a URL.")] = ...,  # type: ignore[assignment]
    fold: Annotated[str, typer.Option(help="The fold to hold out for validation, or all: each in turn.")] = "0",
    resume: Annotated[bool, typer.Option(help="Continue an interrupted run.")] = False,
    stage: Annotated[str | None, typer.Option(help="Start at this stage, from the weights of the one before.")] = None,
    weights: Annotated[
        Path | None, typer.Option(parser=named, metavar="<path>", help="A checkpoint that the first stage starts from.")
    ] = None,
    parallel: Annotated[int, typer.Option(min=1, help="Folds at a time, each on a device of its own.")] = 1,
    tensorboard: Annotated[bool, typer.Option(help="Write TensorBoard files too; needs pleura[track].")] = False,
    ray: Ray = None,
    workers: RayWorkers = None,
    ray_cpus: RayCpus = None,
    ray_gpus: RayGpus = None,
) -> None:
    """Train a recipe with one fold held out, or with each fold held out in turn."""
    from pleura.config.bundled import load_members
    from pleura.config.recipe import Ensemble

    _refuse_wrong_usage(fold, stage, resume, parallel, weights, overrides or [])
    place = _place(out, fold, ray)
    cluster = cluster_options(ray, workers, ray_cpus, ray_gpus)
    settings = _settings(recipe, overrides or [])
    if isinstance(settings, Ensemble) and (fold == "all" or stage or weights):
        raise typer.BadParameter("an ensemble takes neither --fold all nor --stage nor --weights", param_hint="RECIPE")
    if cluster and (isinstance(settings, Ensemble) or parallel > 1):
        raise typer.BadParameter("goes neither with an ensemble nor with --parallel", param_hint="--ray")
    from pleura.data.dataset import Dataset
    from pleura.inference.device import pick_device
    from pleura.malloc import keep_memory
    from pleura.models.build import check_model
    from pleura.training.distributed import end_processes, is_first_process

    if pick_device().type == "cpu":  # here, not in `training.train`: it changes the whole process
        keep_memory()
    recipes = list(load_members(settings, overrides or []).values()) if isinstance(settings, Ensemble) else [settings]
    for each in recipes:
        check_model(each.model, needs_weights=not (resume or stage or weights))
    if is_first_process():
        logging.getLogger("pleura").info("\n".join(line for each in recipes for line in settings_in_words(each)))
    dataset = Dataset(data)
    if isinstance(settings, Ensemble):
        from pleura.training.ensemble import train_ensemble

        train_ensemble(settings, overrides or [], dataset, place, int(fold), resume, tensorboard)
        lines = next_step(place / "ensemble.json", place, data)
    elif fold == "all":
        lines = folds_in_words(_train_folds(settings, dataset, place, resume, parallel, tensorboard, cluster))
    else:
        done = _train_fold(settings, dataset, place, int(fold), resume, stage, weights, tensorboard, cluster)
        lines = next_step(done / "best.safetensors", place, data)
    if is_first_process():
        show(lines)
    end_processes()


def _train_folds(
    recipe: Recipe,
    dataset: Dataset,
    out: Place,
    resume: bool,
    parallel: int,
    tensorboard: bool,
    cluster: ClusterOptions | None,
) -> FoldsSummary:
    if cluster is None:
        from pleura.training.folds import train_folds

        return train_folds(recipe, dataset, out, resume, parallel, tensorboard)
    from pleura.cluster.folds import train_folds_on_cluster

    return train_folds_on_cluster(recipe, dataset, out, cluster, resume, tensorboard)


def _train_fold(
    recipe: Recipe,
    dataset: Dataset,
    out: Place,
    fold: int,
    resume: bool,
    stage: str | None,
    weights: Path | None,
    tensorboard: bool,
    cluster: ClusterOptions | None,
) -> Place:
    from pleura.inference.model_files import find_checkpoint

    first = find_checkpoint(weights) if weights else None
    if cluster is None or isinstance(out, Url):  # who gives both has been refused
        from pleura.training.train import train as run

        return run(recipe, dataset, out, fold, resume, stage=stage, weights=first, tensorboard=tensorboard)
    from pleura.cluster.train import train_on_cluster

    return train_on_cluster(
        recipe, dataset, out, cluster, fold, resume, stage=stage, weights=first, tensorboard=tensorboard
    )


def _refuse_wrong_usage(
    fold: str, stage: str | None, resume: bool, parallel: int, weights: Path | None, overrides: list[str]
) -> None:
    if not re.fullmatch(r"[0-9]+|all", fold):
        raise typer.BadParameter(f"{fold!r} is neither a number nor all", param_hint="--fold")
    if stage and (resume or fold == "all"):
        raise typer.BadParameter("goes neither with --resume nor with --fold all", param_hint="--stage")
    if parallel > 1 and fold != "all":
        raise typer.BadParameter("goes with --fold all", param_hint="--parallel")
    if fold == "all" and weights:
        raise typer.BadParameter("each of its training cases would be validated in some fold", param_hint="--weights")
    if weights and any(word.startswith("model.pretrained=") for word in overrides):
        raise typer.BadParameter("it takes the place of model.pretrained; leave one out", param_hint="--weights")


def _place(out: Path, fold: str, ray: str | None) -> Place:
    """Return where the run goes; refuse a URL that its workers could not share."""
    place = place_of(out)
    if isinstance(place, Url) and ray is not None and fold != "all":
        raise typer.BadParameter(
            "takes a URL as --out with --fold all only: workers that train one net read what the first of them writes; "
            "give a folder that all nodes share",
            param_hint="--ray",
        )
    return place


def _settings(recipe: Path, overrides: list[str]) -> Recipe | Ensemble:
    """Read the settings before torch is imported, so that a typo is refused at once, with every other fault.

    The net that the command line names is checked here only if the settings have a fault.
    """
    from pleura.config.bundled import load_experiment
    from pleura.errors import ConfigError

    try:
        return load_experiment(recipe, overrides, strict=True)
    except ConfigError as error:
        net = [word for word in overrides if word.startswith("model.")]
        fault = _fault_of_net(recipe, net) if net else None
        raise ConfigError(f"{error}; {fault}" if fault else str(error)) from error


def _fault_of_net(recipe: Path, overrides: list[str]) -> str | None:
    from pleura.config.bundled import load_experiment
    from pleura.config.recipe import Recipe
    from pleura.errors import PleuraError

    try:
        settings = load_experiment(recipe, overrides)
    except PleuraError:
        return None  # already in the first message
    if not isinstance(settings, Recipe):
        return None
    from pleura.models.build import check_model

    try:
        check_model(settings.model)
    except PleuraError as error:
        return str(error)
    return None


def next_step(model: Place, run: Place, data: Path) -> Iterator[str]:
    """Yield the path of the model and the command that evaluates it."""
    yield str(model)
    yield f"next: pleura evaluate {as_typed(run) if isinstance(run, Path) else run} --data {data}"


def folds_in_words(summary: FoldsSummary) -> Iterator[str]:
    """Yield the mean and spread of each metric over folds, and its pooled value on held-out cases."""
    from pleura.evaluation.metrics.titles import METRICS, SHOWN

    yield f"{len(summary.folds)} folds; floor of all their cases {summary.floor:.6f}"
    yield f"  {'':<38}{'mean over folds (sd)':<24}pooled, by triplets tuned on the other folds"
    for key in SHOWN:
        mean, sd = summary.spread(key)
        yield f"  {METRICS[key].title:<38}{f'{mean:.4f} ({sd:.4f})':<24}{summary.cross_fitted[key]}"
    yield "  each model's epoch was chosen on the cases that it is scored on here"
    yield str(summary.file)


def settings_in_words(recipe: Recipe) -> Iterator[str]:
    """Yield the net of a recipe, and by stage the main settings and those that are not the default."""
    from pleura.config.document import dotted
    from pleura.config.idle import idle_settings
    from pleura.config.training import StageConfig

    net = ", ".join(f"{key} {value}" for key, value in recipe.model.model_dump().items() if key in _NET)
    yield f"{recipe.name}: {net}; seed {recipe.seed}, tta {recipe.tta}"
    stages = [dotted(stage.model_dump(exclude={"name"})) for stage in recipe.stages]
    for stage, shown in zip(recipe.stages, stages, strict=True):  # the log of each stage lists them
        named = {"labels.weights": stage.labels.weights, "labels.smoothing": stage.labels.smoothing}
        shown |= {key: f"of {len(sources)}" for key, sources in named.items() if sources}
    defaults = dotted(StageConfig(name="a").model_dump(exclude={"name"}))
    idle = idle_settings(recipe)
    keys = [key for key in defaults if key in _ALWAYS or any(stage.get(key) != defaults[key] for stage in stages)]
    width = max(map(len, keys)) + 2
    yield f"  {'stage':<{width}}" + "".join(f"{stage.name:<14} " for stage in recipe.stages).rstrip()
    for key in keys:
        yield f"  {key:<{width}}" + "".join(f"{_short(stage.get(key)):<14} " for stage in stages).rstrip()
    yield from (f"  {each}" for each in idle)


def _short(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    return f"{value:g}" if isinstance(value, float) else f"{value}"
