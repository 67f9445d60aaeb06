"""Tiny exported models: a graph of a few nodes, with the metadata of a checkpoint's header."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from pleura.config.model import ModelConfig
from pleura.decision.triplet import Triplet
from pleura.inference.engines.telemetry import import_openvino
from pleura.models.exported import Exported, onnx_of, openvino_of
from pleura.models.preprocessing import Preprocessing

SIDE_PX, STEEP = 32, 8.0
OF_64 = {"preprocessing": Preprocessing(64, 64, 1, 0.0, 1.0, "area")}
"""For the dataset of the tests, with `tiny_graph(64)`."""
HEADER: dict[str, Any] = {
    "model": ModelConfig(encoder="test_resnet", pretrained=False),
    "preprocessing": Preprocessing(SIDE_PX, SIDE_PX, 1, 0.0, 1.0, "area"),
    "triplet": Triplet(0.75, 0, 0.5),
    "recipe": {"name": "tiny"},
    "tta": "none",
    "weights_sha256": "a" * 64,
    "checkpoint_sha256": "b" * 64,
    "certificate": {"holds": True},
}


def expected(squares: np.ndarray) -> np.ndarray:
    """What the graph gives: the sigmoid of the image, stretched around a half."""
    return 1 / (1 + np.exp(-STEEP * (squares / np.float32(255) - 0.5))).astype(np.float32)


def tiny_graph(side_px: int | str = SIDE_PX, gives: str = "probabilities", kind: int = TensorProto.UINT8) -> bytes:
    """The bytes of an ONNX file without metadata."""
    numbers = {"scale": STEEP / 255, "shift": STEEP / 2}
    nodes = [
        helper.make_node("Cast", ["squares"], ["grey"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["grey", "scale"], ["scaled"]),
        helper.make_node("Sub", ["scaled", "shift"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], [gives]),
    ]
    shape = ["n", side_px, side_px]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("squares", kind, shape)],
        [helper.make_tensor_value_info(gives, TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.float32(value), name) for name, value in numbers.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content: bytes = model.SerializeToString()
    return content


def tiny_openvino(path: Path, graph: bytes | None = None, **changes: Any) -> Path:
    """Write an exported model of OpenVINO, an .xml with its .bin. graph: an ONNX file without metadata."""
    raw = path.with_suffix(".raw.onnx")
    raw.write_bytes(graph or tiny_graph())
    openvino = import_openvino()
    openvino.save_model(openvino.Core().read_model(str(raw)), str(path), compress_to_fp16=False)
    raw.unlink()
    weights = path.with_suffix(".bin").read_bytes()
    path.write_bytes(openvino_of(path.read_bytes(), weights, Exported(path=path, **{**HEADER, **changes})))
    return path


def tiny_export(path: Path, graph: bytes | None = None, **changes: Any) -> Path:
    """Write an exported model. changes: of `HEADER`."""
    path.write_bytes(onnx_of(graph or tiny_graph(), Exported(path=path, **{**HEADER, **changes})))
    return path
