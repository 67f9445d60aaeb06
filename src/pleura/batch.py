"""`pleura predict`: many radiographs to masks, overlays and tables; streamed, resumable, and no bad file stops it.

Each finished radiograph is one line of OUT/journal.jsonl; the tables are written from it at the end, also after
Ctrl-C. The same command goes on where a killed one ended.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from pleura import __version__
from pleura.data import rle
from pleura.data.dataset import hash_files
from pleura.data.radiograph import SquareGeometry, find_radiographs, read_radiograph
from pleura.dicom.read import Radiograph, image_id_of
from pleura.errors import OutputError, PleuraError, writing
from pleura.files import write_atomically
from pleura.measure.overlay import overlay
from pleura.predict import Prediction, Predictor, find_model
from pleura.progress import track
from pleura.shipped import is_default

JOURNAL, TABLE, RUNS, PROBLEMS = "journal.jsonl", "predictions.csv", "masks.csv", "problems.csv"
WRITES = ("mask", "rle", "overlay")
COLUMNS = (
    "image_id",
    "is_positive",
    "score",
    "probability",
    "area_px",
    "area_mm2",
    "side",
    "rows",
    "columns",
    "source",
)


@dataclass(frozen=True)
class BatchSettings:
    """What `pleura predict` was asked for, besides the model."""

    inputs: tuple[str, ...]
    out: Path
    model_name: str
    """Tells one model's results from another's in OUT."""
    write: tuple[str, ...] = WRITES
    batch_size: int = 4


@dataclass(frozen=True)
class BatchResult:
    """How a batch went."""

    predicted: int
    positive: int
    earlier: int
    """Done by an earlier run of the same command."""
    problems: list[tuple[str, str]]
    """(file, reason)."""


def model_name(model: Path) -> str:
    """Names a model by the bytes of its files, and the one that comes with pleura in words.

    Raises: CheckpointError, InputError.
    """
    files = find_model(model).all
    name = hash_files(*files)
    return f"the default model of pleura {__version__} (sha256 {name[:12]})" if is_default(files[0]) else name


def predict_batch(predictor: Predictor, settings: BatchSettings) -> BatchResult:
    """Run a model over files, folders and patterns, and write the results to OUT.

    masks/ID.png and overlays/ID.png on the original grid, masks.csv (SIIM run-length), predictions.csv, problems.csv.
    Raises: InputError if an input names no radiograph, OutputError if OUT cannot be written or holds results of
    another model or other settings.
    """
    # OUT may lie inside an input folder: its own masks and overlays are no radiographs.
    inside = os.path.realpath(settings.out) + os.sep
    paths = [path for path in find_radiographs(settings.inputs) if not os.path.realpath(path).startswith(inside)]
    done = _begin(settings, predictor)
    problems: list[tuple[str, str]] = []
    earlier = len(done)
    with writing(settings.out), (settings.out / JOURNAL).open("a", encoding="utf-8") as journal:
        try:
            new = _unique(paths, {str(entry["image_id"]): str(entry["source"]) for entry in done}, problems)
            batches = _read_ahead(new, settings.batch_size, problems)
            for radiographs in track(batches, "predict", total=-(-len(new) // settings.batch_size)):
                sources = [str(source) for source, _ in radiographs]
                predictions = predictor.predict_radiographs([radiograph for _, radiograph in radiographs])
                for source, prediction in zip(sources, predictions, strict=True):
                    entry = _write_one(settings, source, prediction)
                    done.append(entry)
                    journal.write(json.dumps(entry) + "\n")
                    journal.flush()
        finally:
            _write_tables(settings, done, problems)
    positive = sum(bool(entry["is_positive"]) for entry in done)
    return BatchResult(len(done) - earlier, positive, earlier, problems)


def _begin(settings: BatchSettings, predictor: Predictor) -> list[dict[str, Any]]:
    """Open OUT; returns the entries of an earlier, interrupted run of the same command."""
    asked = {
        "model": settings.model_name,
        "tta": predictor.tta,
        "write": sorted(settings.write),
    }
    key = hashlib.sha256(json.dumps(asked).encode()).hexdigest()
    journal = settings.out / JOURNAL
    if not journal.exists():
        write_atomically(journal, (json.dumps({"key": key, **asked}) + "\n").encode())
        return []
    lines = journal.read_text(encoding="utf-8").split("\n")
    entries = []
    for line in lines:
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:
            continue  # the line that was being written when the run was killed
    if not entries or entries[0].get("key") != key:
        raise OutputError(
            f"{settings.out}: holds results of another model or other settings; remove it or choose another --out"
        )
    # Written anew, so that a half line of a killed run does not swallow the next one.
    write_atomically(journal, "".join(json.dumps(entry) + "\n" for entry in entries).encode())
    return entries[1:]


def _unique(paths: Sequence[Path], done: dict[str, str], problems: list[tuple[str, str]]) -> list[Path]:
    """The paths that are not done yet; a second file with the same id would overwrite the first one's results."""
    taken, new = dict(done), []
    for path in paths:
        image_id = image_id_of(path)
        first = taken.setdefault(image_id, str(path))
        if os.path.realpath(first) != os.path.realpath(path):
            problems.append((str(path), f"left out: {first} has the id {image_id} too"))
        elif image_id not in done:
            new.append(path)
    return new


def _read_ahead(
    paths: Sequence[Path], batch_size: int, problems: list[tuple[str, str]]
) -> Iterator[list[tuple[Path, Radiograph]]]:
    """Yield what can be read, in batches; one batch is read while the one before is predicted, and no more."""
    parts = [paths[start : start + batch_size] for start in range(0, len(paths), batch_size)]
    with ThreadPoolExecutor(1) as reader:
        ahead = None
        for part in [*parts, None]:
            ready = ahead
            ahead = None if part is None else reader.submit(_read, part)
            if ready is not None:
                radiographs, failed = ready.result()
                problems.extend(failed)
                if radiographs:
                    yield radiographs


def _read(paths: Sequence[Path]) -> tuple[list[tuple[Path, Radiograph]], list[tuple[str, str]]]:
    radiographs, failed = [], []
    for path in paths:
        try:
            radiographs.append((path, read_radiograph(path)))
        except PleuraError as error:
            failed.append((str(path), str(error)))
    return radiographs, failed


def _write_one(settings: BatchSettings, source: str, prediction: Prediction) -> dict[str, Any]:
    """Write the files of one prediction; returns its line of the journal."""
    name, mask = prediction.image_id, prediction.predicted_mask
    if "mask" in settings.write:
        _write_png(settings.out / "masks" / f"{name}.png", Image.fromarray(mask * 255))
    if "overlay" in settings.write:
        picture = overlay(prediction.radiograph.image, mask, caption=_caption(prediction))
        _write_png(settings.out / "overlays" / f"{name}.png", picture)
    rows, columns = mask.shape
    return {
        "image_id": name,
        "is_positive": int(prediction.is_positive),
        "score": round(prediction.score, 6),
        "probability": None if prediction.probability is None else round(prediction.probability, 6),
        "area_px": prediction.area_px,
        "area_mm2": None if prediction.area_mm2 is None else round(prediction.area_mm2, 2),
        "side": prediction.side,
        "rows": rows,
        "columns": columns,
        "source": source,
        "runs": rle.encode(on_siim_grid(prediction)) if "rle" in settings.write else "",
    }


def on_siim_grid(prediction: Prediction) -> Any:
    """The mask as SIIM's csv wants it: on 1024 x 1024 for a square image, on the image's own grid for any other."""
    rows, columns = prediction.predicted_mask.shape
    if rows != columns or rows == rle.SIIM_SIDE_PX:
        return prediction.predicted_mask
    return SquareGeometry(rows, columns, rle.SIIM_SIDE_PX).mask_to_square(prediction.predicted_mask)


def _caption(prediction: Prediction) -> str:
    if not prediction.is_positive:
        return f"no pneumothorax found, score {prediction.score:.2f}"
    side = {"R": "right", "L": "left", "B": "both sides"}[str(prediction.side)]
    area = f"{prediction.area_px} px" if prediction.area_mm2 is None else f"{prediction.area_mm2 / 100:.1f} sq cm"
    return f"pneumothorax, {side}, {area}, score {prediction.score:.2f}"


def _write_png(path: Path, picture: Image.Image) -> None:
    buffer = io.BytesIO()
    # An overlay takes a tenth of a second of a core so, and a quarter by Pillow's default, which saves one byte in 20.
    picture.save(buffer, "PNG", compress_level=3)
    write_atomically(path, buffer.getvalue())


def _write_tables(settings: BatchSettings, done: Sequence[dict[str, Any]], problems: list[tuple[str, str]]) -> None:
    ordered = sorted(done, key=lambda entry: str(entry["image_id"]))
    table = [COLUMNS, *([entry.get(column) for column in COLUMNS] for entry in ordered)]
    write_atomically(settings.out / TABLE, _csv(table))
    if "rle" in settings.write:
        runs = [("ImageId", "EncodedPixels"), *((entry["image_id"], entry["runs"]) for entry in ordered)]
        write_atomically(settings.out / RUNS, _csv(runs))
    write_atomically(settings.out / PROBLEMS, _csv([("file", "reason"), *problems]))


def _csv(rows: Sequence[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode("utf-8", "surrogateescape")  # a file name need not be UTF-8
