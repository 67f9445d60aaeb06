"""An exported model by ONNX Runtime, on the CPU: the engine of an installation without PyTorch."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as state

from pleura.errors import CheckpointError, excerpt
from pleura.inference.cpu import threads
from pleura.inference.engines.graph import Port, refuse_another_graph
from pleura.inference.precision import AS_EXPORTED, Precision
from pleura.models.exported import INPUT, OUTPUT, WAY_OUT, Exported

REFUSALS: tuple[type[Exception], ...] = (
    RuntimeError,
    ValueError,
    *(kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception)),
)
"""What ONNX Runtime raises: each of its errors is a class of its own, and they have no common one."""
DTYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}


def session_options() -> onnxruntime.SessionOptions:
    """Return the settings that predictions, and the certificate of an export, are computed with."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads, options.inter_op_num_threads = threads(), 1
    options.log_severity_level = 3  # errors, which are raised too; warnings name nothing that a user could change
    # Tensors as they are needed, and not all that a graph will need in one block: 370 MB become 240 for the default
    # model, in the same time. A thread that waits leaves its core to those that read and write files.
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


class OnnxEngine:
    """The graph of an ONNX file."""

    name = "onnxruntime"
    device = "cpu"

    def __init__(self, exported: Exported) -> None:
        """Raises: CheckpointError if ONNX Runtime cannot build the graph, or it has other inputs and outputs."""
        self.exported, self.size_px = exported, exported.preprocessing.size_px
        self.tta, self.weights_sha256 = exported.tta, exported.weights_sha256
        why = {"float32": "the only one of onnxruntime", "int8": AS_EXPORTED}[exported.precision]
        self.precision = Precision(exported.precision, why)
        onnxruntime.disable_telemetry_events()
        try:
            self._session = onnxruntime.InferenceSession(
                str(exported.path), session_options(), providers=["CPUExecutionProvider"]
            )
        except REFUSALS as error:
            raise CheckpointError(
                f"{exported.path}: ONNX Runtime {onnxruntime.__version__} cannot build its graph ({excerpt(error)}); "
                f"{WAY_OUT}"
            ) from error
        _give_back()
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        refuse_another_graph(exported, [_port(one) for one in inputs], [_port(one) for one in outputs])

    def probabilities(self, squares: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `Engine.probabilities`. Raises: CheckpointError where the graph fails, or gives another size."""
        found = np.empty((len(squares), self.size_px, self.size_px), dtype=np.float32)
        for place, square in enumerate(squares):  # one by one: no prediction depends on the images beside it
            found[place] = self.in_one_pass(square[None])[0]
        return found

    def in_one_pass(self, squares: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return what `probabilities` does, by one pass of all images through the graph. Raises: as it does."""
        try:
            (found,) = self._session.run([OUTPUT], {INPUT: np.ascontiguousarray(squares)})
        except REFUSALS as error:
            raise CheckpointError(f"{self.exported.path}: its graph fails ({excerpt(error)}); {WAY_OUT}") from error
        wanted = (len(squares), self.size_px, self.size_px)
        if found.shape != wanted:
            raise CheckpointError(f"{self.exported.path}: its graph gives {found.shape}, not {wanted}; {WAY_OUT}")
        probabilities: NDArray[np.float32] = found
        return probabilities


def _give_back() -> None:
    """Give the memory in which a graph was built back to the system: 25 MB for the default model.

    glibc keeps it, and ONNX Runtime takes what it computes in from elsewhere. Source: malloc_trim(3).
    """
    with suppress(AttributeError, OSError):  # of another C library
        ctypes.CDLL(None).malloc_trim(0)


def _port(node: Any) -> Port:
    """An input or output of ONNX Runtime's."""
    shape = tuple(side if isinstance(side, int | str) else "?" for side in node.shape)
    return Port(node.name, DTYPES.get(node.type, node.type), shape)
