"""A checkpoint as an ONNX graph: grey squares in, probabilities out, computed by `infer` and nothing else.

The graph holds the net as it was trained, BatchNorms unfolded: engines fold them when they load it, as fast. Weights
that float16 holds exactly, as those of `pleura pack`, are stored in it and cast back: half the bytes, equal numbers.
Nothing of the machine, of the day or of the versions that it was made with is in it: equal input gives equal bytes.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from onnx_ir import Model, passes
from onnx_ir.passes import common
from onnxscript import optimizer
from torch import Tensor, nn

from pleura.errors import CheckpointError, excerpt
from pleura.inference.engines.torch import infer
from pleura.models.checkpoint import Checkpoint, net_of
from pleura.models.exported import INPUT, OUTPUT
from pleura.models.net import Net
from pleura.models.preprocessing import Preprocessing, normalise
from pleura.models.resize import resize_images

OPSET = 20
MOST_IMAGES = 4096
"""In one batch, for the exporter's arithmetic with sizes."""
LEAST_NUMBERS = 256
"""Of a tensor that is stored in float16: with fewer a node takes more than it saves."""
FAILURES = (ArithmeticError, AttributeError, LookupError, NotImplementedError, RuntimeError, TypeError, ValueError)
"""What the exporter, written in Python from end to end, raises on a net that it cannot follow."""


class Graph(nn.Module):
    """(N, S, S) uint8 -> (N, size_px, size_px) float32 in [0, 1]: what `infer` computes with a net, as a module."""

    def __init__(self, net: Net, preprocessing: Preprocessing, flip: bool) -> None:
        super().__init__()
        self.net, self.preprocessing, self.flip = net, preprocessing, flip

    def forward(self, squares: Tensor) -> Tensor:
        """See the class."""
        if not self.flip:
            found: Tensor = infer(self.net, squares[:, None], self.preprocessing)
            return found
        # Both views in one pass: as two copies of the net, as `infer` has them, an engine computes them side by side,
        # in 60 MB more for the default model, and builds each.
        images = resize_images(squares[:, None], self.preprocessing.size_px, self.preprocessing.reduction)
        inputs = normalise(images, self.preprocessing)
        views: Tensor = self.net.probabilities(torch.cat([inputs, inputs.flip(-1)]))[:, 0]
        count = squares.shape[0]
        return (views[:count] + views[count:].flip(-1)) / 2


def graph_of(checkpoint: Checkpoint, tta: str, origin: Path | str) -> bytes:
    """Return the bytes of an ONNX file, without metadata, that computes what a checkpoint does.

    tta: `none`, or `flip` for the mean with the mirrored image. Input `squares` (N, S, S) uint8, S = prepared_px, and
    output `probabilities` (N, size_px, size_px) float32, for any N. origin: the checkpoint's file, for a refusal.
    Raises: CheckpointError if its net cannot be exported.
    """
    graph = Graph(net_of(checkpoint).eval(), checkpoint.preprocessing, tta == "flip").eval()
    return bytes_of(graph, checkpoint.preprocessing.prepared_px, f"{origin}: its net ({checkpoint.model.encoder})")


def bytes_of(graph: nn.Module, prepared_px: int, what: str) -> bytes:
    """Return a module on squares (N, prepared_px, prepared_px) uint8 as an ONNX file. what: it is, for a refusal.

    Raises: CheckpointError if it cannot be exported.
    """
    squares = torch.zeros((2, prepared_px, prepared_px), dtype=torch.uint8)
    try:
        with in_silence():
            graph(squares)  # tensors that are made once and kept, as of `area_mean`, are real ones then
            program = torch.onnx.export(
                graph,
                (squares,),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("n", min=1, max=MOST_IMAGES)},),
                input_names=[INPUT],
                output_names=[OUTPUT],
                opset_version=OPSET,
                external_data=False,
                verbose=False,
                optimize=False,  # it would fold BatchNorms, in nets without a mirrored view alone
            )
            if program is None:
                raise RuntimeError("the exporter gives nothing")
            _tidy(program.model)
            return as_stored(program.model_proto)
    except FAILURES as error:
        raise CheckpointError(
            f"{what} cannot be exported to ONNX ({excerpt(_first(error))}); run the checkpoint itself, with PyTorch"
        ) from error


def _first(error: BaseException) -> str:
    """The first line of what went wrong at first; what follows it is advice for those who write exporters."""
    while error.__cause__ is not None:
        error = error.__cause__
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _tidy(model: Model) -> None:
    """Fold what is constant, sizes and casts, and drop what is not used. Weights stay as they are."""
    optimizer.inline(model)
    optimizer.fold_constants(model)
    passes.Sequential(
        common.RemoveUnusedNodesPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
        common.NameFixPass(),
    )(model)


def as_stored(model: onnx.ModelProto) -> bytes:
    """The bytes of a file: without what the exporter says of its own source and this machine's, weights made small."""
    model.producer_name, model.producer_version, model.doc_string = "pleura", "", ""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    graph.ClearField("value_info")
    _halve(graph)
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _halve(graph: onnx.GraphProto) -> None:
    """Store weights in float16 where it holds them exactly, with a node that casts them back."""
    casts = []
    for tensor in graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or np.prod(tensor.dims) < LEAST_NUMBERS:
            continue
        numbers = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):  # what is too large becomes infinite, and is not equal
            half = numbers.astype(np.float16)
        if not np.array_equal(half.astype(np.float32), numbers):
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(half, f"{name}.float16"))
        casts.append(helper.make_node("Cast", [tensor.name], [name], f"cast {name}", to=onnx.TensorProto.FLOAT))
    rest = list(graph.node)
    graph.ClearField("node")
    graph.node.extend([*casts, *rest])


@contextmanager
def in_silence() -> Iterator[None]:
    """Let the exporter say nothing: it warns of its own future and prints the nets that it gives up on."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    nowhere = io.StringIO()
    try:
        with warnings.catch_warnings(), redirect_stdout(nowhere), redirect_stderr(nowhere):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
