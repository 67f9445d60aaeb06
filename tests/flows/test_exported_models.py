"""An exported model is a model like any other for every verb that only runs a net, and none for the others."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydicom
import pytest
from exports import OF_64, tiny_export, tiny_graph, tiny_openvino

Pleura = Callable[..., Any]


@pytest.fixture
def onnx(tmp_path: Path) -> Path:
    return tiny_export(tmp_path / "a.onnx", tiny_graph(64), **OF_64)


@pytest.fixture
def radiograph(phantoms: Path) -> Path:
    return min((phantoms / "dicom").glob("*.dcm"))


def test_its_predictions_say_by_which_engine_they_are_and_are_not_mixed(
    pleura: Pleura, onnx: Path, radiograph: Path, tmp_path: Path
):
    words = ("predict", radiograph, "--model", onnx, "--out", tmp_path / "out", "--write", "mask,seg,sr", "--quiet")
    assert pleura(*words).returncode == 0
    header = json.loads((tmp_path / "out" / "journal.jsonl").read_text().splitlines()[0])
    assert header["engine"] == "onnxruntime"
    [seg] = (tmp_path / "out" / "seg").iterdir()
    family = pydicom.dcmread(seg).SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
    assert family.AlgorithmParameters.endswith("; engine: onnxruntime")
    assert pleura(*words).returncode == 0
    done = pleura(*words, "--engine", "openvino")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"pleura: {tmp_path / 'out'}: holds results computed in float32 by onnxruntime, and these would be computed in "
        "float32 by openvino; add --engine onnxruntime, or choose another --out\n"
    )


def test_every_engine_makes_the_same_dicom_object_by_its_uid(
    pleura: Pleura, onnx: Path, radiograph: Path, tmp_path: Path
):
    uids = set()
    for engine in ("onnxruntime", "openvino"):
        out = tmp_path / engine
        done = pleura("predict", radiograph, "--model", onnx, "--out", out, "--write", "seg", "--engine", engine)
        assert done.returncode == 0, done.stderr
        uids |= {str(pydicom.dcmread(path).SOPInstanceUID) for path in (out / "seg").iterdir()}
    assert len(uids) == 1


def test_it_is_evaluated_and_compared(pleura: Pleura, onnx: Path, dataset: Path, tmp_path: Path):
    done = pleura("evaluate", onnx, "--data", dataset, "--resamples", 10, "--out", tmp_path / "report", "--quiet")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert (report["engine"], report["precision"], report["weights_sha256"]) == ("onnxruntime", "float32", ["a" * 64])
    assert report["command"].endswith("--precision float32 --engine onnxruntime --resamples 10")
    other = tiny_openvino(tmp_path / "b.xml", tiny_graph(64), **OF_64)
    done = pleura("compare", onnx, other, "--data", dataset, "--resamples", 10, "--quiet")
    assert done.returncode == 0, done.stderr
    assert "they score the same on every case" in done.stdout


@pytest.mark.parametrize(
    "words",
    [
        ("tune", "MODEL", "--data", "DATA"),
        ("recalibrate", "MODEL", "--data", "DATA", "--out", "b.safetensors"),
        ("pack", "MODEL", "--out", "b.safetensors"),
        ("card", "MODEL"),
        ("train", "smoke", "--data", "DATA", "--weights", "MODEL", "--out", "run"),
    ],
    ids=lambda words: words[0],
)
def test_a_verb_that_changes_a_model_asks_for_the_checkpoint(
    pleura: Pleura, onnx: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
):
    monkeypatch.chdir(tmp_path)
    names = {"MODEL": onnx, "DATA": dataset}
    before = sorted(os.listdir(tmp_path))
    done = pleura(*(names.get(word, word) for word in words), "--quiet")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"pleura: {onnx}: is an exported model, which only runs; name the checkpoint that it was made from\n"
    )
    assert sorted(os.listdir(tmp_path)) == before


def test_it_is_no_teacher(pleura: Pleura, onnx: Path, dataset: Path, tmp_path: Path):
    done = pleura(
        *("train", "smoke", f"stages.0.labels.teacher={onnx}", "--data", dataset, "--out", tmp_path / "run", "--quiet")
    )
    assert done.returncode == 1
    assert "is an exported model, which torch does not run; name the checkpoint" in done.stderr


def test_an_engine_can_be_named_by_the_environment(
    pleura: Pleura, onnx: Path, radiograph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PLEURA_ENGINE", "torch")
    done = pleura("predict", radiograph, "--model", onnx, "--out", tmp_path / "out")
    assert (done.returncode, done.stdout) == (1, "")
    assert "which torch does not run" in done.stderr
