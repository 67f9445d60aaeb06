"""On real radiographs an installation without PyTorch finds the masks that PyTorch finds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from places import ROOT

from pleura.evaluation.metrics.siim import siim_dice

REAL = ROOT.parent / "shared" / "data" / "dicom"
LEAST_DICE = 0.9999

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not REAL.is_dir(), reason="the 29 radiographs are not here; they are not for this repository"),
]


def masks(out: Path) -> dict[str, np.ndarray]:
    return {path.name: (np.asarray(Image.open(path)) > 0).astype(np.uint8) for path in (out / "masks").glob("*.png")}


def test_masks_without_torch_are_those_of_torch_on_every_real_radiograph(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    for name, command in {
        "without": [sys.executable, str(ROOT / "tests" / "base_install.py"), "predict", str(REAL)],
        "with": [sys.executable, "-m", "pleura", "predict", str(REAL), "--engine", "torch", "--precision", "float32"],
    }.items():
        words = ["--write", "mask", "--out", str(tmp_path / name)]
        subprocess.run([*command, *words], env=environment, check=True, capture_output=True, timeout=600)
    ours, theirs = masks(tmp_path / "without"), masks(tmp_path / "with")
    assert len(ours) == 29
    assert ours.keys() == theirs.keys()
    assert any(mask.any() for mask in ours.values())
    for name, mask in ours.items():
        assert siim_dice(mask[None], theirs[name][None])[0] >= LEAST_DICE, name
