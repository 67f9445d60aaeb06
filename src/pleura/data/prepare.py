"""Radiographs and masks become a dataset folder: in parallel, resumable, atomic; a bad file is left out.

Work goes on in OUT/.partial; the finished files move to OUT at the end, card.json last, so that a folder with a
card is whole. A run that was killed is taken up again by the same command. Where OUT is a URL, all of this is done in a
folder of this machine, whose files then go up in the same order.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from functools import partial as partial_of
from pathlib import Path
from typing import Any

from pleura import __version__
from pleura.data.cases import ALWAYS_TRAIN, NO_FOLD
from pleura.data.dataset import CARD, CASES, FORMAT, IMAGES, Case, Dataset, write_cases
from pleura.data.dataset_at_url import put_up, refuse_small_disk, tables_at
from pleura.data.folds import Leak, assign_folds, leaks_of, patients_or_own
from pleura.data.ingest import PARTIAL, Job, Reading, begin, finished_images, read_all, read_here
from pleura.data.mask_checks import doubtful
from pleura.data.plan import Plan, PrepareSettings, plan_of
from pleura.data.problems import PROBLEMS, Problem, read_problems, write_problems
from pleura.errors import InputError, OutputError, writing
from pleura.files import hash_files, held, write_json
from pleura.urls.copies import said
from pleura.urls.scratch import clear, forget, leased
from pleura.urls.url import Place, Url

__all__ = ["PrepareSettings", "Prepared", "prepare"]
DATA = "data"
"""The folder of the dataset until it goes up."""
_KIND, _PREPARES = "dataset", "prepares a dataset in it"


@dataclass
class Prepared:
    """The result of `prepare`."""

    card: dict[str, Any]
    problems: list[Problem]
    leaks: list[Leak]
    passed_over: str = ""
    """In one line, what lies in the folder of images and is no radiograph."""
    opened: Dataset | None = None

    @property
    def dataset(self) -> Dataset:
        """The dataset. Raises: InputError where OUT is a URL."""
        if self.opened is None:
            raise InputError("the images of a dataset at a URL are not on this machine; take a copy of it")
        return self.opened

    def count(self, kind: str) -> int:
        """How many problems of one kind there are."""
        return sum(problem.kind == kind for problem in self.problems)


def prepare(settings: PrepareSettings, reading: Reading | None = None) -> Prepared:
    """Read all radiographs and masks and write a dataset folder.

    Unreadable files are quarantined and reported in OUT/problems.csv, with unlabelled ones, equal ids and equal
    pixels; the rest is done. The same command goes on after an interruption, and does nothing when all is done.

    reading: what reads the radiographs; by default processes of this machine.
    Raises: InputError if nothing usable is found or a csv is wrong, OutputError if OUT cannot be written or holds
    something else, StoreError if a store of inputs or of OUT cannot be reached or denies access.
    """
    plan, out = plan_of(settings), settings.out
    reading = reading or partial_of(read_here, workers=settings.workers)
    if isinstance(out, Path):
        return _made(settings, plan, out, reading)
    if (there := _there(out, plan)) is not None:
        forget(out, _KIND)
        return there
    with leased(out, _KIND, _PREPARES) as (folder, lease):
        if (there := _there(out, plan)) is None:  # another process may have just finished it
            refuse_small_disk(out, folder / DATA, len(plan.jobs) * settings.size_px**2)
            there = replace(_made(settings, plan, folder / DATA, reading), opened=None)
            put_up(folder / DATA, out, lease)
        clear(folder)
    return there


def _there(out: Url, plan: Plan) -> Prepared | None:
    """Return the dataset at a URL, where there is one. Raises: OutputError if it is of other inputs."""
    if (tables := tables_at(out)) is None:
        return None
    card, cases, problems = tables
    _refuse_other(out, card, plan)
    return Prepared(card, problems, leaks_of(cases), plan.found.in_words())


def _refuse_other(out: Place, card: Mapping[str, Any], plan: Plan) -> None:
    if card.get("fingerprint") != plan.fingerprint:
        raise OutputError(f"{out}: holds a dataset of other inputs; remove it or choose another --out")


def _made(settings: PrepareSettings, plan: Plan, folder: Path, reading: Reading) -> Prepared:
    """Make the dataset in a folder, or find it there."""
    if (folder / CARD).exists():
        dataset = Dataset(folder)
        _refuse_other(folder, dataset.card, plan)
        problems = read_problems(folder / PROBLEMS)
        return Prepared(dataset.card, problems, leaks_of(dataset.cases), plan.found.in_words(), dataset)
    partial = folder / PARTIAL
    with held(folder, _PREPARES):
        done = begin(partial, plan.pixels, len(plan.jobs), settings.size_px)
        read_all(plan.jobs, partial, done, settings.size_px, settings.rle_grid or "siim", reading)
        return _finish(settings, plan, folder, done)


def _finish(settings: PrepareSettings, plan: Plan, folder: Path, done: dict[int, dict[str, Any]]) -> Prepared:
    """Drop the rows of quarantined files, assign folds, and move everything into place."""
    partial = folder / PARTIAL
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
        cases = _cases(settings, plan, kept, done)
    except InputError as error:
        quarantined = [problem.reason for problem in problems if problem.kind == "quarantined"]
        also = f"; {len(quarantined)} files were quarantined: {quarantined[0]}" if quarantined else ""
        raise InputError(f"{error}{also}") from error
    entries = [done[job.row] for job in kept]
    problems += _equal_pixels(cases, [entry["pixels"] for entry in entries]) + doubtful(cases, entries)
    with writing(folder):
        images = finished_images(partial, folder, [job.row for job in kept], len(plan.jobs))
        write_cases(partial / CASES, cases)
        write_problems(partial / PROBLEMS, problems)
        card = _card(settings, cases, problems, plan.fingerprint)
        card["sha256"] = hash_files(images, partial / CASES)
        write_json(partial / CARD, card, indent=2, end="\n")
        os.replace(images, folder / IMAGES)
        for name in (CASES, PROBLEMS, CARD):
            os.replace(partial / name, folder / name)
        shutil.rmtree(partial)
    dataset = Dataset(folder)
    return Prepared(dataset.card, problems, leaks_of(cases), plan.found.in_words(), dataset)


def _cases(settings: PrepareSettings, plan: Plan, kept: Sequence[Job], done: dict[int, dict[str, Any]]) -> list[Case]:
    entries = [done[job.row] for job in kept]
    ids = [job.image_id for job in kept]
    patients = [plan.patients.get(image_id) or entry["patient"] for image_id, entry in zip(ids, entries, strict=True)]
    fold_of = _folds(settings, plan, kept, patients, [entry["area"] for entry in entries])
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
    settings: PrepareSettings, plan: Plan, kept: Sequence[Job], patients: Sequence[str | None], areas: list[int]
) -> list[int]:
    """The fold of each case, `NO_FOLD` of those that are always trained on. Raises: InputError if none is left."""
    ids = [job.image_id for job in kept]
    always = [job.label_source in settings.always_train for job in kept]
    if plan.folds is not None:
        folds = [NO_FOLD if each else plan.folds[image_id] for image_id, each in zip(ids, always, strict=True)]
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
    plain = {one.name: getattr(settings, one.name) for one in fields(settings)}
    plain |= {key: said(str(value)) for key, value in plain.items() if isinstance(value, Path | Url)}
    plain["masks"] = [said(str(path)) for path in settings.masks]
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
