"""One rule for ids: the SOP Instance UID, else the path; never one id for two images, and nothing lost."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from dicom_files import RAMP_8, save_dicom
from PIL import Image

from pleura.data.finding import find_radiographs
from pleura.data.ids import Names, identify
from pleura.errors import InputError


def save_png(path: Path, pixels: np.ndarray = RAMP_8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def ids(*inputs: Path, folder: Path) -> dict[str, str]:
    """Path below `folder` -> id."""
    cases = identify(find_radiographs(inputs).radiographs).cases
    return {case.path.relative_to(folder).as_posix(): case.image_id for case in cases}


def test_dicom_goes_by_its_uid_and_a_picture_by_its_path(tmp_path):
    save_dicom(tmp_path / "a" / "IM1", sop_uid="1.2.3")
    save_dicom(tmp_path / "b" / "IM1", sop_uid="1.2.4", preamble=False)
    save_dicom(tmp_path / "c" / "IM1.dcm", sop_uid=None)
    save_dicom(tmp_path / "d" / "x.dcm", sop_uid="../../etc")
    save_png(tmp_path / "a" / "x.PNG")
    save_png(tmp_path / "1.2.5.png")
    assert ids(tmp_path, folder=tmp_path) == {
        "1.2.5.png": "1.2.5",
        "a/IM1": "1.2.3",
        "a/x.PNG": "a/x",
        "b/IM1": "1.2.4",
        "c/IM1.dcm": "c/IM1",
        "d/x.dcm": "d/x",
    }


def test_file_named_outright_goes_by_its_name(tmp_path):
    save_png(tmp_path / "a" / "x.png")
    assert ids(tmp_path / "a" / "x.png", folder=tmp_path) == {"a/x.png": "x"}


def test_two_suffixes_of_one_name_are_kept(tmp_path):
    save_png(tmp_path / "a.png")
    save_png(tmp_path / "a.jpg")
    assert ids(tmp_path, folder=tmp_path) == {"a.jpg": "a.jpg", "a.png": "a.png"}


def test_one_name_below_two_inputs_gets_as_many_folders_in_front_as_tell_them_apart(tmp_path):
    files = ["p1/img/x.png", "p2/img/x.png", "p2/img/only.png"]
    for name in files:
        save_png(tmp_path / name)
    found = ids(tmp_path / "p1" / "img", tmp_path / "p2" / "img", folder=tmp_path)
    assert found == {"p1/img/x.png": "p1/img/x", "p2/img/x.png": "p2/img/x", "p2/img/only.png": "only"}
    two = ids(tmp_path / "p1/img/x.png", tmp_path / "p2/img", folder=tmp_path)
    assert two == found


def test_suffixes_and_inputs_can_both_be_needed(tmp_path):
    for name in ("a/x.png", "a/x.jpg", "b/x.png"):
        save_png(tmp_path / name)
    found = ids(tmp_path / "a", tmp_path / "b", folder=tmp_path)
    assert found == {"a/x.png": "a/x.png", "a/x.jpg": "a/x.jpg", "b/x.png": "b/x"}


def test_picture_beside_the_dicom_that_it_was_made_from_keeps_its_suffix(tmp_path):
    save_dicom(tmp_path / "1.2.3.dcm", sop_uid="1.2.3")
    save_png(tmp_path / "1.2.3.png")
    assert ids(tmp_path, folder=tmp_path) == {"1.2.3.dcm": "1.2.3", "1.2.3.png": "1.2.3.png"}


def test_names_of_one_unicode_form_and_of_two(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "Müller") for form in ("NFC", "NFD"))
    save_png(tmp_path / "a" / f"{decomposed}.png")
    assert list(ids(tmp_path / "a", folder=tmp_path).values()) == [composed]
    save_png(tmp_path / "a" / f"{composed}.png")
    found = list(ids(tmp_path / "a", folder=tmp_path).values())
    assert sorted(found) == [f"{composed}.png", f"{composed}.png~2"]


@pytest.mark.parametrize("names", [["x~2.png", "x.png"], ["a.png.png", "a.png", "a.jpg"], ["a.png", "A.png"]])
def test_ids_always_differ(tmp_path, names):
    for name in names:
        save_png(tmp_path / name)
    assert len(set(ids(tmp_path, folder=tmp_path).values())) == len(names)


def test_copy_of_a_dicom_goes_by_its_path_and_is_named(tmp_path):
    save_dicom(tmp_path / "a.dcm")
    save_dicom(tmp_path / "b" / "a.dcm")
    who = identify(find_radiographs([tmp_path]).radiographs)
    assert [(case.path.name, case.image_id) for case in who.cases] == [("a.dcm", "1.2.3"), ("a.dcm", "b/a")]
    assert who.copies == [(tmp_path / "b" / "a.dcm", tmp_path / "a.dcm")]
    assert who.clashes == []


def test_two_images_of_one_uid_both_go_by_their_paths_and_both_are_named(tmp_path):
    save_dicom(tmp_path / "a.dcm")
    save_dicom(tmp_path / "b.dcm", RAMP_8[::-1].copy())
    save_dicom(tmp_path / "c.dcm", RAMP_8[::-1].copy())
    who = identify(find_radiographs([tmp_path]).radiographs)
    assert [case.image_id for case in who.cases] == ["a", "b", "c"]
    assert who.clashes == [(tmp_path / "a.dcm", tmp_path / "b.dcm"), (tmp_path / "b.dcm", tmp_path / "a.dcm")]
    assert who.copies == [(tmp_path / "c.dcm", tmp_path / "b.dcm")]


def test_damaged_copy_does_not_take_the_uid_from_the_whole_one(tmp_path):
    save_dicom(tmp_path / "b.dcm")
    (tmp_path / "a.dcm").write_bytes((tmp_path / "b.dcm").read_bytes()[:-50])
    assert ids(tmp_path, folder=tmp_path) == {"a.dcm": "a", "b.dcm": "1.2.3"}


def test_earlier_run_keeps_its_ids(tmp_path):
    for name in ("a/x.png", "b/x.png"):
        save_png(tmp_path / name)
    earlier = {"x": tmp_path / "a" / "x.png", "gone": tmp_path / "gone.png"}
    both = identify(find_radiographs([tmp_path / "a", tmp_path / "b"]).radiographs, earlier).cases
    assert [case.image_id for case in both] == ["x", "b/x"]
    second = identify(find_radiographs([tmp_path / "b"]).radiographs, earlier).cases
    assert [case.image_id for case in second] == ["b/x"]


CASES = [("1.2.3", "study/IM1"), ("a/x", "a/x.png"), ("b/x", "b/x.png"), ("only", "only.jpg"), ("d.png", "d.png")]
CASES += [("d.jpg", "d.jpg"), ("Müller", unicodedata.normalize("NFD", "Müller.png"))]


@pytest.mark.parametrize(
    ("name", "image_id"),
    [
        ("1.2.3", "1.2.3"),
        ("1.2.3.dcm", "1.2.3"),
        ("IM1", "1.2.3"),
        ("study/IM1", "1.2.3"),
        ("root/study/IM1", "1.2.3"),
        ("other/IM1", None),
        ("a/x", "a/x"),
        ("./a/x.png", "a/x"),
        ("a\\x.png", "a/x"),
        ("/data/images/b/x.png", "b/x"),
        ("c/x", None),
        (" only ", "only"),
        ("only.png", "only"),
        ("d.png", "d.png"),
        ("in/d.jpg", "d.jpg"),
        (unicodedata.normalize("NFD", "Müller"), "Müller"),
        (unicodedata.normalize("NFD", "Müller.png"), "Müller"),
        ("absent", None),
    ],
)
def test_row_refers_to_a_case_by_id_or_path_or_file_name(name, image_id):
    assert Names(CASES).find(name) == image_id


@pytest.mark.parametrize(("name", "files"), [("x", ("a/x.png", "b/x.png")), ("d", ("d.jpg", "d.png"))])
def test_row_that_can_be_two_cases_is_refused_with_both_named(name, files):
    with pytest.raises(InputError, match=rf"masks\.csv: {name} can be {files[0]} and {files[1]}"):
        Names(CASES).find(name, "masks.csv")


def test_table_by_names_becomes_one_by_ids():
    assert Names(CASES).resolve({"IM1": 1, "absent": 2}, "t.csv") == {"1.2.3": 1, "absent": 2}
    assert Names(CASES).resolve({"IM1": 1, "1.2.3": 1}, "t.csv") == {"1.2.3": 1}
    with pytest.raises(InputError, match=r"t\.csv: IM1 and 1\.2\.3 are the same image"):
        Names(CASES).resolve({"IM1": 1, "1.2.3": 2}, "t.csv")
