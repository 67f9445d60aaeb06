"""The whole flow on phantom radiographs: DICOM -> prepare -> train -> evaluate -> predict -> one page to look at."""

from __future__ import annotations

import logging
import shutil
import time
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from pleura import __version__
from pleura.config.bundled import find_recipe
from pleura.config.parse import load_recipe
from pleura.data import rle
from pleura.data.dataset import Dataset
from pleura.data.finding import find_radiographs
from pleura.data.geometry import SquareGeometry
from pleura.data.mask_csv import read_table
from pleura.data.phantoms.dicom_files import write_phantom_dataset
from pleura.data.prepare import PrepareSettings, prepare
from pleura.data.radiograph import read_radiograph
from pleura.errors import OutputError, writing
from pleura.evaluation.evaluate import evaluate
from pleura.evaluation.metrics.siim import siim_dice
from pleura.evaluation.report.document import EvaluationReport
from pleura.evaluation.report.page import Picture, gallery, page
from pleura.files import write_atomically
from pleura.inference.batch import model_name, predict_batch
from pleura.inference.model_files import find_model
from pleura.inference.overlay import as_data_uri, overlay
from pleura.inference.part import BatchSettings
from pleura.inference.predictor import Predictor
from pleura.models.checkpoint import load_checkpoint
from pleura.models.default import default_model
from pleura.training.train import train

logger = logging.getLogger("pleura")

MARKER = ".pleura-demo"
SHOWN = 12


@dataclass(frozen=True)
class DemoSettings:
    """The size of the demo; the tests make it smaller."""

    patients: int = 130
    unseen_patients: int = 24
    size_px: int = 192
    recipe: str = "demo"
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Entrant:
    """One of the two models on the page."""

    name: str
    folder: Path
    results: str
    """The folder of its predictions, inside the demo's."""
    learned_from: str
    net: str

    @classmethod
    def of(cls, name: str, model: Path, results: str, learned_from: str) -> Entrant:
        """Read a checkpoint, or the folder of one. Raises: CheckpointError."""
        found = load_checkpoint(find_model(model).checkpoints[0])
        net = f"{found.model.encoder}, at {found.preprocessing.size_px} px"
        return cls(name, model, results, learned_from, net)


def demo(out: Path, settings: DemoSettings | None = None) -> Path:
    """Run the flow into `out`, a new folder or one of an earlier demo, and return its page, index.html.

    Raises: OutputError if `out` holds something else or cannot be written; CheckpointError if pleura's own model is
    missing.
    """
    settings, default_path = settings or DemoSettings(), default_model()
    _clear(out)
    began = time.monotonic()
    logger.info(
        "1/6 phantom radiographs: %d patients to learn from, %d unseen", settings.patients, settings.unseen_patients
    )
    with writing(out):
        write_phantom_dataset(out / "phantoms", settings.patients, seed=1, size_px=256, positive_share=0.6)
        write_phantom_dataset(out / "unseen", settings.unseen_patients, seed=2, size_px=256, positive_share=0.6)
    logger.info("2/6 prepare")
    data, unseen = (_prepare(out, name, settings.size_px) for name in ("phantoms", "unseen"))
    logger.info("3/6 train")
    train(load_recipe(find_recipe(settings.recipe), settings.overrides), data, out / "run")
    logger.info("4/6 evaluate on unseen patients")
    scores = evaluate(out / "run", unseen.folder).report
    logger.info("5/6 predict from DICOM with the net that was just trained")
    trained = Entrant.of(
        "net trained by this demo", out / "run" / "fold-0", "predictions", "phantoms like these, in this demo"
    )
    _predict(out, trained)
    logger.info("6/6 predict the same with %s, which was trained on radiographs", model_name(default_path))
    default = Entrant.of(
        "default model of pleura", default_path, "predictions-default", "radiographs of patients, before"
    )
    _predict(out, default)
    seconds = time.monotonic() - began
    write_atomically(out / "index.html", _page(out, trained, default, scores, seconds).encode())
    dice, floor = scores.metrics["dice_on_positives"], scores.floor
    logger.info(
        "the net trained here, on unseen patients: Dice on positives %s; SIIM Dice %s, floor %.4f",
        dice,
        scores.metrics["siim_dice"],
        floor,
    )
    numbers = ", ".join(f"{name} {value}" for name, value in list(_numbers(out, default).items())[2:])
    logger.info("the default model on the same: %s; phantoms say nothing of its results on patients", numbers)
    logger.info("%.0f seconds", seconds)
    return out / "index.html"


def _clear(out: Path) -> None:
    """Make the folder, or empty it if an earlier demo made it; files of anybody else are never removed."""
    with writing(out):
        if out.exists() and any(out.iterdir()) and not (out / MARKER).exists():
            raise OutputError(f"{out}: is not empty and no demo made it; choose another --out")
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        (out / MARKER).touch()


def _predict(out: Path, entrant: Entrant) -> None:
    inputs = (str(out / "unseen" / "dicom"),)
    batch = BatchSettings(inputs, out / entrant.results, model_name(entrant.folder))
    predict_batch(Predictor.load(entrant.folder), batch)


def _prepare(out: Path, name: str, size_px: int) -> Dataset:
    source = out / name
    settings = PrepareSettings(
        images=source / "dicom",
        masks=(source / "masks.csv",),
        out=out / f"{name}-dataset",
        size_px=size_px,
        patients=source / "patients.csv",
    )
    return prepare(settings).dataset


def _page(out: Path, trained: Entrant, default: Entrant, scores: EvaluationReport, seconds: float) -> str:
    dice = scores.metrics["dice_on_positives"]
    total = scores.positives + scores.negatives
    body = [
        "<h1>pleura finds pneumothorax on phantoms</h1>",
        f"<p class=soft>pleura {escape(__version__)}, the whole flow in {seconds:.0f} seconds: DICOM, prepare, train "
        "at two resolutions, evaluate, predict. Phantoms are drawings: this page shows that every step works, and "
        "says nothing about patients.</p>",
        f"<p class='verdict good'>The net that this demo trained: Dice on positives {dice:.3f} "
        f"on {total} radiographs of patients it never saw, {scores.positives} of "
        "them positive.</p>",
        f"<p>{escape(scores.summary)} <a href='run/report.html'>The report</a> · "
        "<a href='predictions/predictions.csv'>predictions.csv</a> · <a href='predictions/masks.csv'>masks.csv</a> · "
        f"<a href='run/{trained.folder.name}/metrics.csv'>metrics.csv of the training</a></p>",
        _beside(out, trained, default),
        gallery("The net that this demo trained, on unseen phantoms", _pictures(out, trained)),
        gallery("The default model, which comes with pleura, on the same phantoms", _pictures(out, default)),
    ]
    return page("pleura demo", "\n".join(body))


def _beside(out: Path, trained: Entrant, default: Entrant) -> str:
    """The two models in a table, and why its numbers do not judge the default model."""
    columns = [_numbers(out, entrant) for entrant in (trained, default)]
    rows = [f"<tr><th scope=row>{name}" + "".join(f"<td>{column[name]}" for column in columns) for name in columns[0]]
    return (
        f"<h2>Two models on the same phantoms</h2><div class=scroll><table><tr><td><th>{escape(trained.name)}"
        f"<th>{escape(default.name)}{''.join(rows)}</table></div>"
        "<p class=soft>The default model is what <code>pleura predict FILE --out DIR</code> uses. It was trained on "
        "radiographs, never on a drawing: good or bad, its numbers here say nothing of its results on patients. "
        "<code>pleura card</code> lists those. "
        "<a href='predictions-default/predictions.csv'>Its predictions.csv</a></p>"
    )


def _numbers(out: Path, entrant: Entrant) -> dict[str, str]:
    truth, found = (
        read_table(path).runs for path in (out / "unseen" / "masks.csv", out / entrant.results / "masks.csv")
    )
    positives = [image_id for image_id, runs in truth.items() if rle.decode_union(runs).any()]
    predicted_positive = {image_id for image_id, runs in found.items() if runs != ["-1"]}
    alarms = len(predicted_positive - set(positives))
    dice = [siim_dice(*(rle.decode_union(runs[image_id]) for runs in (truth, found)))[0] for image_id in positives]
    return {
        "learned from": escape(entrant.learned_from),
        "net": escape(entrant.net),
        "finds a pneumothorax on": f"{len(predicted_positive) - alarms} of {len(positives)} phantoms that have one",
        "false alarms": f"{alarms} of {len(truth) - len(positives)} phantoms without",
        "Dice on positives, by masks.csv": f"{np.mean(dice):.3f}" if dice else "no such phantoms",
    }


def _pictures(out: Path, entrant: Entrant) -> list[Picture]:
    """The masks that predict wrote, over the true ones."""
    truth = read_table(out / "unseen" / "masks.csv").runs
    pictures = []
    for located in find_radiographs([out / "unseen" / "dicom"]).radiographs[:SHOWN]:
        radiograph = read_radiograph(located.path)
        to_image = SquareGeometry(rle.SIIM_SIDE_PX, rle.SIIM_SIDE_PX, radiograph.image.shape[0])
        mask = to_image.mask_to_square(rle.decode_union(truth[radiograph.image_id]))
        with Image.open(out / entrant.results / "masks" / f"{radiograph.image_id}.png") as png:
            predicted = (np.asarray(png) > 0).astype(np.uint8)
        dice = float(siim_dice(mask, predicted)[0])
        says = f"{'pneumothorax' if mask.any() else 'no pneumothorax'}, Dice {dice:.2f}"
        drawn = overlay(radiograph.image, predicted, mask, entrant.name, longest_px=512)
        pictures.append(Picture(as_data_uri(drawn), says, f"patient {radiograph.patient_id}"))
    return pictures
