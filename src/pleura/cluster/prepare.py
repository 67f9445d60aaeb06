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
from pleura.cluster.pool import Lost, Pool, Task
from pleura.data.ingest import Entry, Job, read_job, write_row
from pleura.data.prepare import Prepared, PrepareSettings, prepare
from pleura.errors import InputError

PART = 4
"""Radiographs that a worker reads and returns at a time."""


@dataclass(frozen=True)
class Read:
    """What a worker returns of one radiograph."""

    entry: Entry
    square: NDArray[np.uint8] | None
    is_seen: bool
    """Whether its file is there for the worker's machine."""


class PrepareWorker:
    """Reads radiographs and masks in a process of its own."""

    def __init__(self, size_px: int, rle_grid: str, folder: str) -> None:
        """folder: that the command runs in, and relative paths begin at."""
        self.size_px, self.rle_grid, self.folder = size_px, rle_grid, folder

    def facts(self) -> str:
        """Return the version of pleura."""
        go_to(self.folder)
        return __version__

    def do(self, jobs: Sequence[Job]) -> list[Read]:
        """Read some radiographs and their masks."""
        return [Read(*read_job(job, self.size_px, self.rle_grid), os.path.exists(job.path)) for job in jobs]


def prepare_on_cluster(settings: PrepareSettings, options: ClusterOptions, kind: type = PrepareWorker) -> Prepared:
    """Do what `prepare` does by the workers of a cluster: the same images, cases and problems.

    kind: of the workers.
    Raises: as `prepare`; InputError if the cluster is not there or has no room, has another version of pleura, or
    does not see the inputs; MissingExtraError.
    """
    return prepare(settings, partial(_read, options=options, kind=kind))


def _read(
    jobs: Sequence[Job], images: Path, size_px: int, rle_grid: str, options: ClusterOptions, kind: type
) -> Iterator[Entry]:
    if not jobs:
        return
    arguments = (size_px, rle_grid, os.getcwd())
    with connected(options) as count, Pool(kind, arguments, options, count) as pool:
        if (there := pool.facts()) != __version__:
            raise InputError(f"--ray {options.address}: its nodes have pleura {there}; install {__version__} there")
        tasks = (Task(number, part) for number, part in enumerate(_parts(jobs)))
        for task, answer in pool.answers(tasks):
            if isinstance(answer, Lost):
                yield from ({"row": job.row, "problem": answer.reason} for job in task.cases)
                continue
            for job, read in zip(task.cases, answer, strict=True):
                if not read.is_seen and os.path.exists(job.path):
                    raise InputError(
                        f"{job.path}: a node of the cluster does not see it; take a folder that all nodes share"
                    )
                if read.square is not None:
                    write_row(images, job.row, read.square)
                yield read.entry


def _parts(jobs: Sequence[Job]) -> Iterator[Sequence[Job]]:
    return (jobs[start : start + PART] for start in range(0, len(jobs), PART))
