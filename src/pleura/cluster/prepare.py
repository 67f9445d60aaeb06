"""`pleura prepare --ray`: radiographs are read on a cluster; the command writes the dataset.

Images come back to the command, which writes their rows: rows of one file that several machines map may share a page.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pleura import __version__
from pleura.cluster.asked import go_to
from pleura.cluster.connection import ClusterOptions, connected
from pleura.cluster.pool import Lost, Pool, Refusal, Task
from pleura.data.ingest import Entry, Job, read_jobs, write_row
from pleura.data.prepare import Prepared, PrepareSettings, prepare
from pleura.errors import InputError, PleuraError
from pleura.urls.store import exists
from pleura.urls.url import Place, Url

PART = 4
"""Radiographs that a worker reads and returns at a time."""


@dataclass(frozen=True)
class Read:
    """What a worker returns of one radiograph."""

    entry: Entry
    square: NDArray[np.uint8] | None
    unseen: Path | None
    """A file of its image or mask that is not there for the worker's machine."""


class PrepareWorker:
    """Reads radiographs and masks in a process of its own."""

    def __init__(self, source: Place, size_px: int, rle_grid: str, folder: str) -> None:
        """source: of the radiographs. folder: that the command runs in, and relative paths begin at."""
        self.source, self.size_px, self.rle_grid, self.folder = source, size_px, rle_grid, folder

    def facts(self) -> str | Refusal:
        """Return the version of pleura."""
        go_to(self.folder)
        try:
            if isinstance(self.source, Url):  # or each of its objects would be a problem
                exists(self.source)
        except PleuraError as error:
            return Refusal.of(error)
        return __version__

    def do(self, jobs: Sequence[Job]) -> list[Read] | Refusal:
        """Read some radiographs and their masks."""
        try:
            read = read_jobs(jobs, self.size_px, self.rle_grid)
            return [Read(*each, _unseen(job)) for job, each in zip(jobs, read, strict=True)]
        except PleuraError as error:
            return Refusal.of(error)


def _unseen(job: Job) -> Path | None:
    files = (*([job.path] if isinstance(job.path, Path) else []), *job.mask.files)
    return next((file for file in files if not file.exists()), None)


def prepare_on_cluster(settings: PrepareSettings, options: ClusterOptions, kind: type = PrepareWorker) -> Prepared:
    """Do what `prepare` does by the workers of a cluster: the same images, cases and problems.

    kind: of the workers.
    Raises: as `prepare`; InputError if the cluster is not there or has no room, has another version of pleura, or
    does not see the inputs; MissingExtraError.
    """
    source = settings.images
    if isinstance(source, Url) and source.scheme == "memory":
        raise InputError(f"{source}: memory is of one process, and workers have others; take another URL with --ray")
    return prepare(settings, partial(_read, source=source, options=options, kind=kind))


def _read(
    jobs: Sequence[Job], images: Path, size_px: int, rle_grid: str, source: Place, options: ClusterOptions, kind: type
) -> Iterator[Entry]:
    if not jobs:
        return
    arguments = (source, size_px, rle_grid, os.getcwd())
    with connected(options) as count, Pool(kind, arguments, options, count) as pool:
        if (there := pool.facts()) != __version__:
            raise InputError(f"--ray {options.address}: its nodes have pleura {there}; install {__version__} there")
        tasks = (Task(number, part) for number, part in enumerate(_parts(jobs)))
        for task, answer in pool.answers(tasks):
            if isinstance(answer, Lost):
                yield from ({"row": job.row, "problem": answer.reason} for job in task.cases)
                continue
            for job, read in zip(task.cases, answer, strict=True):
                if read.unseen is not None and read.unseen.exists():
                    raise InputError(
                        f"{read.unseen}: a node of the cluster does not see it; take a folder that all nodes share"
                    )
                if read.square is not None:
                    write_row(images, job.row, read.square)
                yield read.entry


def _parts(jobs: Sequence[Job]) -> Iterator[Sequence[Job]]:
    return (jobs[start : start + PART] for start in range(0, len(jobs), PART))
