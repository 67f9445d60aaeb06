"""The command line: parses, calls one verb, prints. torch is imported only inside the commands that need it.

Exit codes: 0 done; 1 an input was refused, or part of a batch was; 2 wrong usage; 130 interrupted.
"""

from __future__ import annotations

import logging
import re
import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from pleura import __version__
from pleura.errors import InputError, PleuraError

if TYPE_CHECKING:
    from pleura.prepare import Prepared


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
                "(pleura train: with --resume)",
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
    _say_prepared(made, out)
    if made.count("quarantined") or made.count("same id"):
        raise typer.Exit(1)


def _say_prepared(made: Prepared, out: Path) -> None:
    card = made.dataset.card
    share = 100 * card["positive"] / card["cases"]
    typer.echo(
        f"{out}: {card['cases']} cases of {card['patients']} patients, {card['positive']} positive ({share:.1f} %)"
    )
    for leak in made.leaks:
        typer.echo(f"  {leak}")
    for kind, count in card["problems"].items():
        first = next(problem for problem in made.problems if problem.kind == kind)
        typer.echo(f"  {count} {kind}: {first.file or first.image_id} ({first.reason})" + (" ..." if count > 1 else ""))
    if card["problems"]:
        typer.echo(f"  all of them with reasons: {out / 'problems.csv'}")


@app.command(epilog="Example: pleura train recipes/densenet121.yaml training.epochs=5 --data siim --out run")
def train(
    recipe: Annotated[Path, typer.Argument(help="The recipe, a YAML file.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key=value: training.lr=1e-4, stages.low.epochs=2.")
    ] = None,
    data: Annotated[Path, typer.Option(help="The dataset folder of pleura prepare.")] = ...,  # type: ignore[assignment]
    out: Annotated[Path, typer.Option(help="The run's folder.")] = ...,  # type: ignore[assignment]
    fold: Annotated[int, typer.Option(min=0, help="The fold to hold out for validation.")] = 0,
    resume: Annotated[bool, typer.Option(help="Go on with a run that was interrupted.")] = False,
) -> None:
    """Train a recipe on all folds but one."""
    from pleura.config import load_recipe

    settings = load_recipe(recipe, overrides or [])  # before torch is imported, so that a typo is told at once
    from pleura.data.dataset import Dataset
    from pleura.train import train as run

    folder = run(settings, Dataset(data), out, fold, resume)
    typer.echo(f"{folder / 'best.safetensors'}\nnext: pleura evaluate {out} --data {data}")


@app.command(epilog="Example: pleura evaluate run --data siim")
def evaluate(
    model: Annotated[Path, typer.Argument(help="A checkpoint, or a run's folder.")],
    data: Annotated[Path, typer.Option(help="The dataset folder.")],
    split: Annotated[SplitName | None, typer.Option(help="By default val, or all if the model met none.")] = None,
    out: Annotated[Path | None, typer.Option(help="The report's folder; by default beside the model.")] = None,
    tta: Annotated[Tta, typer.Option(help="flip: mean with the mirrored image.")] = Tta.none,
    resamples: Annotated[int, typer.Option(min=10, help="Of the bootstrap.")] = 1000,
) -> None:
    """Score a model, next to its floor and with intervals; writes report.html and report.json."""
    from pleura.evaluate import evaluate as run
    from pleura.measure.report import NAMES

    done = run(model, data, split.value if split else None, tta.value, resamples, out)
    typer.echo(f"{done.split}: {done.positives} positive, {done.negatives} negative; floor {done.floor:.6f}")
    for key, (name, _) in NAMES.items():
        typer.echo(f"  {name:<36}{done.estimates[key]}")
    triplet = done.triplet
    typer.echo(
        f"  triplet {triplet.top_threshold:.3f} / {triplet.min_pixels} px / {triplet.bottom_threshold:.3f}", nl=False
    )
    typer.echo(", tuned on these very cases" if done.in_sample else "")
    if done.tuned["cross_fitted"] is not None:
        in_sample, honest = done.tuned["in_sample"], done.tuned["cross_fitted"]
        typer.echo(f"  tuning it here, at 22.15 % positives: {in_sample:.4f} in sample, {honest:.4f} cross-fitted")
    typer.echo(f"{done.verdict}\n{done.report}")


@app.command(epilog="Example: pleura predict patient.dcm folder/ 'study/*.png' --model run --out found")
def predict(
    inputs: Annotated[list[str], typer.Argument(help="DICOM, PNG or JPEG files, folders, or patterns.")],
    out: Annotated[Path, typer.Option(help="The folder of results.")],
    model: Annotated[Path, typer.Option(help="A checkpoint, or a run's folder.")],
    tta: Annotated[Tta, typer.Option(help="flip: mean with the mirrored image.")] = Tta.none,
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
    done = predict_batch(Predictor.load(model, tta.value), settings)
    earlier = f", {done.earlier} were done by an earlier run" if done.earlier else ""
    typer.echo(f"{out}: {done.predicted} radiographs{earlier}; pneumothorax found on {done.positive} of all")
    typer.echo("research software, not a medical device")
    for file, reason in done.problems:
        typer.echo(f"pleura: {reason if file in reason else f'{file}: {reason}'}", err=True)
    if done.problems:
        raise typer.Exit(1)


@app.command(epilog="Example: pleura demo --out demo")
def demo(out: Annotated[Path, typer.Option(help="The folder to write.")] = Path("demo")) -> None:
    """The whole flow on phantom radiographs, in minutes: prepare, train, evaluate, predict, one page to look at."""
    from pleura.demo import demo as run

    typer.echo(f"look at {run(out)}")


@app.command(epilog="Example: pleura doctor folds.csv --patients siim-nih-id.csv --masks train-rle.csv")
def doctor(
    path: Annotated[Path, typer.Argument(help="A csv with folds.")],
    patients: Annotated[Path, typer.Option(help="csv with ImageId and patient, or the public SIIM to NIH map.")],
    masks: Annotated[Path | None, typer.Option(help="SIIM csv, to tell positives; else a column exist_labels.")] = None,
) -> None:
    """Tell how far the folds of a csv leak patients; exits with 1 if they do."""
    from pleura.doctor import check_folds

    leaks = check_folds(path, patients, masks)
    for leak in leaks:
        typer.echo(leak)
    if any(leak.leaked for leak in leaks):
        raise InputError(f"{path}: patients leak across its folds; make new ones with pleura prepare")


def main() -> None:
    """The entry point of the `pleura` command."""
    app()
