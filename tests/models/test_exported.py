"""What an exported model's file says of it, and what is refused before its graph is built."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import onnx
import pytest
from exports import HEADER, tiny_export, tiny_graph

from pleura.decision.triplet import Triplet
from pleura.errors import CheckpointError
from pleura.models.exported import Exported, is_exported, load_exported
from pleura.models.header import ModelHeader


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_exported(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def changed(path: Path, **texts: str | None) -> Path:
    """The same file with other metadata, by the package of ONNX; None takes one away."""
    model = onnx.load(path)
    metadata: dict[str, Any] = {entry.key: entry.value for entry in model.metadata_props} | texts
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {key: text for key, text in metadata.items() if text is not None})
    path.write_bytes(model.SerializeToString())
    return path


def test_all_that_was_written_comes_back(tmp_path: Path):
    found = load_exported(tiny_export(tmp_path / "a.onnx", triplet=Triplet(0.5, 10, 0.25), tta="flip"))
    wanted = HEADER | {"triplet": Triplet(0.5, 10, 0.25), "tta": "flip"}
    assert {key: getattr(found, key) for key in wanted} == wanted
    assert found.path == tmp_path / "a.onnx"


def test_its_header_is_what_a_checkpoint_has_too(tmp_path: Path):
    header = load_exported(tiny_export(tmp_path / "a.onnx")).header
    assert type(header) is ModelHeader
    assert {field.name for field in fields(Exported)} - {field.name for field in fields(header)} == {
        *("tta", "weights_sha256", "checkpoint_sha256", "certificate", "path")
    }


@pytest.mark.parametrize(("name", "expected"), [("a.onnx", True), ("A.ONNX", True), ("a.safetensors", False)])
def test_an_export_is_known_by_its_name(name: str, expected: bool):
    assert is_exported(Path(name)) == expected


def test_a_missing_file_is_refused(tmp_path: Path):
    assert refusal(tmp_path / "a.onnx").endswith("there is no such model")


def test_a_graph_of_others_is_refused(tmp_path: Path):
    (tmp_path / "a.onnx").write_bytes(tiny_graph())
    assert "is no model that pleura exported" in refusal(tmp_path / "a.onnx")


@pytest.mark.parametrize("size", [0, 3, 100, -1])
def test_a_file_that_is_cut_off_is_refused(tmp_path: Path, size: int):
    path = tiny_export(tmp_path / "a.onnx")
    path.write_bytes(path.read_bytes()[:size])
    refusal(path)


def test_a_graph_with_one_changed_weight_is_refused(tmp_path: Path):
    path = tiny_export(tmp_path / "a.onnx")
    model = onnx.load(path)
    model.graph.initializer[0].raw_data = b"\0\0\0\0"
    path.write_bytes(model.SerializeToString())
    assert "its graph is not the one that its metadata are of" in refusal(path)


def test_metadata_of_another_model_are_refused(tmp_path: Path):
    other = onnx.load(tiny_export(tmp_path / "other.onnx", tiny_graph(64)))
    texts = {entry.key: entry.value for entry in other.metadata_props}
    assert "its graph is not the one" in refusal(changed(tiny_export(tmp_path / "a.onnx"), **texts))


@pytest.mark.parametrize(
    ("key", "text", "says"),
    [
        ("format", "99", "no checkpoint of this version"),
        ("triplet", "[2, 3]", "header triplet"),
        ("preprocessing", None, "it has no preprocessing"),
        ("tta", '"spin"', "tta is none or flip, not 'spin'"),
        ("tta", "none", "metadata tta is none"),
        ("tta", None, "metadata tta is missing"),
        ("weights_sha256", '"abc"', "weights_sha256 is no sha256"),
        ("checkpoint_sha256", "3", "checkpoint_sha256 is no sha256"),
        ("certificate", "[]", "certificate is no mapping"),
    ],
)
def test_a_damaged_text_is_refused_by_its_key(tmp_path: Path, key: str, text: str | None, says: str):
    assert says in refusal(changed(tiny_export(tmp_path / "a.onnx"), **{key: text}))


def test_metadata_hold_the_texts_of_a_checkpoints_header(tmp_path: Path):
    metadata = load_exported(tiny_export(tmp_path / "a.onnx")).metadata()
    assert {key: type(json.loads(text)) for key, text in metadata.items() if key in ("format", "recipe", "tta")} == {
        "format": int,
        "recipe": dict,
        "tta": str,
    }
