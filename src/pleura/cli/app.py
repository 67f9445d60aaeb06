"""The `pleura` command: registers its subcommands, and reports errors as one line and an exit code.

torch is imported only inside the commands that need it.
Exit codes: 0 done; 1 an input was refused, or part of a batch was; 2 wrong usage; 130 interrupted.
"""

from __future__ import annotations

import logging
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from pleura import __version__
from pleura.cli.card import card
from pleura.cli.compare import compare
from pleura.cli.demo import demo
from pleura.cli.doctor import doctor
from pleura.cli.evaluate import evaluate
from pleura.cli.export import export
from pleura.cli.import_recipe import import_recipe
from pleura.cli.import_weights import import_weights
from pleura.cli.listen import listen
from pleura.cli.options import with_shared_options
from pleura.cli.pack import pack
from pleura.cli.predict import predict
from pleura.cli.prepare import prepare
from pleura.cli.pull import pull
from pleura.cli.push import push
from pleura.cli.recalibrate import recalibrate
from pleura.cli.recipes import recipes
from pleura.cli.score import score
from pleura.cli.serve import serve
from pleura.cli.train import train
from pleura.cli.tune import tune
from pleura.errors import PleuraError
from pleura.extras import missing
from pleura.urls.copies import said


class _Commands(TyperGroup):
    """Reports the errors of pleura as one line and an exit code, for every command."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except PleuraError as error:
            typer.echo(f"pleura: {error}", err=True)
            cause = error.__cause__ if logging.getLogger("pleura").level <= logging.DEBUG else None
            while cause is not None:  # of pleura --verbose
                typer.echo(f"  because of {type(cause).__name__}: {cause}", err=True)
                cause = cause.__cause__ or cause.__context__
            raise typer.Exit(1) from error
        except ModuleNotFoundError as error:
            refusal = missing(error, f"pleura {ctx.invoked_subcommand}")
            if refusal is None:
                raise
            typer.echo(f"pleura: {refusal}", err=True)
            raise typer.Exit(1) from error
        except KeyboardInterrupt as error:
            typer.echo(
                "pleura: interrupted; what was finished is kept, run the same command again to continue "
                "(pleura train: with --resume, and without --stage)",
                err=True,
            )
            raise typer.Exit(130) from error


class _Said(logging.Formatter):
    """A line of the log, in which the copy of what a URL names goes by the URL."""

    def format(self, record: logging.LogRecord) -> str:
        return said(super().format(record))


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # markup would swallow the brackets of pleura[track]
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Find and outline pneumothorax on chest radiographs. Research software, not a medical device.",
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"pleura {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_Said("%(message)s"))
    logger = logging.getLogger("pleura")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO)


_TRAINS, _FITS, _RUNS = ("device",), ("device", "precision"), ("device", "precision", "engine")
"""How a net runs may be said; its precision, where it is no setting of the recipe; its engine, where it may be an
exported model."""
_NETS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("train", "pack", "demo", "doctor"), _TRAINS),
    **dict.fromkeys(("tune", "recalibrate"), _FITS),
    **dict.fromkeys(("evaluate", "predict", "serve", "listen", "compare"), _RUNS),
}
"""The commands that run a net."""

for _command, _example in (
    (prepare, "--images dicom-images-train --masks train-rle.csv --out siim"),
    (train, "densenet121 training.epochs=5 --data siim --out run"),
    (evaluate, "run --data siim"),
    (predict, "patient.dcm folder/ 'study/*.png' --out found"),
    (serve, "--port 8080"),
    (listen, "--ae-title PLEURA --inbox inbox --send-to 127.0.0.1:4242:ARCHIVE"),
    (pull, "https://archive.example/dicom-web --study 1.2.3 --out study"),
    (push, "results/seg results/sr --to archive.example:104:ARCHIVE"),
    (tune, "run --data siim"),
    (recalibrate, "best.safetensors --data local --out site.safetensors"),
    (pack, "run --card card.yaml --out small.safetensors"),
    (card, "best.safetensors --out card.md"),
    (export, "run --data siim --out exported"),
    (score, "--truth train-rle.csv --pred submission.csv"),
    (compare, "run other-run --data siim"),
    (import_recipe, "train_config_part0.yaml train_config_part1.yaml"),
    (import_weights, "model.pth --architecture albunet --out a.safetensors"),
    (recipes, "seunet"),
    (demo, "--out demo"),
    (doctor, "folds.csv --patients siim-nih-id.csv --masks train-rle.csv"),
):
    _name = _command.__name__.replace("_", "-")
    app.command(_name, epilog=f"Example: pleura {_name} {_example}")(
        with_shared_options(_command, _NETS.get(_name, ()))
    )


def main() -> None:
    """Run the `pleura` command."""
    app()
