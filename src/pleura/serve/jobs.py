"""Jobs: many radiographs in one request, predicted one after the other, with progress; in memory alone."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from pleura.serve.answers import result_document
from pleura.serve.logs import log_error
from pleura.serve.problems import ProblemError, internal
from pleura.serve.service import Service
from pleura.serve.uploads import Hold, Upload

SWEEP_S = 1.0


@dataclass
class Job:
    """Files of one request. Each result takes the place of its file."""

    job_id: str
    owner: bytes
    """The hash of the key that it was sent with; no other key sees it."""
    files: list[Upload | None]
    hold: Hold
    names: list[str | None]
    results: list[dict[str, Any] | None] = field(default_factory=list)
    forget_at: float | None = None
    """By the clock of the loop; None until it is finished."""
    is_fetched: bool = False

    @property
    def done(self) -> int:
        """How many files have a result, or a problem."""
        return sum(result is not None for result in self.results)

    @property
    def is_finished(self) -> bool:
        """Whether all of them have."""
        return self.done == len(self.results)

    def document(self) -> dict[str, Any]:
        """Return its progress, and once it is finished its results, in the order of the files."""
        failed = sum(result is not None and "problem" in result for result in self.results)
        progress = {
            "job_id": self.job_id,
            "status": "finished" if self.is_finished else "running" if self.done else "queued",
            "files": len(self.results),
            "done": self.done,
            "failed": failed,
        }
        return {**progress, "results": self.results} if self.is_finished else progress


class Jobs:
    """The jobs of a service, bounded in number and age."""

    def __init__(self, service: Service) -> None:
        self._service, self._limits = service, service.settings.limits
        self._jobs: dict[str, Job] = {}
        # One more at a time than pass the net together, so that the net does not wait for the next one to be decoded;
        # whoever wants a single answer waits for no more than that.
        self._turn = asyncio.Semaphore(service.settings.batch_size + 1)
        self._tasks: set[asyncio.Task[None]] = set()
        service.metrics.gauge("pleura_jobs", "Jobs that are not forgotten.", lambda: len(self._jobs))

    @property
    def waiting(self) -> int:
        """How many jobs are not finished, or not fetched."""
        return sum(not job.is_fetched for job in self._jobs.values())

    @property
    def unfinished(self) -> int:
        """How many jobs are not finished."""
        return sum(not job.is_finished for job in self._jobs.values())

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Forget what is old, for as long as the context lasts; then everything."""
        sweep = asyncio.create_task(self._sweep())
        try:
            yield
        finally:
            for task in (sweep, *self._tasks):
                task.cancel()

    def refuse_if_full(self) -> None:
        """Refuse before a body is read. Raises: ProblemError (too-many-jobs)."""
        if self.waiting >= self._limits.jobs:
            raise ProblemError(
                "too-many-jobs",
                f"{self.waiting} jobs are not finished or not fetched; fetch or delete those that are done",
                retry_after_s=5,
            )

    def start(self, files: Sequence[Upload], owner: bytes, hold: Hold, request_id: str) -> Job:
        """Take a job; its hold is released when it is finished. Raises: ProblemError (too-many-jobs)."""
        self.refuse_if_full()
        fetched = [job for job in self._jobs.values() if job.is_fetched]
        for old in fetched[: max(0, len(self._jobs) + 1 - self._limits.jobs)]:
            self.delete(old)
        job = Job(secrets.token_urlsafe(16), owner, list(files), hold, [one.name for one in files], [None] * len(files))
        self._jobs[job.job_id] = job
        task = asyncio.create_task(self._run(job, request_id))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return job

    def find(self, job_id: str, owner: bytes) -> Job:
        """Return a job. Raises: ProblemError (no-such-job), also for that of another key."""
        job = self._jobs.get(job_id)
        if job is None or job.owner != owner:
            raise ProblemError(
                "no-such-job",
                "its id is wrong, or it was deleted, fetched a while ago or too old, or the service was started again: "
                "send the files again",
            )
        return job

    def fetched(self, job: Job) -> None:
        """Note that a finished job was fetched: it is kept a little longer, as the answer may be lost."""
        if job.forget_at is not None:
            job.is_fetched = True
            soon = asyncio.get_running_loop().time() + self._limits.fetched_s
            job.forget_at = min(job.forget_at, soon)

    def delete(self, job: Job) -> None:
        """Forget a job; what is not predicted yet will not be."""
        job.files = [None] * len(job.files)
        job.hold.release()
        self._jobs.pop(job.job_id, None)

    async def _run(self, job: Job, request_id: str) -> None:
        await asyncio.gather(*(self._one(job, number, request_id) for number in range(len(job.files))))
        job.hold.release()
        job.forget_at = asyncio.get_running_loop().time() + self._limits.job_s

    async def _one(self, job: Job, number: int, request_id: str) -> None:
        async with self._turn:
            file = job.files[number]
            result: dict[str, Any] = {"index": number, "name": job.names[number]}
            if file is None:  # deleted meanwhile
                return
            work = asyncio.ensure_future(self._service.answer(file.content, result_document))
            await asyncio.wait([work])
            error = work.exception()
            if error is None:
                result["prediction"] = work.result()
            elif isinstance(error, ProblemError):
                result["problem"] = error.document(request_id)
            else:  # a fault of the service: of this file alone, and the job goes on
                log_error("job", error, request_id=request_id)
                result["problem"] = internal().document(request_id)
            job.files[number], job.results[number] = None, result

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            now = asyncio.get_running_loop().time()
            for job in [job for job in self._jobs.values() if job.forget_at is not None and job.forget_at < now]:
                self.delete(job)
