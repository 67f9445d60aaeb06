"""An exported model by OpenVINO, on the CPU: of its own files, or of an ONNX file."""

from __future__ import annotations

from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pleura.errors import CheckpointError, InputError, excerpt
from pleura.inference.cpu import threads
from pleura.inference.engines.graph import Port, refuse_another_graph
from pleura.inference.engines.telemetry import import_openvino
from pleura.inference.precision import AS_EXPORTED, EXACT, Precision
from pleura.models.exported import INPUT, OUTPUT, WAY_OUT, Exported

HINTS = {"float32": "f32", "bfloat16": "bf16"}
DTYPES = {"u8": "uint8", "f32": "float32"}


def compiled_with(precision: str) -> dict[str, Any]:
    """Return the settings that predictions, and the certificate of an export, are computed with."""
    return {
        # Without it OpenVINO computes in bfloat16 on every CPU with AMX, and says so nowhere.
        "INFERENCE_PRECISION_HINT": HINTS[precision],
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads(),
        "ENABLE_CPU_PINNING": False,  # files are read and written on the same cores meanwhile
    }


class OpenVinoEngine:
    """The graph of an .xml with its .bin, or of an ONNX file."""

    name = "openvino"
    device = "cpu"

    def __init__(self, exported: Exported, precision: str = "float32") -> None:
        """precision: float32 or bfloat16, of the layers that are not int8.

        Raises: CheckpointError if OpenVINO cannot build the graph, or it has other inputs and outputs; InputError for
        bfloat16 on a CPU without it.
        """
        self.exported, self.size_px = exported, exported.preprocessing.size_px
        self.tta, self.weights_sha256 = exported.tta, exported.weights_sha256
        openvino = import_openvino()
        core = openvino.Core()
        if precision == "bfloat16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise InputError("precision bfloat16: this CPU has none in OpenVINO; take float32")
        self.precision = (
            Precision("int8", AS_EXPORTED)
            if exported.precision == "int8"
            else Precision(precision, "as asked for", "" if precision == "float32" else EXACT)
        )
        try:
            model = core.read_model(str(exported.path))
            refuse_another_graph(exported, [_port(one) for one in model.inputs], [_port(one) for one in model.outputs])
            compiled = core.compile_model(model, "CPU", compiled_with(precision))
            self._request = compiled.create_infer_request()
        except RuntimeError as error:
            raise CheckpointError(
                f"{exported.path}: OpenVINO {openvino.__version__} cannot build its graph ({reason(error)}); {WAY_OUT}"
            ) from error
        self._lock = Lock()
        """A request holds the tensors of one image."""

    def probabilities(self, squares: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `Engine.probabilities`. Raises: CheckpointError where the graph fails, or gives another size."""
        found = np.empty((len(squares), self.size_px, self.size_px), dtype=np.float32)
        for place, square in enumerate(squares):  # one by one: no prediction depends on the images beside it
            found[place] = self.in_one_pass(square[None])[0]
        return found

    def in_one_pass(self, squares: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return what `probabilities` does, by one pass of all images through the graph. Raises: as it does."""
        with self._lock:
            try:
                self._request.infer({INPUT: np.ascontiguousarray(squares)})
                found: NDArray[np.float32] = self._request.get_tensor(OUTPUT).data.copy()
            except RuntimeError as error:
                raise CheckpointError(f"{self.exported.path}: its graph fails ({reason(error)}); {WAY_OUT}") from error
        wanted = (len(squares), self.size_px, self.size_px)
        if found.shape != wanted:
            raise CheckpointError(f"{self.exported.path}: its graph gives {found.shape}, not {wanted}; {WAY_OUT}")
        return found


def _port(port: Any) -> Port:
    """An input or output of OpenVINO's; without a name where it has none, or several."""
    name, kind = ", ".join(sorted(port.get_names())), port.get_element_type().get_type_name()
    shape = tuple("?" if side.is_dynamic else side.get_length() for side in port.get_partial_shape())
    return Port(name, DTYPES.get(kind, kind), shape)


def reason(error: Exception) -> str:
    """Return what went wrong, without the lines of OpenVINO's source that it went through."""
    lines = [line for line in str(error).splitlines() if line.strip() and not line.startswith("Exception from")]
    return excerpt(lines[0] if lines else error)
