"""Reads radiographs in parallel, each into its row of images.npy, with a journal that a killed run goes on from."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pleura.data import rle
from pleura.data.dataset import IMAGES
from pleura.data.mask_grid import on_dataset
from pleura.data.masks import AnyMask
from pleura.data.radiograph import geometry_of, read_each
from pleura.dicom.read import Radiograph
from pleura.errors import InputError, OutputError, PleuraError, writing
from pleura.files import journal_line, read_journal, reserve, write_journal
from pleura.progress import track
from pleura.urls.copies import said
from pleura.urls.url import Place, Url

PARTIAL, MARKER, JOURNAL = ".partial", "fingerprint", "journal.jsonl"
FEW = 8
"""Fewer files than this are read at once, without starting workers."""
OBJECTS = 8
"""That a worker reads at a time, so that it waits for its store once for each so many; of files it reads one."""


@dataclass(frozen=True)
class Job:
    """One radiograph to read into one row."""

    row: int
    path: Place
    mask: AnyMask
    label_source: str
    """The csv or folder that the mask comes from."""
    image_id: str
    name: str
    """The path below the folder of images."""


def begin(partial: Path, fingerprint: str, count: int, size_px: int) -> dict[int, dict[str, Any]]:
    """Open or create the folder of unfinished work; returns the journal's entries of earlier runs, by row.

    Raises: OutputError if it cannot be written, or belongs to other inputs.
    """
    marker = partial / MARKER
    if marker.exists():
        if marker.read_bytes() != fingerprint.encode():
            raise OutputError(f"{partial}: an unfinished run with other inputs or settings; remove this folder first")
        return _read_journal(partial / JOURNAL, count)
    with writing(partial):
        partial.mkdir(parents=True, exist_ok=True)
        _reserve(partial / IMAGES, (count, size_px, size_px))
        marker.write_text(fingerprint, encoding="utf-8")
    return {}


def _reserve(path: Path, shape: tuple[int, ...]) -> np.memmap[Any, np.dtype[np.uint8]]:
    """Create an .npy file whose space on the disk is taken at once.

    A memory-mapped file with holes kills the process when the disk fills up; this fails with a message, early.
    """
    images = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    with path.open("r+b") as file:
        reserve(file, images.offset, images.nbytes)
    return images


WORDS, NUMBERS = ("pixels", "mask_rle"), ("area", "rows", "columns")


def _read_journal(path: Path, count: int) -> dict[int, dict[str, Any]]:
    """The entries of earlier runs, by row. Raises: OutputError if the journal is damaged."""
    way_out = f"remove the folder {path.parent}, and it is prepared from the beginning"
    done: dict[int, dict[str, Any]] = {}
    if not path.exists():
        return done
    for _, entry in read_journal(path, way_out):
        row = entry.get("row")
        read = all(type(entry.get(key)) is str for key in WORDS) and all(type(entry.get(key)) is int for key in NUMBERS)
        aspect, age = type(entry.get("pixel_aspect")), type(entry.get("age"))
        spacing, texts = entry.get("pixel_spacing_mm"), [entry.get(key) for key in ("patient", "view", "sex")]
        pair = spacing is None or (isinstance(spacing, list) and [type(each) for each in spacing] in NUMBER_PAIRS)
        others = aspect in (int, float) and age in (int, float, type(None))
        notes = entry.get("notes", [])
        others = others and isinstance(notes, list) and all(type(note) is str for note in notes)
        known = pair and others and all(text is None or type(text) is str for text in texts)
        fits = type(entry.get("problem")) is str or (read and known)
        if type(row) is not int or not 0 <= row < count or not fits:
            raise OutputError(f"{path}: holds what pleura did not write; {way_out}")
        done[row] = entry
    write_journal(path, done.values())
    return done


NUMBER_PAIRS = [[first, second] for first in (int, float) for second in (int, float)]


Entry: TypeAlias = dict[str, Any]
Reading: TypeAlias = Callable[[Sequence[Job], Path, int, str], Iterator[Entry]]
"""Reads jobs, given the file of images, its side in px and the grid of runs; writes each image's row, and then yields
its line of the journal, in any order."""


def read_all(
    jobs: Sequence[Job], partial: Path, done: dict[int, Entry], size_px: int, rle_grid: str, reading: Reading
) -> None:
    """Read every radiograph that is not in `done`, and note each there and in the journal.

    Raises: OutputError; what `reading` raises.
    """
    left = [job for job in jobs if job.row not in done]
    with writing(partial), (partial / JOURNAL).open("a", encoding="utf-8") as journal:
        for entry in track(reading(left, partial / IMAGES, size_px, rle_grid), "prepare", total=len(left)):
            if "problem" in entry:  # the next run has other copies
                entry["problem"] = said(entry["problem"])
            done[entry["row"]] = entry
            journal.write(journal_line(entry))
            journal.flush()


def read_here(jobs: Sequence[Job], images: Path, size_px: int, rle_grid: str, workers: int) -> Iterator[Entry]:
    """Read jobs by processes of this machine; see `Reading`. workers: processes; 0 is one for each core.

    Raises: InputError if a worker died.
    """
    images_path, workers = str(images), workers or os.cpu_count() or 1
    if workers == 1 or len(jobs) < FEW or _is_of_this_process(jobs[0]):
        yield from _worked(jobs, images_path, size_px, rle_grid)
        return
    # spawn: a fork would copy whatever threads the caller has, locks and all. Ctrl-C is for the parent alone.
    context = multiprocessing.get_context("spawn")
    ignored = (signal.SIGINT, signal.SIG_IGN)
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=signal.signal, initargs=ignored)
    try:
        for future in as_completed([pool.submit(_work, part, images_path, size_px, rle_grid) for part in _parts(jobs)]):
            yield from future.result()
    except BrokenProcessPool as error:
        raise InputError(
            "a worker died while reading; run the same command with --workers 1 to see at which file, or with fewer "
            "workers if memory ran out"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _is_of_this_process(job: Job) -> bool:
    return isinstance(job.path, Url) and job.path.scheme == "memory"


def _parts(jobs: Sequence[Job]) -> Iterator[Sequence[Job]]:
    """Yield what a worker reads at a time; all radiographs lie below one place."""
    size = OBJECTS if isinstance(jobs[0].path, Url) else 1
    return (jobs[start : start + size] for start in range(0, len(jobs), size))


def _work(jobs: Sequence[Job], images_path: str, size_px: int, rle_grid: str) -> list[Entry]:
    """Read radiographs and their masks, write the images' rows; returns their lines of the journal. Runs in a worker.

    Raises: StoreError.
    """
    return list(_worked(jobs, images_path, size_px, rle_grid))


def _worked(jobs: Sequence[Job], images_path: str, size_px: int, rle_grid: str) -> Iterator[Entry]:
    for job, (entry, square) in zip(jobs, read_jobs(jobs, size_px, rle_grid), strict=True):
        if square is not None:
            write_row(images_path, job.row, square)
        yield entry


def write_row(images_path: Path | str, row: int, square: NDArray[np.uint8]) -> None:
    """Write one image, uint8 (S, S), into the file of all. Raises: OSError."""
    images = np.load(images_path, mmap_mode="r+")
    images[row] = square
    images.flush()


def read_jobs(jobs: Sequence[Job], size_px: int, rle_grid: str) -> Iterator[tuple[Entry, NDArray[np.uint8] | None]]:
    """Read radiographs and their masks; yields of each the line of the journal, and the image, if it has one.

    An image is uint8 (S, S). Raises: StoreError, if a store of radiographs is away.
    """
    radiographs = read_each([job.path for job in jobs])
    for job in jobs:
        yield _read_job(job, next(radiographs), size_px, rle_grid)


def _read_job(
    job: Job, radiograph: Radiograph | PleuraError, size_px: int, rle_grid: str
) -> tuple[Entry, NDArray[np.uint8] | None]:
    try:
        if isinstance(radiograph, PleuraError):
            raise radiograph
        geometry = geometry_of(radiograph, size_px)
        square = geometry.image_to_square(radiograph.image)
        found = on_dataset(job.mask, geometry, rle_grid)
    except PleuraError as error:
        return {"row": job.row, "problem": str(error)}, None
    entry = {
        "row": job.row,
        "pixels": hashlib.sha256(square.tobytes()).hexdigest(),
        "patient": radiograph.patient_id,
        "mask_rle": rle.encode(found.mask),
        "area": (area := int(found.mask.sum())),
        "share": area / float(np.prod(geometry.inner_shape)),
        "soft": len(found.levels) > 2,
        "view": radiograph.view,
        "sex": radiograph.sex,
        "age": radiograph.age_years,
        "pixel_spacing_mm": radiograph.pixel_spacing_mm,
        "rows": geometry.rows,
        "columns": geometry.columns,
        "pixel_aspect": geometry.aspect,
        "notes": list(radiograph.notes),
    }
    return entry, square


def finished_images(partial: Path, out: Path, rows: Sequence[int], count: int) -> Path:
    """The images.npy to publish: all `count` rows as they were read, or a copy of only some of them.

    What was read stays as it is, so that a run killed here can do it again; `out` already holds the file if one was
    killed right after moving it. Raises: OSError.
    """
    source = partial / IMAGES
    if len(rows) == count:
        return source if source.exists() else out / IMAGES
    images, copy = np.load(source, mmap_mode="r"), partial / "kept.npy"
    kept = _reserve(copy, (len(rows), *images.shape[1:]))
    for row, position in enumerate(rows):
        kept[row] = images[position]
    kept.flush()
    return copy
