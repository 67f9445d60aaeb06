"""The metadata of an ONNX file, as the package of ONNX reads and writes them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import onnx
import pytest
from exports import tiny_graph
from hypothesis import given
from hypothesis import strategies as st

from pleura.models.onnx_file import read_metadata, with_metadata

TEXTS = {"format": "2", "é ☃": '{"a": "ü"}', "empty": "", "long": "x" * 3_000_000}


def test_metadata_are_those_that_onnx_writes(tmp_path: Path):
    model = onnx.load_from_string(tiny_graph())
    onnx.helper.set_model_props(model, TEXTS)
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    assert read_metadata(tmp_path / "a.onnx")[0] == TEXTS


def test_onnx_reads_what_is_written_and_the_graph_is_unchanged():
    written = onnx.load_from_string(with_metadata(tiny_graph(), TEXTS, "sum"))
    assert {entry.key: entry.value for entry in written.metadata_props} == TEXTS | {
        "sum": hashlib.sha256(tiny_graph()).hexdigest()
    }
    assert written.graph == onnx.load_from_string(tiny_graph()).graph


def test_the_sum_is_of_all_but_the_metadata_and_those_of_before_are_gone(tmp_path: Path):
    first = with_metadata(tiny_graph(), {"a": "1", "b": "2"}, "sum")
    second = with_metadata(first, {"a": "3"}, "sum")
    (tmp_path / "a.onnx").write_bytes(second)
    metadata, found = read_metadata(tmp_path / "a.onnx")
    assert metadata == {"a": "3", "sum": found}
    assert found == hashlib.sha256(tiny_graph()).hexdigest()


@pytest.mark.parametrize(
    "content", [b"no model", b"\x89PNG\r\n\x1a\n", b"\xff" * 20, tiny_graph()[:-1], tiny_graph()[:9]]
)
def test_what_is_no_onnx_file_or_is_cut_off_is_refused(tmp_path: Path, content: bytes):
    (tmp_path / "a.onnx").write_bytes(content)
    with pytest.raises(ValueError, match=r"no ONNX file|cut off"):
        read_metadata(tmp_path / "a.onnx")


@given(content=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes):
    path = tmp_path_factory.getbasetemp() / "any.onnx"
    path.write_bytes(content)
    try:
        metadata, _ = read_metadata(path)
    except ValueError:
        return
    assert all(isinstance(text, str) for text in metadata.values())
