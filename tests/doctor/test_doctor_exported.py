"""An exported model: what it is, whether it runs here, and whether it may stand for its checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
from exports import OF_64, tiny_export, tiny_graph, tiny_openvino

from pleura.decision.triplet import Triplet
from pleura.doctor import Against, examine
from pleura.errors import CheckpointError
from pleura.models.preprocessing import Preprocessing


def findings(path: Path, against: Against | None = None) -> list[str]:
    return [f"{each.severity}: {each.what}" for each in examine(path, against).findings]


@pytest.mark.parametrize(("write", "engine"), [(tiny_export, "onnxruntime"), (tiny_openvino, "openvino")])
def test_it_is_named_with_the_engine_that_runs_it(tmp_path: Path, write, engine: str):
    found = examine(write(tmp_path / f"a{'.onnx' if write is tiny_export else '.xml'}"))
    assert (found.kind, found.failed) == ("an exported model of pleura", False)
    assert found.facts[0] == "unet with test_resnet, tta none"
    assert found.facts[1].startswith(f"here it is run by {engine} in float32")
    assert "its certificate says that it computes what its checkpoint does" in found.facts


def test_one_that_is_not_certified_is_a_warning(tmp_path: Path):
    said = findings(tiny_export(tmp_path / "a.onnx", certificate=None))
    assert "warning: the exported model has no certificate: nobody has compared it with its checkpoint" in said


def test_a_rule_that_finds_nothing_and_a_wrong_scaling_are_errors(tmp_path: Path):
    wrong = {"triplet": Triplet(1.0, 2_000_000, 1.0), "preprocessing": Preprocessing(32, 32, 1, 114.0, 57.0)}
    said = " ".join(findings(tiny_export(tmp_path / "a.onnx", **wrong)))
    assert "error: its triplet finds nothing on any image" in said
    assert "error: preprocessing has mean 114 and std 57" in said


def test_with_a_dataset_it_is_run(tmp_path: Path, dataset: Path):
    path = tiny_export(tmp_path / "a.onnx", tiny_graph(64), **OF_64)
    facts = examine(path, Against(data=dataset)).facts
    assert any(fact.startswith("of the dataset's") for fact in facts)
    assert any(fact.startswith("run on ") for fact in facts)
    assert not any("does nothing" in each for each in findings(path, Against(data=dataset)))


def test_a_graph_of_others_is_refused(tmp_path: Path):
    (tmp_path / "a.onnx").write_bytes(tiny_graph())
    with pytest.raises(CheckpointError, match="is no model that pleura exported"):
        examine(tmp_path / "a.onnx")
