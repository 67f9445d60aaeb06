"""A tiny checkpoint and its export, shared by the tests: the exporter takes seconds."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from checkpoints import tiny_checkpoint

from pleura.export.export import Export, ExportSettings, export
from pleura.models.checkpoint import Checkpoint, save_checkpoint


@dataclass(frozen=True)
class Made:
    """Not to be written to."""

    checkpoint: Checkpoint
    export: Export


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A tiny checkpoint, tiny.safetensors, and out/tiny.onnx with its certificate, on phantoms."""
    folder = tmp_path_factory.mktemp("export")
    checkpoint = tiny_checkpoint()
    save_checkpoint(folder / "tiny.safetensors", checkpoint)
    return Made(checkpoint, export(folder / "tiny.safetensors", ExportSettings(out=folder / "out")))
