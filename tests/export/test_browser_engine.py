"""The engine of a page in node: ONNX Runtime's probabilities, and a refusal in one line where it fails."""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np
import pytest
from browsers import needs_node
from exports import OF_64, SIDE_PX, expected, tiny_export, tiny_graph

from pleura.errors import CheckpointError
from pleura.export import browser_engine as module
from pleura.export.browser_engine import browser_engine, browser_versions, node_version
from pleura.export.html import runtime_version
from pleura.models.exported import load_exported

SQUARES = np.random.default_rng(4).integers(0, 256, (3, SIDE_PX, SIDE_PX)).astype(np.uint8)


@needs_node
def test_probabilities_are_those_of_the_graph(tmp_path: Path):
    exported = load_exported(tiny_export(tmp_path / "tiny.onnx"))
    with browser_engine(exported) as engine:
        assert (engine.name, engine.size_px, engine.tta) == ("onnxruntime-web", SIDE_PX, "none")
        for squares in (SQUARES, SQUARES[1:2], SQUARES):
            assert np.abs(engine.probabilities(squares) - expected(squares)).max() < 1e-6


@needs_node
def test_a_graph_that_fails_is_refused_in_one_line(tmp_path: Path):
    exported = load_exported(tiny_export(tmp_path / "odd.onnx", tiny_graph(64)))  # of another size than it says
    with browser_engine(exported) as engine, pytest.raises(CheckpointError) as refused:
        engine.probabilities(SQUARES[:1])
    assert str(refused.value).startswith(f"{tmp_path / 'odd.onnx'}: ONNX Runtime Web fails in node {node_version()} (")
    assert "update node to 20 or later" in str(refused.value)
    assert "\n" not in str(refused.value)


@needs_node
def test_a_node_that_does_nothing_is_refused(tmp_path: Path, monkeypatch):
    other = tmp_path / "node"
    other.write_text("#!/bin/sh\necho 'SyntaxError: of old' >&2\nexit 1\n", encoding="utf-8")
    other.chmod(other.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(module, "node", lambda: str(other))
    exported = load_exported(tiny_export(tmp_path / "tiny.onnx", tiny_graph(64), **OF_64))
    with browser_engine(exported) as engine, pytest.raises(CheckpointError, match=r"\(SyntaxError: of old\)"):
        engine.probabilities(np.zeros((1, 64, 64), np.uint8))
    monkeypatch.setattr(module, "node", lambda: str(tmp_path / "nothing"))
    with pytest.raises(CheckpointError, match="node cannot be started"), browser_engine(exported):
        pass


def test_versions_are_those_of_the_page_and_of_node_where_there_is_one(monkeypatch):
    assert browser_versions()["onnxruntime-web"] == runtime_version()
    monkeypatch.setattr(module, "node", lambda: None)
    assert browser_versions() == {"onnxruntime-web": runtime_version()}
