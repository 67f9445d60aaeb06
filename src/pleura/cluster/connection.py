"""A Ray cluster to work on: one that is started here for this command alone, or one that is there already."""

from __future__ import annotations

import logging
import math
import os
import re
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from pleura.errors import InputError, excerpt
from pleura.extras import need

OBJECT_STORE_BYTES = 200_000_000
"""Of a cluster that is started here: what passes through it are paths, table rows, and of `prepare` a few images."""
CONNECT_S = 10.0


@dataclass(frozen=True)
class ClusterOptions:
    """Where and on how much of it a command works."""

    address: str
    """`local`: started here, for this command. `auto`: the one of this machine. Else `host:port` of its first node."""
    workers: int = 0
    """0: as many as the cluster has room for when the command starts."""
    cpus: float = 1
    """Processors of each worker."""
    gpus: float = 0
    """GPUs of each worker; a part of one lets several share it."""

    def __post_init__(self) -> None:
        """Raises: InputError for an address that is none, or resources that no worker can have."""
        if self.address not in ("local", "auto") and not re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[\w.-]+):\d+", self.address):
            raise InputError(
                f"--ray {self.address}: is none of local, auto and HOST:PORT; inside a cluster, as in a Ray job, auto"
            )
        if not (math.isfinite(self.cpus) and self.cpus > 0):
            raise InputError(f"--ray-cpus is more than 0, not {self.cpus:g}")
        if self.gpus < 0 or (self.gpus > 1 and self.gpus != int(self.gpus)) or not math.isfinite(self.gpus):
            raise InputError(f"--ray-gpus is a part of one GPU, such as 0.25, or a whole number, not {self.gpus:g}")


@contextmanager
def connected(options: ClusterOptions) -> Iterator[int]:
    """Connect to the cluster, and yield how many workers to start there; a local one ends with the command.

    Nothing is reported to Ray's makers. Ray listens on every address of the machine: a local cluster takes only
    those who have its token, which is new each time and known to this command and its workers alone.
    Raises: InputError if there is no cluster, or no room in it for one worker; MissingExtraError without Ray.
    """
    need("ray", "--ray")
    # Before ray is imported: it reads it then.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if options.address == "local":
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
    import ray

    logging.getLogger("ray").setLevel(logging.ERROR)
    given: dict[str, Any] = {"address": options.address, "log_to_driver": False, "logging_level": logging.ERROR}
    if options.address == "local":
        cores = max(2, os.cpu_count() or 1, math.ceil(options.workers * options.cpus))
        given |= {"num_cpus": cores, "object_store_memory": OBJECT_STORE_BYTES, "include_dashboard": False}
    if options.address not in ("local", "auto"):
        _refuse_unless_somebody_listens(options.address)
    # Ray gives a node 30 s to start, which a busy machine may not do it in.
    for is_last in (False, False, True) if options.address == "local" else (True,):
        with _Reaching(options.address, is_last):
            ray.init(namespace="pleura", **given)
        if ray.is_initialized():
            break
        ray.shutdown()
    try:
        yield options.workers or _room(options)
    finally:
        ray.shutdown()


def _refuse_unless_somebody_listens(address: str) -> None:
    """Raises: InputError. Ray itself tries for minutes, and writes its own warnings meanwhile."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"--ray {address}: cannot be reached ({reason}); is it up, and the port Ray's?") from error


class _Reaching:
    """Turns what Ray raises where no cluster is, or none starts, into a refusal; much of it is a bare `Exception`."""

    def __init__(self, address: str, is_last: bool) -> None:
        """is_last: else it is tried again, and nothing is raised."""
        self.address, self.is_last = address, is_last

    def __enter__(self) -> None:
        """Nothing is done before."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> bool:
        if not isinstance(error, Exception):
            return False
        if self.is_last:
            what = "did not start" if self.address == "local" else "cannot be reached"
            way_out = (
                "run it again, perhaps with fewer --workers"
                if self.address == "local"
                else "is it up, with its token here?"
            )
            raise InputError(f"--ray {self.address}: {what} ({excerpt(error)}); {way_out}") from error
        return True


def _room(options: ClusterOptions) -> int:
    """How many workers the cluster has room for. Raises: InputError if for none."""
    import ray

    there = ray.cluster_resources()
    fits: int = math.floor(there.get("CPU", 0) / options.cpus + 1e-9)
    if options.gpus:
        each = math.floor(1 / options.gpus + 1e-9) if options.gpus < 1 else 1 / options.gpus
        fits = min(fits, math.floor(there.get("GPU", 0) * each + 1e-9))
    if fits < 1:
        has = f"{there.get('CPU', 0):g} CPUs and {there.get('GPU', 0):g} GPUs"
        wanted = f"{options.cpus:g} CPUs" + (f" and {options.gpus:g} GPUs" if options.gpus else "")
        raise InputError(
            f"--ray {options.address}: has {has}, and a worker takes {wanted}; take less by --ray-cpus and --ray-gpus, "
            "or say --workers if nodes come when they are asked for"
        )
    return fits
