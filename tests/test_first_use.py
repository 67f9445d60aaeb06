"""What a command imports before it works: nothing heavy that it does not need. No time is measured here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from pleura.config.parse import parse_model
from pleura.data.phantoms.dicom_files import write_phantom_dataset
from pleura.decision.triplet import Triplet
from pleura.models.build import build_model
from pleura.models.checkpoint import Checkpoint, save_checkpoint
from pleura.models.preprocessing import Preprocessing

LARGE = ("timm", "torchvision", "torch._dynamo", "accelerate", "scipy", "sklearn", "matplotlib", "sympy", "hypothesis")
"""What predicting needs none of: each of them takes longer to import than an image takes."""


def imported_after(code: str, folder: Path) -> set[str]:
    """Every module that a new process has imported after `code`."""
    told = folder / "modules.json"
    code = f"import json, sys\n{code}\njson.dump(sorted(sys.modules), open({str(told)!r}, 'w'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr.strip()) == (0, "")
    return set(json.loads(told.read_text()))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small net on the default model's encoder, with a calibration as `pleura tune` leaves it."""
    settings: dict[str, Any] = {"encoder": "mobilenetv2_100", "pretrained": False, "output_stride": 4}
    model = parse_model({**settings, "decoder_widths": [8, 8, 8], "presence_head": True})
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "best.safetensors"
    preprocessing = Preprocessing(64, 64, 1, 0.449, 0.226)
    calibration = {
        "temperature": 1.1,
        "image": [0.5, 0.5, 0.1],
        "method": "platt",
        "conformal": {"threshold": 0.1, "alpha": 0.05, "confidence": 0.95, "patients": 85},
        "prevalence": 0.5,
        "cases": 188,
    }
    triplet = Triplet(0.01, 0, 0.01)  # finds something, to be outlined
    weights = build_model(model).state_dict()
    save_checkpoint(path, Checkpoint(model, preprocessing, triplet, calibration=calibration, weights=weights))
    return path


def test_predict_imports_nothing_large_but_torch(checkpoint: Path, tmp_path: Path):
    write_phantom_dataset(tmp_path, 1, seed=1, size_px=96)
    words = ["predict", str(tmp_path / "dicom"), "--out", str(tmp_path / "out"), "--model", str(checkpoint)]
    found = imported_after(f"from pleura.cli import app; app({words!r}, standalone_mode=False)", tmp_path)
    assert {"torch", "pydicom"} <= found
    assert {name for name in LARGE if name in found} == set()
    assert list((tmp_path / "out/overlays").glob("*.png"))
    assert ",1," in (tmp_path / "out/predictions.csv").read_text()


def test_another_net_still_finds_timm(tmp_path: Path):
    code = (
        "from pleura.models.build import build_model; build_model({'encoder': 'test_resnet', 'decoder_widths': [8] * 4,"
    )
    found = imported_after(f"{code} 'pretrained': False}})", tmp_path)
    assert {"timm", "torchvision"} <= found


def test_the_help_of_every_command_imports_no_net_and_no_reader(tmp_path: Path):
    code = """
from typer.main import get_command
from pleura.cli import app
for name in get_command(app).commands:
    app([name, "--help"], standalone_mode=False)
"""
    heavy = {"torch", "numpy", "scipy", "pydicom", "PIL", "matplotlib", "yaml", "rich.progress"}
    assert heavy & imported_after(code, tmp_path) == set()


@pytest.mark.parametrize(
    "verb",
    ["data.prepare", "evaluation.score", "evaluation.compare", "config.bundled", "doctor", "config.imported.recipe"],
)
def test_a_command_that_runs_no_net_begins_without_torch(verb: str, tmp_path: Path):
    assert {"torch", "timm", "matplotlib"} & imported_after(f"import pleura.{verb}", tmp_path) == set()
