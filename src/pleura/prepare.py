"""radiographs + masks -> dataset folder: in parallel, resumable, atomic, and nothing bad stops the batch.

Work goes on in OUT/.partial; the finished files move to OUT at the end, card.json last, so that a folder with a
card is whole. A run that was killed is taken up again by the same command.
"""

from __future__ import annotations

import csv
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pleura import __version__
from pleura.data import rle
from pleura.data.dataset import CARD, CASES, FORMAT, IMAGES, Case, Dataset, hash_files, write_cases
from pleura.data.folds import Leak, assign_folds, leak_report, patients_or_own, read_folds, read_patients
from pleura.data.labels import LabelSource, read_labels
from pleura.data.radiograph import SquareGeometry, find_radiographs, read_radiograph
from pleura.dicom.read import image_id_of
from pleura.errors import InputError, OutputError, PleuraError, writing
from pleura.progress import track

PARTIAL, PROBLEMS = ".partial", "problems.csv"


@dataclass(frozen=True)
class Problem:
    """Something about one file that a person should know."""

    kind: Literal["quarantined", "unlabelled", "same id", "equal pixels", "no image"]
    image_id: str
    file: str
    reason: str


@dataclass(frozen=True)
class PrepareSettings:
    """What `prepare` was asked for."""

    images: Path
    masks: tuple[Path, ...]
    out: Path
    size_px: int = 1024
    patients: Path | None = None
    folds: int | Path = 5
    seed: int = 42
    rle_grid: Literal["siim", "image"] = "siim"
    workers: int = 0
    """0: one for each processor."""


@dataclass
class Prepared:
    """What `prepare` did."""

    dataset: Dataset
    problems: list[Problem]
    leaks: list[Leak]

    def count(self, kind: str) -> int:
        """How many problems of one kind there are."""
        return sum(problem.kind == kind for problem in self.problems)


@dataclass(frozen=True)
class _Job:
    """One radiograph for a worker."""

    row: int
    path: str
    label: LabelSource


@dataclass
class _Plan:
    jobs: list[_Job] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def prepare(settings: PrepareSettings) -> Prepared:
    """Read all radiographs and masks and write a dataset folder.

    Unreadable files are quarantined and reported in OUT/problems.csv, with unlabelled ones, equal ids and equal
    pixels; the rest is done. The same command goes on after an interruption, and does nothing when all is done.

    Raises: InputError if nothing usable is found or a csv is wrong, OutputError if OUT cannot be written or holds
    something else.
    """
    plan = _plan(settings)
    fingerprint = _fingerprint(settings, plan)
    if (settings.out / CARD).exists():
        dataset = Dataset(settings.out)
        if dataset.card.get("fingerprint") != fingerprint:
            raise OutputError(f"{settings.out}: holds a dataset of other inputs; remove it or choose another --out")
        return Prepared(dataset, _read_problems(settings.out / PROBLEMS), _leaks(dataset.cases))
    partial = settings.out / PARTIAL
    done = _begin(partial, fingerprint, len(plan.jobs), settings.size_px)
    _read_all(settings, plan, partial, done)
    return _finish(settings, plan, partial, done, fingerprint)


def _plan(settings: PrepareSettings) -> _Plan:
    """Pair every file with its label, and report what has no partner."""
    labels = read_labels(settings.masks)
    plan = _Plan()
    by_id: dict[str, str] = {}
    for path in find_radiographs([settings.images]):
        image_id, name = image_id_of(path), _relative(path, settings.images)
        if image_id in by_id:
            plan.problems.append(Problem("same id", image_id, name, f"left out: {by_id[image_id]} has this id too"))
            continue
        by_id[image_id] = name
        if image_id in labels:
            plan.jobs.append(_Job(len(plan.jobs), str(path), labels[image_id]))
        else:
            plan.problems.append(Problem("unlabelled", image_id, name, "left out: no mask or csv row has this id"))
    for image_id in labels.keys() - by_id.keys():
        plan.problems.append(Problem("no image", image_id, "", "a csv row or mask without an image"))
    if not plan.jobs:
        raise InputError(
            f"{settings.images}: none of the {len(by_id)} radiographs has a mask or csv row; "
            "ids are file names without suffix"
        )
    return plan


def _relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name


def _fingerprint(settings: PrepareSettings, plan: _Plan) -> str:
    """Tells one set of inputs from another: names, sizes and times of the files, and the settings."""
    digest = hashlib.sha256(
        repr((FORMAT, settings.size_px, str(settings.folds), settings.seed, settings.rle_grid)).encode()
    )
    tables = [path for path in (*settings.masks, settings.patients, settings.folds) if isinstance(path, Path)]
    for path in [*(Path(job.path) for job in plan.jobs), *tables]:
        status = path.stat()
        digest.update(repr((path.name, status.st_size, status.st_mtime_ns)).encode())
    return digest.hexdigest()


def _begin(partial: Path, fingerprint: str, count: int, size_px: int) -> dict[int, dict[str, Any]]:
    """Open or create the folder of unfinished work; returns what earlier runs finished, by row."""
    marker = partial / "fingerprint"
    if marker.exists():
        if marker.read_text(encoding="utf-8") != fingerprint:
            raise OutputError(f"{partial}: an unfinished run with other inputs or settings; remove this folder first")
        return _read_journal(partial / "journal.jsonl")
    with writing(partial):
        partial.mkdir(parents=True, exist_ok=True)
        header = np.lib.format.open_memmap(partial / IMAGES, mode="w+", dtype=np.uint8, shape=(count, size_px, size_px))
        offset, total = header.offset, header.offset + header.nbytes
        del header
        # A memory-mapped file with holes kills the process when the disk fills up; reserved space cannot.
        with (partial / IMAGES).open("r+b") as file:
            os.posix_fallocate(file.fileno(), offset, total - offset)
        marker.write_text(fingerprint, encoding="utf-8")
    return {}


def _read_journal(path: Path) -> dict[int, dict[str, Any]]:
    done = {}
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue  # the line that was being written when the run was killed
            done[int(entry["row"])] = entry
    return done


def _read_all(settings: PrepareSettings, plan: _Plan, partial: Path, done: dict[int, dict[str, Any]]) -> None:
    """Read every radiograph that no earlier run has read, and note each in the journal."""
    jobs = [job for job in plan.jobs if job.row not in done]
    with writing(partial), (partial / "journal.jsonl").open("a", encoding="utf-8") as journal:
        for entry in track(_entries(settings, jobs, partial), "prepare", total=len(jobs)):
            done[entry["row"]] = entry
            journal.write(json.dumps(entry) + "\n")
            journal.flush()


def _entries(settings: PrepareSettings, jobs: Sequence[_Job], partial: Path) -> Iterator[dict[str, Any]]:
    workers = settings.workers or os.cpu_count() or 1
    static = (str(partial / IMAGES), settings.size_px, settings.rle_grid)
    if workers == 1 or len(jobs) < 8:
        for job in jobs:
            yield _work(job, *static)
        return
    # spawn: a fork would copy whatever threads the caller has, locks and all.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(
        workers, mp_context=context, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN)
    )
    try:
        for future in as_completed([pool.submit(_work, job, *static) for job in jobs]):
            yield future.result()
    except BrokenProcessPool as error:
        raise InputError(
            "a worker died while reading; run the same command with --workers 1 to see at which file, or with fewer "
            "workers if memory ran out"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _work(job: _Job, images_path: str, size_px: int, rle_grid: str) -> dict[str, Any]:
    """Read one radiograph and its mask, write the image's row; returns its line of the journal. Runs in a worker."""
    try:
        radiograph = read_radiograph(job.path)
        rows, columns = radiograph.image.shape
        square = SquareGeometry(rows, columns, size_px).image_to_square(radiograph.image)
        mask = job.label.mask((rows, columns), size_px, rle_grid)
    except PleuraError as error:
        return {"row": job.row, "problem": str(error)}
    images = np.load(images_path, mmap_mode="r+")
    images[job.row] = square
    images.flush()
    return {
        "row": job.row,
        "pixels": hashlib.sha256(square.tobytes()).hexdigest(),
        "patient": radiograph.patient_id,
        "mask_rle": rle.encode(mask),
        "area": int(mask.sum()),
        "view": radiograph.view,
        "sex": radiograph.sex,
        "age": radiograph.age_years,
        "pixel_spacing_mm": radiograph.pixel_spacing_mm,
        "rows": rows,
        "columns": columns,
    }


def _finish(
    settings: PrepareSettings, plan: _Plan, partial: Path, done: dict[int, dict[str, Any]], fingerprint: str
) -> Prepared:
    """Drop the rows of quarantined files, assign folds, and move everything into place."""
    problems = list(plan.problems)
    kept: list[_Job] = []
    for job in plan.jobs:
        entry = done[job.row]
        if "problem" in entry:
            name = _relative(Path(job.path), settings.images)
            problems.append(Problem("quarantined", image_id_of(job.path), name, entry["problem"]))
        else:
            kept.append(job)
    if not kept:
        raise InputError(f"{settings.images}: no radiograph could be read; the first: {problems[-1].reason}")
    cases = _cases(settings, kept, done)
    problems += _equal_pixels(cases, [done[job.row]["pixels"] for job in kept])
    with writing(settings.out):
        _compact(partial / IMAGES, [job.row for job in kept], len(plan.jobs))
        write_cases(partial / CASES, cases)
        _write_problems(partial / PROBLEMS, problems)
        card = _card(settings, cases, problems, fingerprint)
        card["sha256"] = hash_files(partial / IMAGES, partial / CASES)
        (partial / CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
        for name in (IMAGES, CASES, PROBLEMS, CARD):
            os.replace(partial / name, settings.out / name)
        shutil.rmtree(partial)
    return Prepared(Dataset(settings.out), problems, _leaks(cases))


def _cases(settings: PrepareSettings, kept: Sequence[_Job], done: dict[int, dict[str, Any]]) -> list[Case]:
    entries = [done[job.row] for job in kept]
    ids = [image_id_of(job.path) for job in kept]
    given = read_patients(settings.patients) if settings.patients else {}
    patients = [given.get(image_id) or entry["patient"] for image_id, entry in zip(ids, entries, strict=True)]
    grouped = patients_or_own(ids, {i: patient for i, patient in zip(ids, patients, strict=True) if patient})
    if isinstance(settings.folds, Path):
        folds = read_folds(settings.folds)
        missing = [image_id for image_id in ids if image_id not in folds]
        if missing:
            raise InputError(f"{settings.folds}: {len(missing)} of {len(ids)} cases have no fold, {missing[0]} first")
        fold_of = [folds[image_id] for image_id in ids]
    else:
        fold_of = assign_folds(grouped, [entry["area"] for entry in entries], settings.folds, settings.seed).tolist()
    return [
        Case(
            image_id=image_id,
            fold=fold,
            patient=patient,
            has_pneumothorax=entry["area"] > 0,
            mask_rle=entry["mask_rle"],
            view=entry["view"],
            sex=entry["sex"],
            age=entry["age"],
            pixel_spacing_mm=tuple(entry["pixel_spacing_mm"]) if entry["pixel_spacing_mm"] else None,
            source=_relative(Path(job.path), settings.images),
            rows=entry["rows"],
            columns=entry["columns"],
            label_source=job.label.name,
        )
        for image_id, fold, patient, entry, job in zip(ids, fold_of, patients, entries, kept, strict=True)
    ]


def _leaks(cases: Sequence[Case]) -> list[Leak]:
    patients = [case.patient or case.image_id for case in cases]
    return leak_report([case.fold for case in cases], patients, [case.has_pneumothorax for case in cases])


def _equal_pixels(cases: Sequence[Case], hashes: Sequence[str]) -> list[Problem]:
    first: dict[str, Case] = {}
    problems = []
    for case, pixels in zip(cases, hashes, strict=True):
        other = first.setdefault(pixels, case)
        if other is not case:
            where = "the same fold" if other.fold == case.fold else f"fold {other.fold}, this one in fold {case.fold}"
            reason = f"kept: has the pixels of {other.source}, which is in {where}"
            problems.append(Problem("equal pixels", case.image_id, case.source, reason))
    return problems


def _compact(path: Path, rows: Sequence[int], count: int) -> None:
    """Keep only some rows of images.npy, without holding more than one in memory."""
    if len(rows) == count:
        return
    images = np.load(path, mmap_mode="r")
    smaller = path.with_suffix(".kept.npy")
    kept = np.lib.format.open_memmap(smaller, mode="w+", dtype=np.uint8, shape=(len(rows), *images.shape[1:]))
    os.posix_fallocate(os.open(smaller, os.O_RDWR), kept.offset, kept.nbytes)
    for row, source in enumerate(rows):
        kept[row] = images[source]
    kept.flush()
    os.replace(smaller, path)


def _card(
    settings: PrepareSettings, cases: Sequence[Case], problems: Sequence[Problem], fingerprint: str
) -> dict[str, Any]:
    asked = {key: str(value) if isinstance(value, Path) else value for key, value in asdict(settings).items()}
    asked["masks"] = [str(path) for path in settings.masks]
    return {
        "format": FORMAT,
        "cases": len(cases),
        "positive": sum(case.has_pneumothorax for case in cases),
        "patients": len({case.patient or case.image_id for case in cases}),
        "without_patient": sum(case.patient is None for case in cases),
        "size_px": settings.size_px,
        "folds": dict(sorted(Counter(case.fold for case in cases).items())),
        "problems": dict(sorted(Counter(problem.kind for problem in problems).items())),
        "settings": asked,
        "pleura": __version__,
        "made": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "fingerprint": fingerprint,
    }


def _write_problems(path: Path, problems: Sequence[Problem]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("kind", "image_id", "file", "reason"))
        writer.writerows((problem.kind, problem.image_id, problem.file, problem.reason) for problem in problems)


def _read_problems(path: Path) -> list[Problem]:
    with path.open(newline="", encoding="utf-8") as file:
        return [Problem(**row) for row in csv.DictReader(file)]  # type: ignore[arg-type]  # the kind was written by us
