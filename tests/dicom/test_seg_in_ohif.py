"""The reader of OHIF, run by node over our segmentation and its radiograph, gets the very mask.

It is no package of Python: `npm install @cornerstonejs/adapters@5.14.0 @babel/runtime` in any folder, and
PLEURA_NODE_PACKAGES names that folder.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from conftest import WriteDicom
from dicom_objects import FILED, f_shape, prediction_of, ramp

from pleura.dicom.instance import bytes_of

SCRIPT = Path(__file__).with_name("read_seg_as_ohif.mjs")
VERSION = "5.14.0"


@pytest.fixture(scope="module")
def packages() -> Path:
    """The folder with node_modules of the reader; skips where node or the packages are missing."""
    folder = Path(os.environ.get("PLEURA_NODE_PACKAGES", "."))
    adapters = folder / "node_modules" / "@cornerstonejs" / "adapters" / "package.json"
    if shutil.which("node") is None or not adapters.is_file():
        pytest.skip("node or @cornerstonejs/adapters is missing, see PLEURA_NODE_PACKAGES in this file")
    assert json.loads(adapters.read_text(encoding="utf-8"))["version"] == VERSION
    return folder.resolve()


def read_by_ohif(source: Path, seg_type: str, packages: Path) -> tuple[np.ndarray | None, str]:
    """The label map, None where the reader refuses, and what it said."""
    seg, out = source.with_suffix(".seg"), source.with_suffix(".raw")
    found = prediction_of(source)
    seg.write_bytes(bytes_of(found.to_seg(seg_type)))  # type: ignore[arg-type]
    command = ["node", str(SCRIPT), str(seg), str(source), str(out), str(packages)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode:
        return None, done.stderr
    return np.fromfile(out, dtype=np.uint8).reshape(found.predicted_mask.shape), done.stdout


@pytest.mark.parametrize(
    ("shape", "photometric", "seg_type"),
    [((64, 50), "MONOCHROME2", "binary"), ((48, 33), "MONOCHROME1", "binary"), ((45, 31), "MONOCHROME2", "occupancy")],
)
def test_label_map_is_the_mask_bit_for_bit(
    write_dicom: WriteDicom, packages: Path, shape: tuple[int, int], photometric: str, seg_type: str
):
    source = write_dicom(ramp(*shape), PhotometricInterpretation=photometric, **FILED)
    labels, said = read_by_ohif(source, seg_type, packages)
    assert labels is not None, said
    assert np.array_equal(labels, f_shape(*shape))
    assert json.loads(said.splitlines()[-1])["label"] == "Pneumothorax"


def test_reader_refuses_an_odd_number_of_bytes_as_the_reference_says(write_dicom: WriteDicom, packages: Path):
    labels, said = read_by_ohif(write_dicom(ramp(90, 90), **FILED), "binary", packages)
    assert labels is None
    assert "Unexpected 1-bit SEG PixelData length 1014" in said
