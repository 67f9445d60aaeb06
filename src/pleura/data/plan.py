"""What `prepare` is going to do: every radiograph with its mask, the tables, and a hash of all inputs.

Made before a radiograph is read, so that a mistake in a csv costs nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from pleura.data.dataset import FORMAT
from pleura.data.finding import Found, find_radiographs, walk
from pleura.data.folds import read_folds, read_patients
from pleura.data.ids import Names, identify
from pleura.data.ingest import Job
from pleura.data.mask_checks import masks_by_id
from pleura.data.masks import open_masks, refuse_unused_options
from pleura.data.problems import Problem
from pleura.errors import InputError
from pleura.files import name_of
from pleura.urls.copies import origin, said
from pleura.urls.url import Place, Url


@dataclass(frozen=True)
class PrepareSettings:
    """The settings of `prepare`."""

    images: Place
    masks: tuple[Path, ...]
    out: Place
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
class Plan:
    """The jobs of `prepare`, and what is known before they are done."""

    found: Found
    jobs: list[Job] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    names: Names = field(default_factory=lambda: Names([]))
    """Of the jobs."""
    patients: dict[str, str] = field(default_factory=dict)
    """Of --patients: image_id -> patient."""
    folds: dict[str, int] | None = None
    """Of --folds, where that is a csv: image_id -> fold."""
    pixels: str = ""
    """A hash of what is read into pixels. An unfinished run can be taken up with other folds: they are made at the end.
    """
    fingerprint: str = ""
    """A hash of all inputs."""


def plan_of(settings: PrepareSettings) -> Plan:
    """Pair every file with its mask, report what has no partner, and read the tables.

    Raises: InputError if nothing usable is found or a csv is wrong; StoreError.
    """
    plan = _pairs(settings)
    _read_tables(settings, plan)
    _hash_inputs(settings, plan)
    return plan


def _pairs(settings: PrepareSettings) -> Plan:
    """Pair every file with its mask, and report what has no partner."""
    refuse_unused_options(
        settings.masks, "--rle-grid" if settings.rle_grid else None, "--segment" if settings.segments else None
    )
    sources = [open_masks(path, segments=settings.segments) for path in settings.masks]
    plan = Plan(find_radiographs([settings.images], _mask_files(settings.masks)))
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
            plan.jobs.append(Job(len(plan.jobs), case.path, *masks[case.image_id], case.image_id, case.relative))
        else:
            reason = "left out: no mask or csv row has this id"
            plan.problems.append(Problem("unlabelled", case.image_id, case.relative, reason))
    if not plan.jobs:
        theirs = next((name for source in sources for name in source.masks), "nothing")
        raise InputError(
            f"{settings.images}: none of the {len(ids)} radiographs has a mask or csv row; rows name them by SOP "
            f"Instance UID, path or file name, such as {next(iter(ids.values()), '')!r}; here they name {theirs!r}"
        )
    plan.problems = [replace(one, file=said(one.file), reason=said(one.reason)) for one in plan.problems]
    plan.names = Names((job.image_id, job.name) for job in plan.jobs)
    return plan


def _mask_files(masks: Sequence[Path]) -> list[Place]:
    """The files of masks, which are no radiographs where they lie among them."""
    return [origin(file) for source in masks if source.is_dir() for file in walk(source)]


def _read_tables(settings: PrepareSettings, plan: Plan) -> None:
    if settings.patients:
        plan.patients = plan.names.resolve(read_patients(settings.patients), settings.patients)
    sources = {job.label_source for job in plan.jobs}
    if unknown := set(settings.always_train) - sources:
        raise InputError(f"--always-train: no mask comes from {min(unknown)}; there is {', '.join(sorted(sources))}")
    if not isinstance(settings.folds, Path):
        if not 2 <= settings.folds <= len(plan.jobs):
            raise InputError(f"{len(plan.jobs)} cases cannot make {settings.folds} folds; give --folds 2 or more")
        return
    plan.folds = folds = plan.names.resolve(read_folds(settings.folds), settings.folds)
    jobs = [job for job in plan.jobs if job.label_source not in settings.always_train]
    missing = [job.image_id for job in jobs if job.image_id not in folds]
    if missing:
        raise InputError(f"{settings.folds}: {len(missing)} of {len(jobs)} cases have no fold, {missing[0]} first")


def _hash_inputs(settings: PrepareSettings, plan: Plan) -> None:
    """Hash the names, sizes and times of the inputs."""
    digest = hashlib.sha256(repr((FORMAT, settings.size_px, settings.rle_grid or "siim", settings.segments)).encode())
    for job in plan.jobs:
        digest.update(_stamp(job.path) + b"".join(map(_stamp, job.mask.files)))
        if job.image_id != name_of(Path(job.path.name)):
            digest.update(job.image_id.encode("utf-8", "surrogateescape"))
    for path in settings.masks:
        digest.update(_stamp(path))
    plan.pixels = digest.hexdigest()
    # A copy of an object lies elsewhere each time.
    digest.update(repr((said(str(settings.folds)), settings.seed, *settings.always_train)).encode())
    for table in (settings.patients, settings.folds):
        if isinstance(table, Path):
            digest.update(_stamp(table))
    plan.fingerprint = digest.hexdigest()


def _stamp(path: Place) -> bytes:
    if isinstance(path, Url):
        return repr((path.name, path.size, path.etag or path.mtime_ns)).encode()
    try:
        status = path.stat()
    except OSError:
        return repr((path.name, "cannot be reached")).encode()  # reading it refuses it with the reason
    # A folder's time changes with what is beside the masks; they have stamps of their own.
    return repr((path.name, None if path.is_dir() else (status.st_size, status.st_mtime_ns))).encode()
