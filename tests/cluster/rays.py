"""Ray clusters of real processes on this machine, and commands that run on them."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

START_S = 90
LIMIT_S = 240
"""Of a command, on a machine that does much else."""
HAS_RAY = importlib.util.find_spec("ray") is not None
needs_ray = pytest.mark.skipif(not HAS_RAY, reason='needs ray: pip install "pleura[cluster]"')


@dataclass
class Nodes:
    """A cluster: a first node, and more of one processor each."""

    address: str
    folder: Path
    environment: dict[str, str]
    nodes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self) -> None:
        """Start a node, and wait until it is part of the cluster; a busy machine gets three tries."""
        first = not self.nodes
        where = ["--head", f"--port={self.address.rpartition(':')[2]}"] if first else [f"--address={self.address}"]
        where += ["--include-dashboard=false", f"--temp-dir={self.folder}"] if first else []
        size = ["--num-cpus=1", "--num-gpus=0", "--object-store-memory=80000000"]
        log = self.folder.with_suffix(".log")
        for _ in range(3):
            with log.open("ab") as file:
                place = log.stat().st_size
                command = [sys.executable, "-m", "ray.scripts.scripts", "start", *where, *size, "--block"]
                node = subprocess.Popen(command, stdout=file, stderr=file, env=self.environment)
            wait_until(lambda: b"Ray runtime started" in log.read_bytes()[place:] or node.poll() is not None)  # noqa: B023
            if b"Ray runtime started" in log.read_bytes()[place:] and node.poll() is None:
                self.nodes.append(node)
                return
            end(node)
        raise RuntimeError(log.read_text(errors="replace")[-2000:])

    def mend(self) -> None:
        """Start a second node in place of one that was killed."""
        self.nodes[1:] = [node for node in self.nodes[1:] if node.poll() is None]
        if len(self.nodes) < 2:
            self.start()

    def command(self, *words: object, script: str = "-m") -> subprocess.Popen[str]:
        """Start a command on this cluster; script: `-m`, or a file to run instead of a module."""
        line = [sys.executable, script, *map(str, words)]
        return subprocess.Popen(line, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def workers(self, kind: str) -> list[psutil.Process]:
        """The processes of workers of one kind, on every node."""
        found = []
        for node in self.nodes:
            with contextlib.suppress(psutil.NoSuchProcess):
                for process in psutil.Process(node.pid).children(recursive=True):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        found += [process] if f"ray::{kind}" in " ".join(process.cmdline()) else []
        return found


def end(node: subprocess.Popen[bytes]) -> None:
    """kill -9 a node and every process of it."""
    with contextlib.suppress(psutil.NoSuchProcess):
        below = psutil.Process(node.pid).children(recursive=True)
        for process in [psutil.Process(node.pid), *below]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
    node.wait()


def wait_until(is_so: Callable[[], bool], seconds: float = START_S) -> bool:
    """Wait until something is so; returns whether it came to be."""
    ends = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > ends:
            return False
        time.sleep(0.05)
    return True


@contextlib.contextmanager
def nodes(count: int) -> Iterator[Nodes]:
    """A cluster with a token of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    folder = Path(tempfile.mkdtemp(prefix="ray-"))  # short: sockets in it have names of at most 107 bytes
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
    environment = {**os.environ, **token, "RAY_USAGE_STATS_ENABLED": "0", "RAY_enable_metrics_collection": "0"}
    made = Nodes(address, folder, environment)
    try:
        for _ in range(count):
            made.start()
        yield made
    finally:
        for node in reversed(made.nodes):
            end(node)
        shutil.rmtree(folder, ignore_errors=True)
        folder.with_suffix(".log").unlink(missing_ok=True)
