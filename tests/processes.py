"""Processes of their own for tests that need them: several at once, or one to be killed."""

from __future__ import annotations

import multiprocessing
import os
import socket
import subprocess
from collections.abc import Sequence
from multiprocessing.context import ForkServerContext
from pathlib import Path


def forkserver() -> ForkServerContext:
    """The context from which processes start that have imported what a training needs: that takes seconds, once."""
    # The server finds modules by PYTHONPATH alone, and passes in silence over what it does not find.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["forked", "accelerate", "timm_imported"])
    return context


def launch(processes: int, overrides: Sequence[str], dataset: Path, out: Path) -> None:
    """Train the smoke recipe in processes with the environment that torchrun gives them, and wait for all."""
    from forked import train_smoke

    context = forkserver()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    started = []
    for rank in range(processes):
        environment = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": "lo"}
        environment |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        environment |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
        arguments = (overrides, dataset, out, False, environment if processes > 1 else {})
        started.append(context.Process(target=train_smoke, args=arguments))
        started[-1].start()
    for process in started:
        process.join(timeout=150)
    assert [process.exitcode for process in started] == [0] * processes


def ended(process: subprocess.Popen[str], limit_s: float = 240) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command; killed if it takes longer."""
    try:
        out, err = process.communicate(timeout=limit_s)
    finally:
        process.kill()
    return process.returncode, out, err
