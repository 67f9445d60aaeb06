"""Radiographs and masks become a dataset folder: in parallel, resumable, atomic; a bad file is left out.

Work goes on in OUT/.partial; the finished files move to OUT at the end, card.json last, so that a folder with a
card is whole. A run that was killed is taken up again by the same command.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial as partial_of
from pathlib import Path
from typing import Any, Literal

from pleura import __version__
from pleura.data.cases import ALWAYS_TRAIN, NO_FOLD
from pleura.data.dataset import CARD, CASES, FORMAT, IMAGES, Case, Dataset, write_cases
from pleura.data.finding import Found, find_radiographs, walk
from pleura.data.folds import Leak, assign_folds, leaks_of, patients_or_own, read_folds, read_patients
from pleura.data.ids import Names, identify
from pleura.data.ingest import Job, Reading, begin, finished_images, read_all, read_here
from pleura.data.mask_checks import doubtful, masks_by_id
from pleura.data.masks import open_masks, refuse_unused_options
from pleura.data.problems import Problem, read_problems, write_problems
from pleura.errors import InputError, OutputError, writing
from pleura.files import hash_files, held, name_of, write_json

PARTIAL, PROBLEMS = ".partial", "problems.csv"


@dataclass(frozen=True)
class PrepareSettings:
    """The settings of `prepare`."""

    images: Path
    masks: tuple[Path, ...]
    out: Path
    size_px: int = 1024
    patients: Path | None = None
    folds: int | Path = 5
    seed: int = 42
    rle_grid: Literal["siim", "image"] | None = None
    """Which pixels the runs of a csv count; None: siim."""
    segments: tuple[str, ...] = ()
    """Of DICOM-SEG: number or label of the segments that outline a pneumothorax, where files have several."""
    workers: int = 0
    """0: one for each processor."""
    always_train: tuple[str, ...] = ()
    """Label sources whose cases are in training in every fold and in validation in none."""


@dataclass
class Prepared:
    """The result of `prepare`."""

    dataset: Dataset
    problems: list[Problem]
    leaks: list[Leak]
    passed_over: str = ""
    """In one line, what lies in the folder of images and is no radiograph."""

    def count(self, kind: str) -> int:
        """How many problems of one kind there are."""
        return sum(problem.kind == kind for problem in self.problems)


@dataclass
class _Plan:
    found: Found
    jobs: list[Job] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    names: Names = field(default_factory=lambda: Names([]))
    """Of the jobs."""


def prepare(settings: PrepareSettings, reading: Reading | None = None) -> Prepared:
    """Read all radiographs and masks and write a dataset folder.

    Unreadable files are quarantined and reported in OUT/problems.csv, with unlabelled ones, equal ids and equal
    pixels; the rest is done. The same command goes on after an interruption, and does nothing when all is done.

    reading: what reads the radiographs; by default processes of this machine.
    Raises: InputError if nothing usable is found or a csv is wrong, OutputError if OUT cannot be written or holds
    something else.
    """
    plan = _plan(settings)
    tables = _read_tables(settings, plan)
    pixels, fingerprint = _fingerprints(settings, plan)
    if (settings.out / CARD).exists():
        dataset = Dataset(settings.out)
        if dataset.card.get("fingerprint") != fingerprint:
            raise OutputError(f"{settings.out}: holds a dataset of other inputs; remove it or choose another --out")
        problems = read_problems(settings.out / PROBLEMS)
        return Prepared(dataset, problems, leaks_of(dataset.cases), plan.found.in_words())
    partial = settings.out / PARTIAL
    with held(settings.out, "prepares a dataset in it"):
        done = begin(partial, pixels, len(plan.jobs), settings.size_px)
        here = partial_of(read_here, workers=settings.workers)
        read_all(plan.jobs, partial, done, settings.size_px, settings.rle_grid or "siim", reading or here)
        return _finish(settings, plan, tables, done, fingerprint)


def _plan(settings: PrepareSettings) -> _Plan:
    """Pair every file with its mask, and report what has no partner."""
    refuse_unused_options(
        settings.masks, "--rle-grid" if settings.rle_grid else None, "--segment" if settings.segments else None
    )
    sources = [open_masks(path, segments=settings.segments) for path in settings.masks]
    plan = _Plan(find_radiographs([settings.images], _mask_files(settings.masks)))
    who = identify(plan.found.radiographs)
    ids = {case.path: case.image_id for case in who.cases}
    masks = masks_by_id(sources, {case.image_id: case.relative for case in who.cases}, plan.problems)
    for folder, reason in plan.found.unreadable:
        plan.problems.append(Problem("quarantined", "", str(folder), reason))
    for path, other in who.copies:
        plan.problems.append(Problem("copy", ids[other], str(path), f"left out: a copy of {other}"))
    for path, other in who.clashes:
        reason = f"goes by its path: {other} has its SOP Instance UID too, and is another image"
        plan.problems.append(Problem("same id", ids[path], str(path), reason))
    for case in who.cases:
        if case.copy_of:
            continue
        if case.image_id in masks:
            plan.jobs.append(Job(len(plan.jobs), str(case.path), *masks[case.image_id], case.image_id, case.relative))
        else:
            reason = "left out: no mask or csv row has this id"
            plan.problems.append(Problem("unlabelled", case.image_id, case.relative, reason))
    if not plan.jobs:
        theirs = next((name for source in sources for name in source.masks), "nothing")
        raise InputError(
            f"{settings.images}: none of the {len(ids)} radiographs has a mask or csv row; rows name them by SOP "
            f"Instance UID, path or file name, such as {next(iter(ids.values()), '')!r}; here they name {theirs!r}"
        )
    plan.names = Names((job.image_id, job.name) for job in plan.jobs)
    return plan


def _mask_files(masks: Sequence[Path]) -> list[Path]:
    """The files of masks, which are no radiographs where they lie among them."""
    return [file for source in masks if source.is_dir() for file in walk(source)]


@dataclass(frozen=True)
class _Tables:
    """The csv files of patients and folds, read before the radiographs, so that a mistake in them costs nothing."""

    patients: dict[str, str]
    folds: dict[str, int] | None


def _read_tables(settings: PrepareSettings, plan: _Plan) -> _Tables:
    patients = plan.names.resolve(read_patients(settings.patients), settings.patients) if settings.patients else {}
    sources = {job.label_source for job in plan.jobs}
    if unknown := set(settings.always_train) - sources:
        raise InputError(f"--always-train: no mask comes from {min(unknown)}; there is {', '.join(sorted(sources))}")
    if not isinstance(settings.folds, Path):
        if not 2 <= settings.folds <= len(plan.jobs):
            raise InputError(f"{len(plan.jobs)} cases cannot make {settings.folds} folds; give --folds 2 or more")
        return _Tables(patients, None)
    folds = plan.names.resolve(read_folds(settings.folds), settings.folds)
    jobs = [job for job in plan.jobs if job.label_source not in settings.always_train]
    missing = [job.image_id for job in jobs if job.image_id not in folds]
    if missing:
        raise InputError(f"{settings.folds}: {len(missing)} of {len(jobs)} cases have no fold, {missing[0]} first")
    return _Tables(patients, folds)


def _fingerprints(settings: PrepareSettings, plan: _Plan) -> tuple[str, str]:
    """Hash the names, sizes and times of the inputs: of those that are read into pixels, and of all.

    An unfinished run can be taken up with other folds: they are made at the end.
    """
    digest = hashlib.sha256(repr((FORMAT, settings.size_px, settings.rle_grid or "siim", settings.segments)).encode())
    for job in plan.jobs:
        digest.update(_stamp(Path(job.path)) + b"".join(map(_stamp, job.mask.files)))
        if job.image_id != name_of(Path(job.path)):
            digest.update(job.image_id.encode("utf-8", "surrogateescape"))
    for path in settings.masks:
        digest.update(_stamp(path))
    pixels = digest.hexdigest()
    digest.update(repr((str(settings.folds), settings.seed, *settings.always_train)).encode())
    for table in (settings.patients, settings.folds):
        if isinstance(table, Path):
            digest.update(_stamp(table))
    return pixels, digest.hexdigest()


def _stamp(path: Path) -> bytes:
    try:
        status = path.stat()
    except OSError:
        return repr((path.name, "cannot be reached")).encode()  # reading it refuses it with the reason
    # A folder's time changes with what is beside the masks; they have stamps of their own.
    return repr((path.name, None if path.is_dir() else (status.st_size, status.st_mtime_ns))).encode()


def _finish(
    settings: PrepareSettings, plan: _Plan, tables: _Tables, done: dict[int, dict[str, Any]], fingerprint: str
) -> Prepared:
    """Drop the rows of quarantined files, assign folds, and move everything into place."""
    partial = settings.out / PARTIAL
    problems = list(plan.problems)
    kept: list[Job] = []
    for job in plan.jobs:
        entry = done[job.row]
        if "problem" in entry:
            problems.append(Problem("quarantined", job.image_id, job.name, entry["problem"]))
        else:
            kept.append(job)
    if not kept:
        raise InputError(f"{settings.images}: no radiograph could be read; the first: {problems[-1].reason}")
    try:
        cases = _cases(settings, tables, kept, done)
    except InputError as error:
        quarantined = [problem.reason for problem in problems if problem.kind == "quarantined"]
        also = f"; {len(quarantined)} files were quarantined: {quarantined[0]}" if quarantined else ""
        raise InputError(f"{error}{also}") from error
    entries = [done[job.row] for job in kept]
    problems += _equal_pixels(cases, [entry["pixels"] for entry in entries]) + doubtful(cases, entries)
    with writing(settings.out):
        images = finished_images(partial, settings.out, [job.row for job in kept], len(plan.jobs))
        write_cases(partial / CASES, cases)
        write_problems(partial / PROBLEMS, problems)
        card = _card(settings, cases, problems, fingerprint)
        card["sha256"] = hash_files(images, partial / CASES)
        write_json(partial / CARD, card, indent=2, end="\n")
        os.replace(images, settings.out / IMAGES)
        for name in (CASES, PROBLEMS, CARD):
            os.replace(partial / name, settings.out / name)
        shutil.rmtree(partial)
    return Prepared(Dataset(settings.out), problems, leaks_of(cases), plan.found.in_words())


def _cases(
    settings: PrepareSettings, tables: _Tables, kept: Sequence[Job], done: dict[int, dict[str, Any]]
) -> list[Case]:
    entries = [done[job.row] for job in kept]
    ids = [job.image_id for job in kept]
    patients = [tables.patients.get(image_id) or entry["patient"] for image_id, entry in zip(ids, entries, strict=True)]
    fold_of = _folds(settings, tables, kept, patients, [entry["area"] for entry in entries])
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
            source=job.name,
            rows=entry["rows"],
            columns=entry["columns"],
            pixel_aspect=entry["pixel_aspect"],
            label_source=job.label_source,
            role=ALWAYS_TRAIN if fold == NO_FOLD else None,
        )
        for image_id, fold, patient, entry, job in zip(ids, fold_of, patients, entries, kept, strict=True)
    ]


def _folds(
    settings: PrepareSettings, tables: _Tables, kept: Sequence[Job], patients: Sequence[str | None], areas: list[int]
) -> list[int]:
    """The fold of each case, `NO_FOLD` of those that are always trained on. Raises: InputError if none is left."""
    ids = [job.image_id for job in kept]
    always = [job.label_source in settings.always_train for job in kept]
    if tables.folds is not None:
        folds = [NO_FOLD if each else tables.folds[image_id] for image_id, each in zip(ids, always, strict=True)]
    else:
        rows = [row for row, each in enumerate(always) if not each]
        known = {image_id: patient for image_id, patient in zip(ids, patients, strict=True) if patient}
        who = patients_or_own([ids[row] for row in rows], known)
        made = assign_folds(who, [areas[row] for row in rows], int(str(settings.folds)), settings.seed) if rows else ()
        folds = [NO_FOLD] * len(kept)
        for row, fold in zip(rows, made, strict=True):
            folds[row] = int(fold)
    if all(fold == NO_FOLD for fold in folds):
        raise InputError("every case is always trained on, and none is left to score by; leave some out of that")
    return folds


def _part(case: Case) -> str:
    return f"fold {case.fold}" if case.role is None else "what is always trained on"


def _equal_pixels(cases: Sequence[Case], hashes: Sequence[str]) -> list[Problem]:
    first: dict[str, Case] = {}
    problems = []
    for case, pixels in zip(cases, hashes, strict=True):
        other = first.setdefault(pixels, case)
        if other is not case:
            where = "the same fold" if other.fold == case.fold else f"{_part(other)}, this one in {_part(case)}"
            reason = f"kept: has the pixels of {other.source}, which is in {where}"
            problems.append(Problem("equal pixels", case.image_id, case.source, reason))
    return problems


def _card(
    settings: PrepareSettings, cases: Sequence[Case], problems: Sequence[Problem], fingerprint: str
) -> dict[str, Any]:
    plain = {key: str(value) if isinstance(value, Path) else value for key, value in asdict(settings).items()}
    plain["masks"] = [str(path) for path in settings.masks]
    return {
        "format": FORMAT,
        "cases": len(cases),
        "positive": sum(case.has_pneumothorax for case in cases),
        "patients": len({case.patient or case.image_id for case in cases}),
        "without_patient": sum(case.patient is None for case in cases),
        "size_px": settings.size_px,
        "folds": dict(sorted(Counter(case.fold for case in cases if case.role is None).items())),
        "always_train": sum(case.role is not None for case in cases),
        "problems": dict(sorted(Counter(problem.kind for problem in problems).items())),
        "settings": plain,
        "pleura": __version__,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "fingerprint": fingerprint,
    }
