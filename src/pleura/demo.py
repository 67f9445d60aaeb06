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
from pleura.batch import BatchSettings, model_name, predict_batch
from pleura.config import load_recipe
from pleura.data import rle
from pleura.data.dataset import Dataset
from pleura.data.phantom_dicom import write_phantom_dataset
from pleura.data.radiograph import SquareGeometry, find_radiographs, read_radiograph
from pleura.errors import OutputError, writing
from pleura.evaluate import Evaluation, evaluate
from pleura.learn.checkpoint import write_atomically
from pleura.measure.metrics import siim_dice
from pleura.measure.overlay import as_data_uri, overlay
from pleura.measure.report import Picture, gallery, page
from pleura.predict import Predictor
from pleura.prepare import PrepareSettings, prepare
from pleura.recipes import find_recipe
from pleura.train import train

logger = logging.getLogger("pleura")

MARKER = ".pleura-demo"
SHOWN = 12


@dataclass(frozen=True)
class DemoSettings:
    """How large the demo is; the tests make it smaller."""

    patients: int = 130
    unseen_patients: int = 24
    size_px: int = 192
    recipe: str = "demo"
    overrides: tuple[str, ...] = ()


def demo(out: Path, settings: DemoSettings | None = None) -> Path:
    """Run the flow into `out`, a new folder or one of an earlier demo, and return its page, index.html.

    Raises: OutputError if `out` holds something else or cannot be written.
    """
    settings = settings or DemoSettings()
    _clear(out)
    began = time.monotonic()
    logger.info(
        "1/5 phantom radiographs: %d patients to learn from, %d unseen", settings.patients, settings.unseen_patients
    )
    with writing(out):
        write_phantom_dataset(out / "phantoms", settings.patients, seed=1, size_px=256, positive_share=0.6)
        write_phantom_dataset(out / "unseen", settings.unseen_patients, seed=2, size_px=256, positive_share=0.6)
    logger.info("2/5 prepare")
    data, unseen = (_prepare(out, name, settings.size_px) for name in ("phantoms", "unseen"))
    logger.info("3/5 train")
    run = train(load_recipe(find_recipe(settings.recipe), settings.overrides), data, out / "run")
    logger.info("4/5 evaluate on unseen patients")
    scores = evaluate(out / "run", unseen.folder)
    logger.info("5/5 predict from DICOM")
    model = out / "run"
    batch = BatchSettings((str(out / "unseen" / "dicom"),), out / "predictions", model_name(model))
    predict_batch(Predictor.load(model), batch)
    seconds = time.monotonic() - began
    write_atomically(out / "index.html", _page(out, run, scores, seconds).encode())
    dice, floor = scores.estimates["dice_on_positives"], scores.floor
    logger.info(
        "on unseen patients: Dice on positives %s; SIIM Dice %s, floor %.4f", dice, scores.estimates["siim_dice"], floor
    )
    logger.info("%.0f seconds", seconds)
    return out / "index.html"


def _clear(out: Path) -> None:
    """Make the folder, or empty it if an earlier demo made it: nobody else's files are ever removed."""
    with writing(out):
        if out.exists() and any(out.iterdir()) and not (out / MARKER).exists():
            raise OutputError(f"{out}: is not empty and no demo made it; choose another --out")
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        (out / MARKER).touch()


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


def _page(out: Path, run: Path, scores: Evaluation, seconds: float) -> str:
    dice = scores.estimates["dice_on_positives"]
    total = scores.positives + scores.negatives
    body = [
        "<h1>pleura finds pneumothorax on phantoms</h1>",
        f"<p class=soft>pleura {escape(__version__)}, the whole flow in {seconds:.0f} seconds: DICOM, prepare, train "
        "at two resolutions, evaluate, predict. Phantoms are drawings: this page shows that the machinery works, and "
        "says nothing about patients.</p>",
        f"<p class='verdict good'>Dice on positives {dice.value:.3f} (95 % {dice.low:.3f} to {dice.high:.3f}) on "
        f"{total} radiographs of patients it never saw, {scores.positives} of them positive.</p>",
        f"<p>{escape(scores.verdict)} <a href='run/report.html'>The report</a> · "
        "<a href='predictions/predictions.csv'>predictions.csv</a> · <a href='predictions/masks.csv'>masks.csv</a> · "
        f"<a href='run/{run.name}/metrics.csv'>metrics.csv of the training</a></p>",
        gallery("Unseen patients, from their DICOM files", _pictures(out)),
    ]
    return page("pleura demo", "\n".join(body))


def _pictures(out: Path) -> list[Picture]:
    """What predict wrote, beside the truth."""
    truth = rle.read_csv(out / "unseen" / "masks.csv")
    pictures = []
    for path in find_radiographs([out / "unseen" / "dicom"])[:SHOWN]:
        radiograph = read_radiograph(path)
        to_image = SquareGeometry(rle.SIIM_SIDE_PX, rle.SIIM_SIDE_PX, radiograph.image.shape[0])
        mask = to_image.mask_to_square(rle.decode_union(truth[radiograph.image_id]))
        with Image.open(out / "predictions" / "masks" / f"{radiograph.image_id}.png") as png:
            predicted = (np.asarray(png) > 0).astype(np.uint8)
        dice = float(siim_dice(mask, predicted)[0])
        says = f"{'pneumothorax' if mask.any() else 'no pneumothorax'}, Dice {dice:.2f}"
        drawn = overlay(radiograph.image, predicted, mask, longest_px=512)
        pictures.append(Picture(as_data_uri(drawn), says, f"patient {radiograph.patient_id}"))
    return pictures
