"""The engine of a page of HTML, run by node where there is one: the very script and runtime that the page has."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import IO

import numpy as np
from numpy.typing import NDArray

from pleura.errors import CheckpointError, excerpt
from pleura.export.html import BROWSER, ENGINE, RUNTIME, runtime_version, worker_script
from pleura.inference.precision import Precision
from pleura.models.exported import Exported

_MOST_REASON_BYTES = 4096


def node() -> str | None:
    """Return the path of node; None where there is none."""
    return shutil.which("node")


def browser_versions() -> dict[str, str]:
    """Return the version of the runtime of a page, and of node where there is one."""
    found = {ENGINE: runtime_version()}
    return found | ({"node": node_version()} if node() else {})


def node_version() -> str:
    """Return the version of node, such as 20.20.2; empty where it does not say one."""
    try:
        done = subprocess.run([node() or "node", "--version"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip().removeprefix("v")


class BrowserEngine:
    """The graph of an ONNX file by ONNX Runtime Web, one image at a time."""

    name = ENGINE
    device = "cpu"

    def __init__(self, exported: Exported, process: subprocess.Popen[bytes], errors: IO[bytes]) -> None:
        """process: certify.mjs on that graph. errors: where its standard error goes."""
        self.exported, self.size_px = exported, exported.preprocessing.size_px
        self.tta, self.weights_sha256 = exported.tta, exported.weights_sha256
        self.precision = Precision("float32", f"the only one of {ENGINE}")
        self._process, self._errors = process, errors

    def probabilities(self, squares: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `Engine.probabilities`. Raises: CheckpointError where node, or the graph, fails."""
        return np.stack([self._of(square) for square in squares])

    in_one_pass = probabilities

    def _of(self, square: NDArray[np.uint8]) -> NDArray[np.float32]:
        into, out = self._process.stdin, self._process.stdout
        found = b""
        if into is not None and out is not None:
            try:
                into.write(np.ascontiguousarray(square).tobytes())
                into.flush()
                found = out.read(4 * self.size_px**2)
            except BrokenPipeError:
                found = b""
        if len(found) != 4 * self.size_px**2:
            raise self._failure()
        return np.frombuffer(found, dtype=np.float32).reshape(self.size_px, self.size_px)

    def _failure(self) -> CheckpointError:
        self._process.kill()
        self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read(_MOST_REASON_BYTES).decode("utf-8", "replace").splitlines()
        said = next((line for line in lines if "Error" in line), lines[0] if lines else "it said nothing")
        return CheckpointError(
            f"{self.exported.path}: ONNX Runtime Web fails in node {node_version()} ({excerpt(said)}); update node to "
            "20 or later, or take it out of PATH: the certificate is then of ONNX Runtime"
        )


@contextmanager
def browser_engine(exported: Exported) -> Iterator[BrowserEngine]:
    """Run the engine of a page for a while; it ends with the context. exported: an ONNX file.

    Raises: CheckpointError if node cannot be started.
    """
    preprocessing = exported.preprocessing
    with TemporaryDirectory(prefix="pleura-") as folder, TemporaryFile() as errors:
        script = Path(folder) / "worker.mjs"
        script.write_text(worker_script(), encoding="utf-8")
        sizes = [str(preprocessing.prepared_px), str(preprocessing.size_px)]
        files = [str(BROWSER / "certify.mjs"), str(script), str(RUNTIME), str(exported.path.resolve())]
        try:
            process = subprocess.Popen(
                [node() or "node", *files, *sizes], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
            )
        except OSError as error:
            raise CheckpointError(
                f"node cannot be started ({excerpt(error)}); repair it, or take it out of PATH"
            ) from error
        try:
            yield BrowserEngine(exported, process, errors)
        finally:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(BrokenPipeError):  # it holds what a dead process did not take
                        pipe.close()
