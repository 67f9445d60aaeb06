"""A checkpoint as an ONNX file: the same numbers at any batch size, small, equal bytes, and nothing of this machine."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from checkpoints import PREPARED_PX, SIZE_PX, tiny_checkpoint
from onnx import numpy_helper
from places import ROOT
from torch import Tensor, nn

from pleura.errors import CheckpointError
from pleura.export.onnx import Graph, bytes_of, graph_of
from pleura.inference.engines.torch import TorchEngine
from pleura.inference.predictor import Predictor
from pleura.models.checkpoint import net_of
from pleura.models.exported import load_exported
from pleura.models.identity import weights_hash


def squares(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, PREPARED_PX, PREPARED_PX), dtype=np.uint8)


def test_it_gives_what_pytorch_gives_however_many_images_there_are(made):
    exact = TorchEngine(made.checkpoint, "flip", "cpu", "float32").probabilities(squares(7))
    session = onnxruntime.InferenceSession(made.export.files[0], providers=["CPUExecutionProvider"])
    for count in (1, 2, 7):
        (found,) = session.run(["probabilities"], {"squares": squares(count)})
        assert (found.dtype, found.shape) == (np.float32, (count, SIZE_PX, SIZE_PX))
        np.testing.assert_allclose(found, exact[:count], rtol=0, atol=2e-6)
    assert exact.std() > 0.05


def test_a_predictor_of_the_file_is_that_of_the_checkpoint(made):
    ours, theirs = Predictor.load(made.export.source, device="cpu"), Predictor.load(made.export.files[0])
    assert (theirs.engine, theirs.tta, ours.tta) == ("onnxruntime", "flip", "flip")
    assert theirs.triplet == ours.triplet
    assert theirs.weights_sha256 == ours.weights_sha256
    np.testing.assert_allclose(theirs.probabilities(squares(2)), ours.probabilities(squares(2)), rtol=0, atol=2e-6)


def test_the_file_says_all_that_the_checkpoint_says(made):
    exported = load_exported(made.export.files[0])
    assert exported.header == made.checkpoint.header
    assert (exported.tta, exported.weights_sha256) == ("flip", weights_hash(made.checkpoint.weights))
    assert exported.seen.val
    assert exported.certificate["holds"] is True


def test_weights_of_float16_are_stored_in_it_and_nothing_else_is():
    weights = dict(tiny_checkpoint().weights)
    key = next(key for key, tensor in weights.items() if tensor.numel() > 2000)
    weights[key] = weights[key].float() * 1.0001
    model = onnx.load_from_string(graph_of(tiny_checkpoint(weights=weights), "none", "tiny"))
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    casts = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "Cast"}
    found = {}
    for name, tensor in weights.items():
        there = f"net.{name}"
        numbers = stored[casts[there]] if there in casts else stored.get(there)
        if numbers is not None and tensor.ndim >= 2:
            np.testing.assert_array_equal(numbers.astype(np.float32), tensor.float().numpy(), err_msg=name)
            found[name] = numbers.dtype
    assert found[key] == np.float32
    assert {kind for name, kind in found.items() if name != key and weights[name].numel() >= 256} == {np.dtype("f2")}


def test_equal_checkpoints_give_equal_bytes_without_a_word_of_this_machine(made):
    again = graph_of(made.checkpoint, "flip", "tiny")
    content = made.export.files[0].read_bytes()
    assert content.startswith(again)  # what follows are the metadata
    assert load_exported(made.export.files[0]).path == made.export.files[0]
    for word in (str(ROOT), "site-packages", sys.prefix, torch.__version__, ".py", "stack_trace", "Graph"):
        assert word.encode() not in again, word


class Undecided(nn.Module):
    """A module whose way depends on what it is shown, which no graph can hold."""

    def forward(self, images: Tensor) -> Tensor:
        return images.float() if images.sum() > 0 else -images.float()


def test_a_net_that_cannot_be_exported_is_refused_in_one_line(capfd):
    with pytest.raises(
        CheckpointError, match=r"^run: its net \(odd\) cannot be exported to ONNX .*PyTorch$"
    ) as refused:
        bytes_of(Undecided(), 8, "run: its net (odd)")
    assert "\n" not in str(refused.value)
    assert capfd.readouterr() == ("", "")


def test_a_graph_is_what_infer_does_and_no_copy_of_it(made):
    graph = Graph(net_of(made.checkpoint).eval(), replace(made.checkpoint.preprocessing, mean=0.1), flip=False)
    exact = TorchEngine(
        replace(made.checkpoint, preprocessing=graph.preprocessing), "none", "cpu", "float32"
    ).probabilities(squares(1))
    np.testing.assert_allclose(graph(torch.from_numpy(squares(1))).numpy(), exact, rtol=0, atol=2e-6)
