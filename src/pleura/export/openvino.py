"""An ONNX graph as OpenVINO's own files: the same layers, read once and stored with their weights as they are."""

from __future__ import annotations

import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pleura.errors import CheckpointError, excerpt
from pleura.inference.engines.telemetry import import_openvino

_NUMBERED = re.compile(r"[A-Za-z]+_[0-9]+")
_RUNTIME = re.compile(rb'\s*<info name="OpenVINO Runtime" value="[^"]*" ?/>')
"""The version that wrote the file, which the certificate has."""


def ir_of(graph: bytes, what: str) -> tuple[bytes, bytes]:
    """Return the bytes of an .xml, and of its .bin, that compute what an ONNX file's do. what: it is, for a refusal.

    Raises: CheckpointError if OpenVINO cannot read the graph.
    """
    return as_stored(read(graph, what))


def read(graph: bytes, what: str) -> Any:
    """Return an ONNX file as OpenVINO's model. what: it is, for a refusal.

    Raises: CheckpointError if OpenVINO cannot read it.
    """
    openvino = import_openvino()
    try:
        return openvino.Core().read_model(graph)
    except RuntimeError as error:
        lines = [line for line in str(error).splitlines() if line.strip() and not line.startswith("Exception from")]
        raise CheckpointError(
            f"{what} cannot be exported to OpenVINO ({excerpt(lines[0] if lines else error)}); take --format onnx"
        ) from error


def as_stored(model: Any) -> tuple[bytes, bytes]:
    """Return the bytes of a model's .xml and .bin: nothing of the process or the version that wrote them is in them."""
    openvino = import_openvino()
    for number, layer in enumerate(model.get_ordered_ops()):
        # Layers without a name of their own are numbered through the whole process.
        if _NUMBERED.fullmatch(layer.get_friendly_name()):
            layer.set_friendly_name(f"{layer.get_type_name()}_{number}")
    with TemporaryDirectory(prefix="pleura-") as folder:
        path = Path(folder) / "graph.xml"
        # In float16 it would store every weight, whether that is exact or not.
        openvino.save_model(model, str(path), compress_to_fp16=False)
        return _RUNTIME.sub(b"", path.read_bytes()), path.with_suffix(".bin").read_bytes()
