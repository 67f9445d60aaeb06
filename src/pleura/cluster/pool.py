"""Workers on a cluster: each has a process of its own, gets task after task, and may die without harm.

Plain actors and not Ray Data: it repeats what an actor died of without end and without saying which row it was, while
here a part that is in hand when its worker dies is tried again alone, then case by case, and a case that kills three
workers alone is given up with the reason. What is finished is in the command's own journal, from which it also resumes.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from pleura import errors
from pleura.cluster.connection import ClusterOptions
from pleura.errors import InputError, PleuraError, excerpt

IN_HAND = 2
"""Tasks that a worker has at a time: it reads and writes for one while its net runs on the other."""
TRIES = 3
"""How many workers a case may kill while it is the only one in hand."""
START_S, TASK_S = 600.0, 1800.0
"""How long a first worker may take to start, nodes that have to come included, and a task: Ray waits for ever."""
STARTS = 4
"""How many workers in a row may die before they could do anything."""


@dataclass(frozen=True)
class Refusal:
    """What a worker returns for an error of pleura that ends the command: an exception of Ray would hide it."""

    kind: str
    message: str

    @classmethod
    def of(cls, error: PleuraError) -> Refusal:
        """Return it for an error."""
        return cls(type(error).__name__, str(error))

    def error(self) -> PleuraError:
        """Return the error, to be raised in the command."""
        kind = getattr(errors, self.kind, PleuraError)
        made: PleuraError = kind(self.message)
        return made


@dataclass(frozen=True)
class Task:
    """A part of the work: cases that are done together, as they would be without a cluster."""

    number: int
    cases: Sequence[Any]
    is_suspect: bool = False
    """A worker died with it in hand: it is done while its worker does nothing else."""
    killed: int = 0
    """How many workers died while they did nothing else."""


@dataclass(frozen=True)
class Lost:
    """A case is given up: its workers died of it, as far as one can tell."""

    reason: str


@dataclass(eq=False)
class _Worker:
    actor: Any
    first: Any
    """The answer in which it says what it is."""
    began: float = field(default_factory=time.monotonic)
    is_ready: bool = False
    in_hand: dict[Any, tuple[Task, float]] = field(default_factory=dict)

    @property
    def is_kept_alone(self) -> bool:
        return any(task.is_suspect for task, _ in self.in_hand.values())


class Pool:
    """Workers of one kind. Inside `with`; they end with it.

    kind: a class with `facts()`, which says what it is or refuses, and `do(cases)`. Both return a `Refusal` for an
    error that ends the command; every worker's facts have to be equal.
    """

    def __init__(
        self,
        kind: type,
        arguments: Sequence[Any],
        options: ClusterOptions,
        count: int,
        in_hand: int = IN_HAND,
        task_s: float = TASK_S,
    ) -> None:
        """in_hand: tasks that a worker has at a time. task_s: after which one hangs."""
        self.kind, self.arguments, self.options, self.count = kind, tuple(arguments), options, count
        self.in_hand, self.task_s = in_hand, task_s
        self._workers: list[_Worker] = []
        self._facts: Any = None
        self._deaths_at_start = 0
        self._began = time.monotonic()

    def __enter__(self) -> Pool:
        self._workers = [self._start() for _ in range(self.count)]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for worker in self._workers:
            self._end(worker)

    def facts(self) -> Any:
        """Wait for the first worker, and return what it says it is. Raises: PleuraError if none can start."""
        while self._facts is None:
            for worker, ref in self._finished():
                list(self._heed(worker, ref, deque()))
        return self._facts

    def answers(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, Any]]:
        """Yield each task with its answer, in the order in which they come; no more are taken than workers hold.

        A task whose workers died may come as several of one case each, of which some are `Lost`.
        Raises: PleuraError that a worker returned, or if no worker can start.
        """
        waiting, suspects = iter(tasks), deque[Task]()
        while True:
            more = self._hand_out(waiting, suspects)
            if not more and not suspects and not any(worker.in_hand for worker in self._workers):
                return
            for worker, ref in self._finished():
                yield from self._heed(worker, ref, suspects)
            for worker in list(self._workers):
                if any(time.monotonic() - began > self.task_s for _, began in worker.in_hand.values()):
                    yield from self._lose(worker, suspects, f"it took longer than {self.task_s / 60:g} min")

    def _start(self) -> _Worker:
        import ray

        # Never restarted by Ray, which would repeat what it died of: see `_lose`.
        resources = {"num_cpus": self.options.cpus, "num_gpus": self.options.gpus, "max_restarts": 0}
        actor = ray.remote(self.kind).options(**resources, max_concurrency=self.in_hand).remote(*self.arguments)
        return _Worker(actor, actor.facts.remote())

    def _end(self, worker: _Worker) -> None:
        import ray

        with suppress(ray.exceptions.RayError, ValueError, RuntimeError):
            ray.kill(worker.actor, no_restart=True)

    def _hand_out(self, waiting: Iterator[Task], suspects: deque[Task]) -> bool:
        """Give tasks to workers that have room; returns whether there may be more of those that are waiting."""
        for room in range(self.in_hand):
            for worker in self._workers:
                if not worker.is_ready or worker.is_kept_alone or len(worker.in_hand) > room:
                    continue
                task = next(waiting, None)
                if task is None:
                    for idle in self._workers:
                        if suspects and idle.is_ready and not idle.in_hand:
                            self._give(idle, suspects.popleft())
                    return False
                self._give(worker, task)
        return True

    def _give(self, worker: _Worker, task: Task) -> None:
        worker.in_hand[worker.actor.do.remote(task.cases)] = (task, time.monotonic())

    def _finished(self) -> list[tuple[_Worker, Any]]:
        """Wait for answers, at most a second. Raises: PleuraError if no worker starts in time."""
        import ray

        owner = {ref: worker for worker in self._workers for ref in worker.in_hand}
        owner |= {worker.first: worker for worker in self._workers if not worker.is_ready}
        done, _ = ray.wait(list(owner), num_returns=1, timeout=1.0)
        if any(worker.is_ready for worker in self._workers):
            self._began = time.monotonic()
        elif not done and time.monotonic() - self._began > START_S:
            raise InputError(
                f"--ray {self.options.address}: no worker has started for {START_S / 60:g} min; `ray status` shows "
                "what the cluster waits for; the same command goes on from here"
            )
        return [(owner[ref], ref) for ref in done]

    def _heed(self, worker: _Worker, ref: Any, suspects: deque[Task]) -> Iterator[tuple[Task, Any]]:
        import ray

        try:
            answer = ray.get(ref)
        except ray.exceptions.RayTaskError:
            raise  # a fault of pleura: with its traceback
        except ray.exceptions.RayError as error:
            yield from self._lose(worker, suspects, in_words(error))
            return
        if isinstance(answer, Refusal):
            raise answer.error()
        if ref == worker.first:
            if self._facts is not None and answer != self._facts:
                raise InputError(
                    f"--ray {self.options.address}: its nodes would not compute the same ({answer} and {self._facts}); "
                    "install the same version everywhere, and name --precision, --engine and --device"
                )
            self._facts, worker.is_ready, self._deaths_at_start = answer, True, 0
            return
        task, _ = worker.in_hand.pop(ref)
        yield task, answer

    def _lose(self, worker: _Worker, suspects: deque[Task], reason: str) -> Iterator[tuple[Task, Any]]:
        """Replace a worker that died; what it had in hand is done again by others, or given up."""
        self._end(worker)
        self._deaths_at_start += not worker.is_ready
        if self._deaths_at_start >= STARTS:
            raise InputError(
                f"--ray {self.options.address}: workers die before they can do anything ({reason}); if memory runs "
                "out, start fewer by --workers"
            )
        self._workers[self._workers.index(worker)] = self._start()
        for task, _ in worker.in_hand.values():
            if not task.is_suspect:
                suspects.append(Task(task.number, task.cases, is_suspect=True))
            elif len(task.cases) > 1:
                suspects.extend(Task(task.number, [case], is_suspect=True) for case in task.cases)
            elif task.killed + 1 < TRIES:
                suspects.append(Task(task.number, task.cases, is_suspect=True, killed=task.killed + 1))
            else:
                yield task, Lost(f"left out: {TRIES} workers died while they did nothing else ({reason})")


def in_words(error: Exception) -> str:
    """Return why a worker died, as Ray says it, in one line; its many possible reasons are left out."""
    text = " ".join(str(error).split())
    if "OutOfMemory" in type(error).__name__ or "memory monitor" in text:
        return "memory ran out"
    for known, said in (("connection error code 2", "the process was killed or crashed"), ("node", "its node is gone")):
        if known in text:
            return said
    return excerpt(text)
