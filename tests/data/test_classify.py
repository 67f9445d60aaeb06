"""What the beginning of a file says of it, of all of it or of its first bytes alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dicom_files import save_dicom
from PIL import Image

from pleura.data.classify import Beginning, beginning_of


@pytest.fixture(params=["whole", "cut"])
def cut(request):
    """Leaves a file as it is, or its first 2 KiB."""

    def apply(path: Path) -> Path:
        if request.param == "cut":
            path.write_bytes(path.read_bytes()[:2048])
        return path

    return apply


def test_a_dicom_file_says_its_uid_and_its_size(tmp_path, cut):
    path = save_dicom(tmp_path / "1", np.zeros((60, 50), np.uint8), sop_uid="1.2.3")
    assert beginning_of(cut(path), "x") == Beginning(True, "without suffix", "1.2.3", 3000, False)


def test_a_picture_says_its_size(tmp_path, cut):
    Image.effect_noise((100, 90), 60).save(tmp_path / "p.png")
    assert beginning_of(cut(tmp_path / "p.png"), "p.png") == Beginning(True, ".png", None, 9000, False)


def test_what_is_no_radiograph_says_what_it_is_counted_as(tmp_path):
    (tmp_path / "notes.txt").write_text("anything")
    assert beginning_of(tmp_path / "notes.txt", "notes.txt") == Beginning(False, ".txt", None, 0, False)
