"""The metadata of OpenVINO's .xml, as OpenVINO reads them."""

from __future__ import annotations

from pathlib import Path

import pytest
from exports import tiny_openvino

from pleura.inference.engines.telemetry import import_openvino
from pleura.models.openvino_file import read_metadata, with_metadata

TEXTS = {"format": "2", "empty": "", "quotes": "\"é ☃\" 'a' <b> & c\n\td", "long": "x" * 100_000}


def test_openvino_reads_the_metadata_that_are_written(tmp_path: Path):
    path = tiny_openvino(tmp_path / "a.xml")
    path.write_bytes(with_metadata(path.read_bytes(), path.with_suffix(".bin").read_bytes(), TEXTS, "sum"))
    model = import_openvino().Core().read_model(str(path))
    assert {key: model.get_rt_info(["pleura", key]).value for key in TEXTS} == TEXTS


def test_what_was_written_comes_back_and_the_sum_is_of_the_rest(tmp_path: Path):
    path = tiny_openvino(tmp_path / "a.xml")
    before = read_metadata(path)[1]
    weights = path.with_suffix(".bin").read_bytes()
    path.write_bytes(with_metadata(path.read_bytes(), weights, TEXTS, "sum"))
    assert read_metadata(path) == (TEXTS | {"sum": before}, before)
    path.with_suffix(".bin").write_bytes(weights[:-1] + b"\xff")
    assert read_metadata(path)[1] != before


@pytest.mark.parametrize("content", [b"", b"<net/>", b"no model", b"\xff" * 20])
def test_what_is_no_graph_of_openvino_is_refused(tmp_path: Path, content: bytes):
    (tmp_path / "a.xml").write_bytes(content)
    with pytest.raises(ValueError, match="is no graph of OpenVINO, or is cut off"):
        read_metadata(tmp_path / "a.xml")


def test_a_section_that_is_no_xml_is_refused(tmp_path: Path):
    path = tiny_openvino(tmp_path / "a.xml")
    path.write_bytes(path.read_bytes().replace(b"<pleura><", b"<pleura><<"))
    with pytest.raises(ValueError, match="its metadata are damaged"):
        read_metadata(path)
