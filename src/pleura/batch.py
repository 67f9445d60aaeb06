"""`pleura predict`: many radiographs to masks, overlays and tables; streamed, resumable, and no bad file stops it.

Each finished radiograph is one line of OUT/journal.jsonl; the tables are written from it at the end, also after
Ctrl-C. The same command goes on where a killed one ended.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pleura import __version__
from pleura.data import rle
from pleura.data.dataset import hash_files
from pleura.data.finding import OWN_SOFTWARE, Found, find_radiographs
from pleura.data.ids import Identified, identify
from pleura.data.radiograph import SquareGeometry, read_radiograph
from pleura.dicom.read import Radiograph
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
    notes: list[str]
    """What else is to know: files that are no radiographs, and copies, in one line each."""


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
    # OUT may lie inside an input folder, or be one.
    found = find_radiographs(settings.inputs, [settings.out / name for name in (JOURNAL, TABLE, RUNS, PROBLEMS)])
    done = _begin(settings, predictor)
    problems: list[tuple[str, str]] = []
    notes: list[str] = []
    earlier = len(done)
    with writing(settings.out), (settings.out / JOURNAL).open("a", encoding="utf-8") as journal:
        try:
            new = _new(found, {str(entry["image_id"]): Path(str(entry["source"])) for entry in done}, problems, notes)
            batches = _read_ahead(new, settings.batch_size, problems)
            for radiographs in track(batches, "predict", total=-(-len(new) // settings.batch_size)):
                sources = [str(case.path) for case, _ in radiographs]
                predictions = predictor.predict_radiographs([radiograph for _, radiograph in radiographs])
                for source, prediction in zip(sources, predictions, strict=True):
                    entry = _write_one(settings, source, prediction)
                    done.append(entry)
                    journal.write(json.dumps(entry) + "\n")
                    journal.flush()
        finally:
            _write_tables(settings, done, problems)
    positive = sum(bool(entry["is_positive"]) for entry in done)
    return BatchResult(len(done) - earlier, positive, earlier, problems, notes)


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


def _new(found: Found, earlier: dict[str, Path], problems: list[tuple[str, str]], notes: list[str]) -> list[Identified]:
    """The radiographs that are not done yet, each with an id of its own; adds what is to know of the others."""
    who = identify(found.radiographs, earlier)
    problems += [(str(folder), reason) for folder, reason in found.unreadable]
    problems += [
        (str(path), f"goes by its path: {other} has its SOP Instance UID too, and is another image")
        for path, other in who.clashes
    ]
    if who.copies:
        path, other = who.copies[0]
        more = " ..." if len(who.copies) > 1 else ""
        notes.append(f"{len(who.copies)} left out as copies: {path} is {other} again{more}")
    if found.passed_over:
        notes.append(found.in_words())
    return [case for case in who.cases if case.image_id not in earlier]


def _read_ahead(
    paths: Sequence[Identified], batch_size: int, problems: list[tuple[str, str]]
) -> Iterator[list[tuple[Identified, Radiograph]]]:
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


def _read(cases: Sequence[Identified]) -> tuple[list[tuple[Identified, Radiograph]], list[tuple[str, str]]]:
    radiographs, failed = [], []
    for case in cases:
        try:
            radiographs.append((case, replace(read_radiograph(case.path), image_id=case.image_id)))
        except PleuraError as error:
            failed.append((str(case.path), str(error)))
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
    written_by = PngInfo()
    written_by.add_text("Software", OWN_SOFTWARE)  # so that it is never taken for a radiograph
    picture.save(buffer, "PNG", compress_level=3, pnginfo=written_by)
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
