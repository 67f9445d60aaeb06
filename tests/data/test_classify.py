"""What the beginning of a file says of it, of all of it or of its first bytes alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dicom_files import save_dicom
from mutants import mutant
from PIL import Image
from seeds import seeds

from pleura.data.classify import Beginning, beginning_of
from pleura.data.finding import find_radiographs
from pleura.data.ids import identify
from pleura.dicom import parse
from pleura.dicom.parse import class_and_maker, header_facts, header_pixels, header_uid
from pleura.inference.part import parts

READ = parse.read_partial


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


@pytest.mark.parametrize("first", range(0, 400, 100))
def test_one_reading_of_a_header_says_what_one_for_each_attribute_does(tmp_path, first):
    path = tmp_path / "mutant"
    of_seeds, whole = seeds(), 0
    for number in range(first, first + 100):
        path.write_bytes(mutant(of_seeds, number)[1])
        facts = header_facts(path)
        assert facts == (*class_and_maker(path), header_uid(path), header_pixels(path)), number
        whole += facts.uid is not None and facts.pixels > 0
    assert whole > 20


def test_a_file_of_a_folder_is_looked_at_once(tmp_path, monkeypatch):
    for number in range(3):
        save_dicom(tmp_path / f"{number}", np.zeros((60, 50), np.uint8), sop_uid=f"1.2.{number}")
    read = []
    monkeypatch.setattr(
        parse, "read_partial", lambda file, *more, **names: read.append(1) or READ(file, *more, **names)
    )
    cases = identify(find_radiographs([tmp_path]).radiographs).cases
    assert [len(part) for part in parts(cases, 2)] == [2, 1]
    assert [(case.image_id, case.pixels) for case in cases] == [(f"1.2.{number}", 3000) for number in range(3)]
    assert len(read) == 3
