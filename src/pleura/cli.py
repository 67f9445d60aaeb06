"""The command line: parses, calls one verb, prints. torch is imported only inside the commands that need it.

Exit codes: 0 done; 1 an input was refused, or part of a batch was; 2 wrong usage; 130 interrupted.
"""

from __future__ import annotations

import logging
import re
import sys
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from pleura import __version__, cli_model, cli_scoring, cli_tuning, say
from pleura.errors import PleuraError
from pleura.shipped import DEFAULT, is_default, model_path, named


class _Commands(TyperGroup):
    """Turns pleura's own errors into one line and an exit code, for every command."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except PleuraError as error:
            typer.echo(f"pleura: {error}", err=True)
            raise typer.Exit(1) from error
        except KeyboardInterrupt as error:
            typer.echo(
                "pleura: interrupted; what was finished is kept, run the same command again to go on "
                "(pleura train: with --resume, and without --stage)",
                err=True,
            )
            raise typer.Exit(130) from error


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Find and outline pneumothorax on chest radiographs. Research software, not a medical device.",
)


class RleGrid(str, Enum):
    """Which pixels run-length masks count."""

    siim = "siim"
    image = "image"


class SplitName(str, Enum):
    """Parts of a dataset."""

    train = "train"
    val = "val"
    all = "all"


class Tta(str, Enum):
    """Test-time augmentation."""

    none = "none"
    flip = "flip"


class Architecture(str, Enum):
    """The nets."""

    unet = "unet"
    albunet = "albunet"


class InputScaling(str, Enum):
    """What happens to an image in [0, 1] before the net sees it."""

    encoder = "encoder"
    none = "none"


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"pleura {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("pleura")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO)


@app.command(epilog="Example: pleura prepare --images dicom-images-train --masks train-rle.csv --out siim")
def prepare(
    images: Annotated[Path, typer.Option(help="Folder of DICOM, PNG or JPEG files, searched to any depth.")],
    masks: Annotated[list[Path], typer.Option(help="SIIM csv, or folder of mask PNGs named ID.png; repeatable.")],
    out: Annotated[Path, typer.Option(help="The dataset folder to write.")],
    size: Annotated[int, typer.Option(min=32, help="Side of the square images; prepare once, at the largest.")] = 1024,
    patients: Annotated[Path | None, typer.Option(help="csv with ImageId, patient; else DICOM PatientID.")] = None,
    folds: Annotated[str, typer.Option(help="How many, or a csv with ImageId and fold, or split (train, val).")] = "5",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the folds.")] = 42,
    rle_grid: Annotated[
        RleGrid, typer.Option(help="siim: runs are on 1024 x 1024; image: on each image's own pixels.")
    ] = RleGrid.siim,
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0 is one for each core.")] = 0,
) -> None:
    """Turn radiographs and masks into a dataset folder, with folds that keep patients together."""
    from pleura.prepare import PrepareSettings
    from pleura.prepare import prepare as run

    made = run(
        PrepareSettings(
            images=images,
            masks=tuple(masks),
            out=out,
            size_px=size,
            patients=patients,
            folds=int(folds) if re.fullmatch(r"-?[0-9]+", folds) else Path(folds),
            seed=seed,
            rle_grid=rle_grid.value,
            workers=workers,
        )
    )
    typer.echo("\n".join(say.prepared(made, out)))
    if made.count("quarantined") or made.count("same id"):
        raise typer.Exit(1)


@app.command(epilog="Example: pleura train recipes/densenet121.yaml training.epochs=5 --data siim --out run")
def train(
    recipe: Annotated[Path, typer.Argument(help="The recipe: a YAML file, or the name of one of pleura recipes.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key=value: training.lr=1e-4, stages.low.epochs=2.")
    ] = None,
    data: Annotated[Path, typer.Option(help="The dataset folder of pleura prepare.")] = ...,  # type: ignore[assignment]
    out: Annotated[Path, typer.Option(help="The run's folder.")] = ...,  # type: ignore[assignment]
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
    from pleura.recipes import load_experiment, load_members
    from pleura.settings import Ensemble

    if not re.fullmatch(r"[0-9]+|all", fold):
        raise typer.BadParameter(f"{fold!r} is neither a number nor all", param_hint="--fold")
    if stage and (resume or fold == "all"):
        raise typer.BadParameter("goes neither with --resume nor with --fold all", param_hint="--stage")
    if parallel > 1 and fold != "all":
        raise typer.BadParameter("goes with --fold all", param_hint="--parallel")
    if fold == "all" and weights:
        raise typer.BadParameter("its cases would be validation cases of some fold", param_hint="--weights")
    settings = load_experiment(recipe, overrides or [])  # before torch is imported, so that a typo is told at once
    if isinstance(settings, Ensemble) and (fold == "all" or stage or weights):
        raise typer.BadParameter("an ensemble takes neither --fold all nor --stage nor --weights", param_hint="RECIPE")
    from pleura.data.dataset import Dataset
    from pleura.learn.processes import end_processes, is_first_process
    from pleura.model import check_model

    recipes = load_members(settings, overrides or []).values() if isinstance(settings, Ensemble) else [settings]
    for each in recipes:
        check_model(each.model)
    dataset = Dataset(data)
    if isinstance(settings, Ensemble):
        from pleura.ensemble import train_ensemble

        train_ensemble(settings, overrides or [], dataset, out, int(fold), resume, tensorboard)
        lines = say.trained(out / "ensemble.json", out, data)
    elif fold == "all":
        from pleura.crossval import train_folds

        lines = say.folds(train_folds(settings, dataset, out, resume, parallel, tensorboard))
    else:
        from pleura.predict import find_checkpoint
        from pleura.train import train as run

        first = find_checkpoint(weights) if weights else None
        done = run(settings, dataset, out, int(fold), resume, stage=stage, weights=first, tensorboard=tensorboard)
        lines = say.trained(done / "best.safetensors", out, data)
    if is_first_process():
        typer.echo("\n".join(lines))
    end_processes()


@app.command(epilog="Example: pleura evaluate run --data siim")
def evaluate(
    model: Annotated[Path, typer.Argument(parser=named, help="A checkpoint, a run's folder, or default.")],
    data: Annotated[Path, typer.Option(help="The dataset folder.")],
    split: Annotated[SplitName | None, typer.Option(help="By default val, or all if the model met none.")] = None,
    out: Annotated[Path | None, typer.Option(help="The report's folder; by default beside the model.")] = None,
    tta: Annotated[Tta | None, typer.Option(help="flip: mean with the mirrored image; by default as trained.")] = None,
    resamples: Annotated[int, typer.Option(min=10, help="Of the bootstrap.")] = 1000,
) -> None:
    """Score a model, next to its floor and with intervals; writes report.html and report.json."""
    from pleura.evaluate import evaluate as run

    done = run(model, data, split.value if split else None, tta.value if tta else None, resamples, out)
    typer.echo("\n".join(say.evaluation(done)))


@app.command(epilog="Example: pleura predict patient.dcm folder/ 'study/*.png' --out found")
def predict(
    inputs: Annotated[list[str], typer.Argument(help="DICOM, PNG or JPEG files, folders, or patterns.")],
    out: Annotated[Path, typer.Option(help="The folder of results.")],
    model: Annotated[
        Path, typer.Option(parser=named, metavar="<path>", help="A checkpoint, or a run's folder.")
    ] = Path(DEFAULT),
    tta: Annotated[Tta | None, typer.Option(help="flip: mean with the mirrored image; by default as trained.")] = None,
    write: Annotated[str, typer.Option(help="What to write: mask, rle, overlay.")] = "mask,rle,overlay",
    batch_size: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 4,
) -> None:
    """Find pneumothorax on radiographs: masks, overlays and tables."""
    from pleura.batch import WRITES, BatchSettings, model_name, predict_batch
    from pleura.predict import Predictor

    wanted = tuple(word.strip() for word in write.split(",") if word.strip())
    unknown = [word for word in wanted if word not in WRITES]
    if unknown:
        raise typer.BadParameter(f"{unknown[0]!r} is none of {', '.join(WRITES)}", param_hint="--write")
    settings = BatchSettings(tuple(inputs), out, model_name(model), wanted, batch_size)
    done = predict_batch(Predictor.load(model, tta.value if tta else None), settings)
    earlier = f", {done.earlier} were done by an earlier run" if done.earlier else ""
    typer.echo(f"{out}: {done.predicted} radiographs{earlier}; pneumothorax found on {done.positive} of all")
    if is_default(model_path(model)):
        typer.echo(f"found by {settings.model_name}")
    typer.echo("research software, not a medical device")
    for file, reason in done.problems:
        typer.echo(f"pleura: {reason if file in reason else f'{file}: {reason}'}", err=True)
    if done.problems:
        raise typer.Exit(1)


app.command(epilog="Example: pleura tune run --data siim")(cli_tuning.tune)
app.command(epilog="Example: pleura recalibrate best.safetensors --data local --out site.safetensors")(
    cli_tuning.recalibrate
)
app.command(epilog="Example: pleura pack run --card card.yaml --out small.safetensors")(cli_model.pack)
app.command(epilog="Example: pleura card best.safetensors --out card.md")(cli_model.card)
app.command(epilog="Example: pleura score --truth train-rle.csv --pred submission.csv")(cli_scoring.score)
app.command(epilog="Example: pleura compare run other-run --data siim")(cli_scoring.compare)


@app.command("import-recipe", epilog="Example: pleura import-recipe train_config_part0.yaml train_config_part1.yaml")
def import_recipe(
    files: Annotated[list[Path], typer.Argument(help="Training YAMLs of the winner's repository, in their order.")],
    out: Annotated[Path, typer.Option(help="The recipe to write.")] = Path("recipe.yaml"),
) -> None:
    """Turn another project's training files into one recipe, and tell what differs and why."""
    from pleura.migrate.recipe import import_recipe as run

    for line in run(files, out):
        typer.echo(line)
    typer.echo(f"{out}\nnext: pleura train {out} --data DATA --out RUN")


@app.command(
    "import-weights", epilog="Example: pleura import-weights model.pth --architecture albunet --out a.safetensors"
)
def import_weights(
    file: Annotated[Path, typer.Argument(help="A state dict, .pth or .safetensors; nothing else is unpickled.")],
    architecture: Annotated[Architecture, typer.Option(help="Which of the published nets.")],
    out: Annotated[Path, typer.Option(help="The checkpoint to write, a .safetensors file.")],
    encoder: Annotated[str | None, typer.Option(help="Of a unet; by default told from the file.")] = None,
    size: Annotated[int, typer.Option(min=32, help="Side of the images that it was trained on.")] = 1024,
    input_scaling: Annotated[
        InputScaling | None, typer.Option(help="encoder: ImageNet's; none: [0, 1]; by default as published.")
    ] = None,
    triplet: Annotated[str | None, typer.Option(help="TOP/PIXELS/BOTTOM; by default 0.75/2000/0.3.")] = None,
) -> None:
    """Turn another project's checkpoint into one of pleura's, with equal outputs."""
    from pleura.migrate.weights import WeightSettings
    from pleura.migrate.weights import import_weights as run

    scaling = input_scaling.value if input_scaling else None
    made = run(WeightSettings(file, architecture.value, out, encoder, size, scaling, triplet))
    rule = "/".join(f"{made.triplet[key]}" for key in ("top_threshold", "min_pixels", "bottom_threshold"))
    typer.echo(f"{out}: {made.model.architecture} with {made.model.encoder}, {len(made.weights)} tensors")
    typer.echo(f"  input scaling {made.model.input_scaling}; triplet {rule}, {made.provenance['triplet']}")


@app.command(epilog="Example: pleura recipes seunet")
def recipes(
    name: Annotated[str | None, typer.Argument(help="One of them, to see all of it.")] = None,
) -> None:
    """List the recipes that come with pleura, with their scores to compare with, cost and source."""
    from pleura.recipes import describe_recipe, list_recipes

    typer.echo(describe_recipe(name) if name else list_recipes())


@app.command(epilog="Example: pleura demo --out demo")
def demo(out: Annotated[Path, typer.Option(help="The folder to write.")] = Path("demo")) -> None:
    """The whole flow on phantom radiographs, in minutes: prepare, train, evaluate, predict, one page to look at."""
    from pleura.demo import demo as run

    typer.echo(f"look at {run(out)}")


@app.command(epilog="Example: pleura doctor folds.csv --patients siim-nih-id.csv --masks train-rle.csv")
def doctor(
    path: Annotated[
        Path,
        typer.Argument(parser=named, help="Recipe, dataset, run, masks, folds, predictions, model."),
    ],
    patients: Annotated[Path | None, typer.Option(help="Of folds: csv with ImageId, patient; or SIIM to NIH.")] = None,
    masks: Annotated[Path | None, typer.Option(help="Of folds: SIIM csv, to tell positives.")] = None,
    images: Annotated[Path | None, typer.Option(help="Of masks: the radiographs that they belong to.")] = None,
    truth: Annotated[Path | None, typer.Option(help="Of predictions: SIIM csv or dataset with the truth.")] = None,
    data: Annotated[Path | None, typer.Option(help="Of a checkpoint: a dataset to run it on.")] = None,
) -> None:
    """Tell what a file or folder is, and what is wrong with it; exits with 1 if there is any error."""
    from pleura.doctor import Against, examine

    found = examine(path, Against(patients, masks, images, truth, data))
    typer.echo("\n".join(say.examination(path, found)))
    if found.failed:
        raise typer.Exit(1)


def main() -> None:
    """The entry point of the `pleura` command."""
    app()
