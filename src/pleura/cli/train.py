"""The command `train`: parses, calls its verb, prints."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pleura.cli import messages as say
from pleura.models.default import named

if TYPE_CHECKING:  # it imports pydantic, which --help is not to wait for
    from pleura.config.recipe import Ensemble, Recipe


def train(
    recipe: Annotated[Path, typer.Argument(help="The recipe: a YAML file, or the name of one of pleura recipes.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key=value: training.lr=1e-4, stages.low.epochs=2.")
    ] = None,
    data: Annotated[Path, typer.Option(help="The dataset folder of pleura prepare.")] = ...,  # type: ignore[assignment]
    out: Annotated[Path, typer.Option("--out", "-o", help="The run's folder.")] = ...,  # type: ignore[assignment]
    fold: Annotated[str, typer.Option(help="The fold to hold out for validation, or all: each in turn.")] = "0",
    resume: Annotated[bool, typer.Option(help="Go on with a run that was interrupted.")] = False,
    stage: Annotated[str | None, typer.Option(help="Begin at this stage, from what the one before has left.")] = None,
    weights: Annotated[
        Path | None, typer.Option(parser=named, metavar="<path>", help="A checkpoint that the first stage starts from.")
    ] = None,
    parallel: Annotated[int, typer.Option(min=1, help="Folds at a time, each on a device of its own.")] = 1,
    tensorboard: Annotated[bool, typer.Option(help="Write TensorBoard files too; needs pleura[track].")] = False,
) -> None:
    """Train a recipe on all folds but one, or on each of them."""
    from pleura.config.bundled import load_members
    from pleura.config.recipe import Ensemble

    _refuse_wrong_usage(fold, stage, resume, parallel, weights)
    if weights and any(word.startswith("model.pretrained=") for word in overrides or ()):
        raise typer.BadParameter("it takes the place of model.pretrained; leave one out", param_hint="--weights")
    settings = _settings(recipe, overrides or [])
    if isinstance(settings, Ensemble) and (fold == "all" or stage or weights):
        raise typer.BadParameter("an ensemble takes neither --fold all nor --stage nor --weights", param_hint="RECIPE")
    from pleura.data.dataset import Dataset
    from pleura.models.build import check_model
    from pleura.training.distributed import end_processes, is_first_process

    recipes = list(load_members(settings, overrides or []).values()) if isinstance(settings, Ensemble) else [settings]
    for each in recipes:
        check_model(each.model, begins=not (resume or stage or weights))
    if is_first_process():
        logging.getLogger("pleura").info("\n".join(line for each in recipes for line in say.resolved(each)))
    dataset = Dataset(data)
    if isinstance(settings, Ensemble):
        from pleura.training.ensemble import train_ensemble

        train_ensemble(settings, overrides or [], dataset, out, int(fold), resume, tensorboard)
        lines = say.trained(out / "ensemble.json", out, data)
    elif fold == "all":
        from pleura.training.folds import train_folds

        lines = say.folds(train_folds(settings, dataset, out, resume, parallel, tensorboard))
    else:
        from pleura.inference.predictor import find_checkpoint
        from pleura.training.train import train as run

        first = find_checkpoint(weights) if weights else None
        done = run(settings, dataset, out, int(fold), resume, stage=stage, weights=first, tensorboard=tensorboard)
        lines = say.trained(done / "best.safetensors", out, data)
    if is_first_process():
        typer.echo("\n".join(lines))
    end_processes()


def _refuse_wrong_usage(fold: str, stage: str | None, resume: bool, parallel: int, weights: Path | None) -> None:
    if not re.fullmatch(r"[0-9]+|all", fold):
        raise typer.BadParameter(f"{fold!r} is neither a number nor all", param_hint="--fold")
    if stage and (resume or fold == "all"):
        raise typer.BadParameter("goes neither with --resume nor with --fold all", param_hint="--stage")
    if parallel > 1 and fold != "all":
        raise typer.BadParameter("goes with --fold all", param_hint="--parallel")
    if fold == "all" and weights:
        raise typer.BadParameter("its cases would be validation cases of some fold", param_hint="--weights")


def _settings(recipe: Path, overrides: list[str]) -> Recipe | Ensemble:
    """The settings, before torch is imported, so that a typo is answered at once; all that is wrong with them together.

    Only where something is wrong anyway, the net that the command line asks for is looked at too.
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
        return None  # it has been said
    if not isinstance(settings, Recipe):
        return None
    from pleura.models.build import check_model

    try:
        check_model(settings.model)
    except PleuraError as error:
        return str(error)
    return None
