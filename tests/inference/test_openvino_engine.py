"""An exported model by OpenVINO: what it gives, in which precision, and that nothing is sent."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exports import SIDE_PX, expected, tiny_export, tiny_graph, tiny_openvino

from pleura.errors import CheckpointError, InputError
from pleura.inference.engines.openvino import OpenVinoEngine, compiled_with
from pleura.inference.engines.telemetry import import_openvino
from pleura.inference.predictor import Predictor
from pleura.models.exported import load_exported

SQUARES = np.random.default_rng(0).integers(0, 256, (3, SIDE_PX, SIDE_PX), dtype=np.uint8)


@pytest.mark.parametrize("write", [tiny_export, tiny_openvino])
def test_probabilities_are_those_of_the_graph(tmp_path: Path, write: Any):
    path = write(tmp_path / ("a.onnx" if write is tiny_export else "a.xml"))
    made = OpenVinoEngine(load_exported(path))
    found = made.probabilities(SQUARES)
    assert (found.dtype, found.shape) == (np.float32, SQUARES.shape)
    np.testing.assert_allclose(found, expected(SQUARES), atol=1e-6)
    np.testing.assert_allclose(made.in_one_pass(SQUARES), found, atol=1e-6)
    assert made.probabilities(SQUARES[:0]).shape == (0, SIDE_PX, SIDE_PX)
    assert (made.name, made.device, made.precision.name, made.tta) == ("openvino", "cpu", "float32", "none")


def test_it_computes_in_float32_where_nothing_else_is_asked_for(tmp_path: Path):
    openvino = import_openvino()
    model = openvino.Core().read_model(str(tiny_export(tmp_path / "a.onnx")))
    compiled = openvino.Core().compile_model(model, "CPU", compiled_with("float32"))
    assert compiled.get_property("INFERENCE_PRECISION_HINT") == openvino.Type.f32


@pytest.mark.parametrize("there", [True, False])
def test_bfloat16_is_for_cpus_that_have_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool):
    core = import_openvino().Core
    asked = core.get_property
    units = ["FP32", *(["BF16"] if there else [])]
    monkeypatch.setattr(
        core, "get_property", lambda self, *what: units if "OPTIMIZATION_CAPABILITIES" in what else asked(self, *what)
    )
    path = tiny_export(tmp_path / "a.onnx")
    if not there:
        with pytest.raises(InputError, match=r"precision bfloat16: this CPU has none in OpenVINO; take float32"):
            Predictor.load(path, engine="openvino", precision="bfloat16")
    else:
        assert Predictor.load(path, engine="openvino", precision="bfloat16").precision == "bfloat16"


def test_another_graph_than_the_metadata_say_is_refused(tmp_path: Path):
    path = tiny_openvino(tmp_path / "a.xml", tiny_graph(64))
    with pytest.raises(CheckpointError) as caught:
        Predictor.load(path)
    assert "squares uint8 (?, 64, 64) where its metadata ask for squares uint8 (N, 32, 32)" in str(caught.value)


def test_a_graph_that_cannot_be_built_is_refused_in_one_line(tmp_path: Path):
    graph = tiny_graph().replace(b"Sigmoid", b"Sigmoin")
    with pytest.raises(CheckpointError, match=r"a\.onnx: OpenVINO \S+ cannot build its graph \(.+\); copy it again"):
        OpenVinoEngine(load_exported(tiny_export(tmp_path / "a.onnx", graph)))


def test_weights_that_are_missing_cut_off_or_changed_are_refused(tmp_path: Path):
    path = tiny_openvino(tmp_path / "a.xml")
    weights = path.with_suffix(".bin")
    content = weights.read_bytes()
    for damaged in (content[:-1], content[:-1] + b"\xff"):
        weights.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="its graph is not the one that its metadata are of"):
            Predictor.load(path)
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"a\.xml: lacks a\.bin beside it"):
        Predictor.load(path)


def test_onnxruntime_does_not_run_its_files(tmp_path: Path):
    path = tiny_openvino(tmp_path / "a.xml")
    assert Predictor.load(path).engine == "openvino"
    with pytest.raises(CheckpointError, match=r"onnxruntime runs ONNX files; take --engine openvino"):
        Predictor.load(path, engine="onnxruntime")


ASKS_THE_NETWORK = """
import sys
def refuse(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
        print(event, args)
sys.addaudithook(refuse)
from pathlib import Path
import numpy as np
from pleura.inference.predictor import Predictor
predictor = Predictor.load(Path(sys.argv[1]), engine="openvino")
predictor.probabilities(np.zeros((1, predictor.prepared_px, predictor.prepared_px), np.uint8))
import openvino
openvino.convert_model(sys.argv[1])
assert "openvino" in sys.modules and not any(name.startswith("openvino_telemetry.") for name in sys.modules)
"""


def test_nothing_is_sent_and_nothing_is_written_into_the_users_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    home = tmp_path / "home"
    home.mkdir()
    for name in ("CI", "TF_BUILD", "JENKINS_URL"):  # with which OpenVINO sends nothing by itself
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    path = tiny_export(tmp_path / "a.onnx")
    done = subprocess.run([sys.executable, "-c", ASKS_THE_NETWORK, path], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(home.rglob("*")) == []
