"""An ONNX graph in int8 for ONNX Runtime: QuantizeLinear and DequantizeLinear around the layers that bear it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from pleura.errors import CheckpointError, excerpt
from pleura.export.float_layers import Likeness, Quantised, Run, choose_float_layers, gain_of
from pleura.export.onnx import as_stored, in_silence
from pleura.inference.engines.onnxruntime import REFUSALS, session_options
from pleura.models.exported import INPUT, OUTPUT

WITH_WEIGHTS, BETWEEN = ("Conv",), ("Add", "Concat", "MaxPool", "AveragePool")
CLIPPED = ("Relu", "Clip")
"""Taken into the range of the layer before."""
FAILURES: tuple[type[Exception], ...] = (*REFUSALS, OSError, LookupError, TypeError)
"""What ONNX Runtime, and its quantisation in Python, raise on a graph that they cannot follow."""


def quantised(graph: bytes, like: Likeness, what: str) -> Quantised:
    """Return a graph with int8 layers, calibrated on the images of `like`. what: it is, for a refusal.

    Raises: CheckpointError if ONNX Runtime cannot do it, or no layer bears it.
    """
    with TemporaryDirectory(prefix="pleura-") as folder:
        try:
            maker = Maker(Path(folder), graph, like.squares)
            floats = choose_float_layers(maker.layers, lambda layers: _run_of(maker.made(layers)), like, what)
            made = as_stored(onnx.load_from_string(maker.made(floats)))
            gain = gain_of(_run_of(graph), _run_of(made), like.squares)
        except FAILURES as error:
            raise CheckpointError(f"{what} cannot be made int8 ({excerpt(error)}); leave out --int8") from error
    return Quantised((made,), tuple(one for one in maker.layers if one not in floats), floats, gain)


class Maker:
    """One graph, and the ranges of its numbers, as many times as layers are tried."""

    def __init__(self, folder: Path, graph: bytes, squares: NDArray[np.uint8]) -> None:
        """folder: to work in. squares: (n, S, S), to calibrate on."""
        self.folder, self.squares, self.float_graph = folder, squares, folder / "float.onnx"
        _fold(graph, self.float_graph)
        self.nodes = list(onnx.load(self.float_graph).graph.node)
        self.layers = _layers(self.nodes)

    def made(self, floats: Collection[str]) -> bytes:
        """Return the graph in which all layers but these are int8."""
        kinds = (*WITH_WEIGHTS, *BETWEEN, *CLIPPED)
        int8 = set(self.layers) - set(floats)
        kept = [node.name for node in self.nodes if node.op_type in (*WITH_WEIGHTS, *BETWEEN) and node.name not in int8]
        out = self.folder / "int8.onnx"
        with in_silence():
            quantize_static(
                self.float_graph,
                out,
                _Squares(self.squares),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(kinds),
                nodes_to_exclude=kept,
                per_channel=True,
                reduce_range=True,  # see export/float_layers.py
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibration_cache_path=self.folder / "ranges.json",
            )
        return out.read_bytes()


class _Squares(CalibrationDataReader):  # type: ignore[misc]
    """Gives the calibration images one by one."""

    def __init__(self, squares: NDArray[np.uint8]) -> None:
        self._inputs: Iterator[dict[str, Any]] = ({INPUT: square[None]} for square in squares)

    def get_next(self) -> dict[str, Any] | None:
        return next(self._inputs, None)


def _fold(graph: bytes, out: Path) -> None:
    """Write a graph with BatchNorms folded and constants computed, of ONNX's own operators alone."""
    options = session_options()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(out)
    onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _layers(nodes: Sequence[onnx.NodeProto]) -> list[str]:
    """The layers that can be int8, by name: convolutions, and what lies between two of them.

    What prepares an image, and what makes probabilities of logits, is little work and stays exact.
    """
    after: set[str] = set()
    for node in nodes:  # in the order that they run
        if node.op_type in WITH_WEIGHTS or after.intersection(node.input):
            after.update(node.output)
    before: set[str] = set()
    for node in reversed(nodes):
        if node.op_type in WITH_WEIGHTS or before.intersection(node.output):
            before.update(node.input)
    return [
        node.name
        for node in nodes
        if node.op_type in WITH_WEIGHTS
        or (node.op_type in BETWEEN and after.intersection(node.input) and before.intersection(node.output))
    ]


def _run_of(graph: bytes) -> Run:
    session = onnxruntime.InferenceSession(graph, session_options(), providers=["CPUExecutionProvider"])

    def run(squares: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.concatenate([session.run([OUTPUT], {INPUT: square[None]})[0] for square in squares])

    return run
