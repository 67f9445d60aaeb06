"""Exported models: a graph that an engine runs, with the header of the checkpoint that it was exported from.

The graph takes `squares` (N, S, S) uint8, S = prepared_px, and gives `probabilities` (N, size_px, size_px) float32 in
[0, 1]: resizing, normalisation, mirrored view, presence rule and sigmoid are inside. Its metadata are the texts of a
checkpoint's header (models/header.py) and of what `Exported` adds. `graph_sha256` among them is of all the rest of the
file: a damaged graph, or the metadata of another model, is noticed before anything is predicted. The file is ONNX's, or
OpenVINO's .xml with the .bin beside it.
"""

from __future__ import annotations

import json
import platform
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pleura.errors import CheckpointError, excerpt
from pleura.models import onnx_file, openvino_file
from pleura.models.header import KEYS, ModelHeader, dump, parse

INPUT, OUTPUT = "squares", "probabilities"
READERS = {".onnx": onnx_file.read_metadata, ".xml": openvino_file.read_metadata}
"""Suffix of a file -> what reads its metadata, and the sha256 of the rest."""
GRAPH_SHA256, ADDED = "graph_sha256", ("tta", "weights_sha256", "checkpoint_sha256", "certificate")
WAY_OUT = "copy it again, or export it anew"


@dataclass(frozen=True)
class Exported(ModelHeader):
    """What the file of an exported model says of it."""

    tta: str = field(kw_only=True)
    """`none` or `flip`: what the graph does."""
    weights_sha256: str = field(kw_only=True)
    """Of the checkpoint's weights, as `weights_hash` names them."""
    checkpoint_sha256: str = field(kw_only=True)
    """Of the checkpoint's file."""
    certificate: dict[str, Any] | None = field(kw_only=True)
    """How the export was compared with its checkpoint."""
    path: Path = field(kw_only=True)

    @property
    def precision(self) -> str:
        """What the graph computes in: `float32`, or `int8` with the rest in float32."""
        return "int8" if (self.certificate or {}).get("precision") == "int8" else "float32"

    def doubt(self, engine: str, precision: str) -> str:
        """Return why results by an engine, in a precision, may not be the checkpoint's; empty where it is certified."""
        certificate = self.certificate
        if certificate is None:
            return "the exported model has no certificate: nobody has compared it with its checkpoint"
        if certificate.get("holds") is not True:
            given = certificate.get("reasons")
            reasons = "; ".join(map(str, given)) if isinstance(given, list) and given else "it does not say why"
            return f"the exported model differs from its checkpoint, and was accepted all the same: {reasons}"
        of = (certificate.get("engine", engine), certificate.get("precision", precision))
        if of != (engine, precision):
            return f"the exported model was certified on {of[0]} in {of[1]}, and runs on {engine} in {precision}"
        int8, here = certificate.get("int8"), platform.machine()
        certified = int8.get("machine", here) if isinstance(int8, dict) else here
        if certified != here:
            return f"the exported model was certified in int8 on {certified}, and runs on {here}"
        return ""

    def metadata(self) -> dict[str, str]:
        """Return all but the path as the texts that the file has."""
        added = {key: json.dumps(getattr(self, key)) for key in ADDED}
        return dump({key: getattr(self, key) for key in ("model", *KEYS)}) | added


def is_exported(path: Path) -> bool:
    """Whether a path is named as an exported model is."""
    return path.suffix.lower() in READERS


def onnx_of(graph: bytes, exported: Exported) -> bytes:
    """Return an ONNX file's bytes with the metadata of an exported model, and no others.

    Raises: ValueError if `graph` are no ONNX file's bytes.
    """
    return onnx_file.with_metadata(graph, exported.metadata(), GRAPH_SHA256)


def openvino_of(graph: bytes, weights: bytes, exported: Exported) -> bytes:
    """Return an .xml of OpenVINO with the metadata of an exported model.

    graph, weights: the bytes of an .xml and of its .bin, which stays as it is.
    Raises: ValueError if `graph` is no graph of OpenVINO.
    """
    return openvino_file.with_metadata(graph, weights, exported.metadata(), GRAPH_SHA256)


def load_exported(path: Path) -> Exported:
    """Read what an exported model says of itself; the graph is compared with its sum, and is not built.

    Raises: CheckpointError if it is missing, damaged, no export of pleura, or has the metadata of another graph.
    """
    try:
        metadata, graph_sha256 = READERS[path.suffix.lower()](path)
    except FileNotFoundError as error:
        missing = Path(error.filename)
        raise CheckpointError(
            f"{path}: there is no such model"
            if missing == path
            else f"{path}: lacks {missing.name} beside it; {WAY_OUT}"
        ) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or excerpt(error)
        raise CheckpointError(f"{path}: cannot be read as an exported model ({reason}); {WAY_OUT}") from error
    if GRAPH_SHA256 not in metadata:
        raise CheckpointError(
            f"{path}: is no model that pleura exported, its metadata say nothing of how images are prepared and "
            "decided on; export a checkpoint of pleura"
        )
    if metadata[GRAPH_SHA256] != graph_sha256:
        raise CheckpointError(
            f"{path}: its graph is not the one that its metadata are of, it is damaged or was changed; {WAY_OUT}"
        )
    return Exported(path=path, **parse(metadata, path), **_added(metadata, path))


def _added(metadata: dict[str, str], path: Path) -> dict[str, Any]:
    """Read what an exported model has besides a checkpoint's header."""
    values: dict[str, Any] = {}
    for key in ADDED:
        try:
            values[key] = json.loads(metadata[key])
        except (KeyError, ValueError, RecursionError) as error:
            text = excerpt(metadata.get(key, ""))
            raise CheckpointError(f"{path}: metadata {key} is {text or 'missing'}; {WAY_OUT}") from error
    if values["tta"] not in ("none", "flip"):
        raise CheckpointError(f"{path}: metadata tta is none or flip, not {values['tta']!r:.40}; {WAY_OUT}")
    for key in ("weights_sha256", "checkpoint_sha256"):
        if not isinstance(values[key], str) or not re.fullmatch("[0-9a-f]{64}", values[key]):
            raise CheckpointError(f"{path}: metadata {key} is no sha256, but {values[key]!r:.40}; {WAY_OUT}")
    if not isinstance(values["certificate"], dict | None):
        raise CheckpointError(f"{path}: metadata certificate is no mapping; {WAY_OUT}")
    return values
