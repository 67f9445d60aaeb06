"""Workers that compute one thing together, like the processes that torchrun starts: they begin and end together.

Plain actors and not Ray Train, whose own imports are pandas and pyarrow, 255 MB more: what it adds, states and a log,
a run has already, on the disk that all nodes share.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Protocol

from pleura.cluster.connection import ClusterOptions
from pleura.cluster.pool import START_S, Refusal, in_words
from pleura.errors import InputError, PleuraError

logger = logging.getLogger("pleura")

DEATH_S = 60.0
"""How long after an error of one worker another's death may show that was its cause: Ray notices a lost node late."""
Lines = Sequence[tuple[int, str]]
"""Levels and messages of a log."""


class Member(Protocol):
    """A worker of a gang."""

    def facts(self) -> Any:
        """What it has, of all workers the same, or a Refusal."""

    def address(self) -> tuple[str, int]:
        """An address of its machine, and a port that is free there."""

    def lines(self, is_last: bool) -> Lines:
        """What it has logged since it was last asked; waits a moment for some, unless they are the last."""

    def do(self, environment: Mapping[str, str], work: Any) -> Any:
        """Do its part, and return what came of it or a Refusal; environment: as torchrun sets it."""


class WorkerDiedError(PleuraError):
    """A worker has died, and what the others do is void."""


class Gang:
    """Workers of one kind, each a `Member`. Inside `with`; they end with it."""

    def __init__(self, kind: type, arguments: Sequence[Any], options: ClusterOptions, count: int) -> None:
        self.kind, self.arguments, self.options, self.count = kind, tuple(arguments), options, count
        self._actors: list[Any] = []

    def __enter__(self) -> Gang:
        import ray

        resources = {"num_cpus": self.options.cpus, "num_gpus": self.options.gpus, "max_restarts": 0}
        made = ray.remote(self.kind).options(**resources, max_concurrency=2)
        self._actors = [made.remote(*self.arguments) for _ in range(self.count)]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        import ray

        for actor in self._actors:
            with suppress(ray.exceptions.RayError, ValueError, RuntimeError):
                ray.kill(actor, no_restart=True)

    def facts(self) -> Any:
        """Wait until all workers have started, and return what each has.

        Raises: PleuraError that a worker returned; InputError if they differ, or do not all start in time;
        WorkerDiedError.
        """
        import ray

        refs = [actor.facts.remote() for actor in self._actors]
        _, waiting = ray.wait(refs, num_returns=len(refs), timeout=START_S)
        if waiting:
            raise InputError(
                f"--ray {self.options.address}: {len(waiting)} of {self.count} workers have not started for "
                f"{START_S / 60:g} min; `ray status` shows what the cluster waits for; or take fewer --workers"
            )
        each = self._answers(refs, None)
        if other := next((one for one in each if one != each[0]), None):
            raise InputError(
                f"--ray {self.options.address}: its nodes would not compute the same ({other} and {each[0]}); "
                "install the same version everywhere, and keep the data where all nodes see it"
            )
        return each[0]

    def run(self, work: Any) -> Any:
        """Let all workers do their parts, log here what the first one logs, and return what it returns.

        Raises: PleuraError that a worker returned; WorkerDiedError.
        """
        first = self._actors[0]
        host, port = self._answers([first.address.remote()], None)[0]
        shared = {"WORLD_SIZE": str(self.count), "MASTER_ADDR": host, "MASTER_PORT": str(port)}
        # Each worker sees its own GPU alone, so that it is the first of its machine whatever the others are.
        shared |= {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
        refs = [
            actor.do.remote({**shared, "RANK": str(rank)} if self.count > 1 else {}, work)
            for rank, actor in enumerate(self._actors)
        ]
        answers = self._answers(refs, first)
        _log(self._answers([first.lines.remote(True)], None)[0])
        return answers[0]

    def _answers(self, refs: Sequence[Any], logs: Any) -> list[Any]:
        """Wait for all answers. logs: the worker whose log is written here meanwhile."""
        import ray

        found: dict[Any, Any] = {}
        fault: tuple[Exception, float] | None = None
        said = logs.lines.remote(False) if logs is not None else None
        while len(found) < len(refs):
            waiting = [ref for ref in refs if ref not in found]
            done, _ = ray.wait([*waiting, *([said] if said is not None else [])], num_returns=1, timeout=1.0)
            for ref in done:
                try:
                    answer = ray.get(ref)
                except ray.exceptions.RayTaskError as error:
                    fault = fault or (error, time.monotonic() + DEATH_S)  # perhaps because another one died
                    found[ref] = None
                    continue
                except ray.exceptions.RayError as error:
                    raise WorkerDiedError(in_words(error)) from error
                if ref == said:
                    _log(answer)
                    said = logs.lines.remote(False)
                    continue
                if isinstance(answer, Refusal):
                    raise answer.error()
                found[ref] = answer
            if fault and time.monotonic() > fault[1]:
                break
        if fault:
            raise fault[0]
        return [found[ref] for ref in refs]


def free_address() -> tuple[str, int]:
    """Return the address of this machine in the cluster, and a port that is free on it."""
    import ray

    host = ray.util.get_node_ip_address()
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as free:
        free.bind((host, 0))
        return host, int(free.getsockname()[1])


def _log(lines: Lines) -> None:
    for level, message in lines:
        logger.log(level, "%s", message)
