"""An exported model by ONNX Runtime: what it gives, and graphs that are not what their metadata say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from exports import SIDE_PX, expected, tiny_export, tiny_graph
from onnx import TensorProto

from pleura.errors import CheckpointError
from pleura.inference import cpu
from pleura.inference.cpu import threads
from pleura.inference.engines.onnxruntime import OnnxEngine, session_options
from pleura.inference.predictor import Predictor
from pleura.models.exported import load_exported


def squares(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, SIDE_PX, SIDE_PX), dtype=np.uint8)


def engine(path: Path) -> OnnxEngine:
    return OnnxEngine(load_exported(path))


def test_probabilities_are_those_of_the_graph(tmp_path: Path):
    made = engine(tiny_export(tmp_path / "a.onnx"))
    found = made.probabilities(squares(3))
    assert (found.dtype, found.shape) == (np.float32, (3, SIDE_PX, SIDE_PX))
    np.testing.assert_allclose(found, expected(squares(3)), atol=1e-6)
    assert made.probabilities(squares(0)).shape == (0, SIDE_PX, SIDE_PX)
    assert (made.name, made.device, made.precision.name, made.size_px) == ("onnxruntime", "cpu", "float32", SIDE_PX)


def test_a_graph_whose_sides_are_open_runs_too(tmp_path: Path):
    found = engine(tiny_export(tmp_path / "a.onnx", tiny_graph("side"))).probabilities(squares(1))
    np.testing.assert_allclose(found, expected(squares(1)), atol=1e-6)


@pytest.mark.parametrize(
    ("graph", "says"),
    [
        (
            tiny_graph(64),
            "squares uint8 (n, 64, 64) where its metadata ask for squares uint8 (N, 32, 32)",
        ),
        (tiny_graph(gives="mask"), "has mask float32"),
        (tiny_graph(kind=TensorProto.FLOAT), "has squares float32"),
    ],
)
def test_another_input_or_output_is_refused(tmp_path: Path, graph: bytes, says: str):
    with pytest.raises(CheckpointError) as caught:
        engine(tiny_export(tmp_path / "a.onnx", graph))
    assert says in str(caught.value)


def test_a_graph_that_cannot_be_built_is_refused_in_one_line(tmp_path: Path):
    graph = tiny_graph().replace(b"Sigmoid", b"Sigmoin")
    with pytest.raises(CheckpointError, match=r"a\.onnx: ONNX Runtime \S+ cannot build its graph \(.+\); copy"):
        engine(tiny_export(tmp_path / "a.onnx", graph))


def test_a_size_that_the_graph_does_not_give_is_refused(tmp_path: Path):
    made = engine(tiny_export(tmp_path / "a.onnx", tiny_graph("side")))
    with pytest.raises(CheckpointError, match=r"gives \(1, 16, 16\), not \(1, 32, 32\)"):
        made.probabilities(squares(1)[:, :16, :16])


def test_an_exported_model_predicts_by_its_own_rule(tmp_path: Path):
    predictor = Predictor.load(tiny_export(tmp_path / "a.onnx"))
    assert repr(predictor) == "Predictor(unet test_resnet, 32 px, tta='none', onnxruntime, cpu, float32)"
    image = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
    image[8:16, 8:16] = 255
    found = predictor.predict(image)
    assert found.is_positive
    assert found.predicted_mask[8:16, 8:16].all()
    assert found.area_px == 64
    assert predictor.weights_sha256 == ("a" * 64,)


def test_it_takes_as_many_threads_as_the_process_may_use(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    monkeypatch.setattr(cpu, "QUOTAS", ())
    for given, wanted in (("", 3), ("2", 2), ("99", 3), ("0", 3), ("many", 3)):
        monkeypatch.setenv("OMP_NUM_THREADS", given)
        assert threads() == session_options().intra_op_num_threads == wanted


@pytest.mark.parametrize(
    ("contents", "wanted"),
    [
        ([["max 100000\n"]], 8),
        ([["250000 100000\n"]], 3),
        ([["50000 100000\n"]], 1),
        ([["-1\n", "100000\n"]], 8),
        ([["200000\n", "100000\n"]], 2),
        ([["nonsense"], ["400000", "100000"]], 4),
        ([[""]], 8),
    ],
)
def test_a_container_with_a_share_of_the_processor_takes_no_more_threads(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, contents: list[list[str]], wanted: int
):
    files = [[tmp_path / f"{place}-{number}" for number in range(len(texts))] for place, texts in enumerate(contents)]
    for paths, texts in zip(files, contents, strict=True):
        for path, text in zip(paths, texts, strict=True):
            path.write_text(text)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(cpu, "QUOTAS", files)
    assert threads() == wanted
    monkeypatch.setattr(cpu, "QUOTAS", [[tmp_path / "nowhere"]])
    assert threads() == 8
