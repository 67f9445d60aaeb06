"""Which files are found: by content, through links, whatever signs names have, and never what pleura wrote."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from dicom_files import RAMP_8, make_dicom, save_dicom
from dicom_objects import prediction_of
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from pleura.data.classify import OWN_SOFTWARE
from pleura.data.finding import Located, find_radiographs, walk
from pleura.data.phantoms.dicom_files import write_phantom_dataset
from pleura.errors import InputError


def save_png(path: Path, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RAMP_8).save(path, **options)
    return path


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    deep = tmp_path / "deep" / "deeper"
    (tmp_path / ".hidden").mkdir()
    dicom = save_dicom(deep / "1.2.840.7")
    for name in ("b.dcm", "IM1", "c.DICOM", ".trash.dcm", "DICOMDIR", ".hidden/d.dcm", "e.bak"):
        shutil.copy(dicom, tmp_path / name)
    for name in ("f.PNG", "g.jpeg", "notes.txt", "README"):
        (tmp_path / name).write_text("anything")
    return tmp_path


def names(inputs: list[Path | str], folder: Path) -> list[str]:
    return [one.path.relative_to(folder).as_posix() for one in find_radiographs(inputs).radiographs]


def test_folder_is_searched_for_radiographs_to_any_depth(archive):
    expected = ["IM1", "b.dcm", "c.DICOM", "deep/deeper/1.2.840.7", "e.bak", "f.PNG", "g.jpeg"]
    assert names([archive], archive) == expected


@pytest.mark.parametrize("name", ["b.IMA", "c.img", "d.dc3", "e.CR", "f", "1.2.3.4", "g.tif", "h.dcm.bak"])
@pytest.mark.parametrize("preamble", [True, False])
def test_dicom_is_found_by_its_content_whatever_its_suffix(tmp_path, name, preamble):
    save_dicom(tmp_path / name, preamble=preamble)
    assert names([tmp_path], tmp_path) == [name]


@pytest.mark.parametrize("head", [b"\x08\x00", b"\x02\x00", b"\x08\x00\x18\x00UI\x04\x00ab", b"\x08\x00" * 900])
def test_file_that_only_begins_like_dicom_is_passed_over(archive, head):
    (archive / "raw.bin").write_bytes(head + bytes(99))
    assert "raw.bin" not in names([archive], archive)


def test_what_is_passed_over_is_counted_in_one_line(archive):
    for name in ("more.txt", "a.csv", ".hidden.txt"):
        (archive / name).write_text("anything")
    found = find_radiographs([archive])
    assert found.in_words() == "5 files are no radiographs (2 .txt, 1 DICOMDIR, 1 without suffix, 1 .csv)"
    (archive / "only").mkdir()
    save_dicom(archive / "only" / "a.dcm")
    (archive / "only" / "b.txt").write_text("anything")
    assert find_radiographs([archive / "only"]).in_words() == "1 file is no radiograph (1 .txt)"
    (archive / "only" / "b.txt").unlink()
    assert find_radiographs([archive / "only"]).in_words() == ""


def test_folder_without_radiographs_is_refused_with_what_is_there(archive):
    (archive / "texts").mkdir()
    (archive / "texts" / "a.txt").write_text("anything")
    with pytest.raises(InputError, match=r"no radiograph found in .*texts \(1 file is no radiograph \(1 \.txt\)\)"):
        find_radiographs([archive / "texts"])


def test_linked_folders_are_entered_and_loops_are_not(tmp_path):
    for name in ("p1/a.png", "p2/b.png"):
        save_png(tmp_path / "real" / name)
    save_png(tmp_path / "study" / "c.png")
    (tmp_path / "study" / "p1").symlink_to(tmp_path / "real" / "p1")
    (tmp_path / "study" / "p2").symlink_to(os.path.join("..", "real", "p2"))
    (tmp_path / "real" / "p2" / "up").symlink_to(tmp_path / "study")
    (tmp_path / "real" / "p2" / "itself").symlink_to("itself")
    assert names([tmp_path / "study"], tmp_path / "study") == ["c.png", "p1/a.png", "p2/b.png"]


def test_folder_that_is_linked_too_is_found_once_and_where_it_lies(tmp_path):
    save_png(tmp_path / "real" / "a.png")
    (tmp_path / "also").symlink_to(tmp_path / "real")
    (tmp_path / "b.png").symlink_to(tmp_path / "real" / "a.png")
    assert [path.relative_to(tmp_path).as_posix() for path in walk(tmp_path)] == ["b.png", "real/a.png"]
    assert len(find_radiographs([tmp_path]).radiographs) == 1


def test_masks_and_overlays_that_pleura_wrote_are_no_radiographs(tmp_path):
    written_by = PngInfo()
    written_by.add_text("Software", OWN_SOFTWARE)
    save_png(tmp_path / "anywhere" / "a.png", pnginfo=written_by)
    save_png(tmp_path / "masks" / "b.png")
    found = find_radiographs([tmp_path])
    assert [one.relative for one in found.radiographs] == ["masks/b.png"]
    assert found.passed_over == {"written by pleura": 1}


def by_an_archive(made: Dataset, path: Path, preamble: bool) -> None:
    """Save an object as an archive hands it out: its own file meta information in front, or none."""
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.ImplementationClassUID = "1.2.276.0.7230010.3.0.3.6.7"
    made.save_as(path, enforce_file_format=preamble)
    if not preamble:
        content = path.read_bytes()
        path.write_bytes(content[content.index(b"\x08\x00\x05\x00CS") :])


@pytest.mark.parametrize("preamble", [True, False])
def test_own_objects_that_an_archive_hands_out_are_no_radiographs(tmp_path, preamble):
    write_phantom_dataset(tmp_path, n_patients=1, seed=1, size_px=32)  # of the same maker as the objects
    phantoms = sorted((tmp_path / "dicom").iterdir())
    found = prediction_of(phantoms[0])
    for number, made in enumerate((found.to_seg(), found.to_sc(), found.to_gsps(), found.to_sr())):
        by_an_archive(made, tmp_path / "dicom" / f"IM{number}.dcm", preamble)
    there = find_radiographs([tmp_path / "dicom"])
    assert [one.path for one in there.radiographs] == phantoms
    assert there.passed_over == {"written by pleura": 4}


@pytest.mark.parametrize("preamble", [True, False])
def test_objects_of_others_are_told_from_radiographs_by_their_class(tmp_path, preamble):
    of_their_class = {"66.4": "SEG", "11.1": "PR", "88.22": "SR", "104.1": "DOC", "7": None, "1.1": None}
    for number, sop_class in enumerate(of_their_class):
        made = make_dicom(sop_uid=f"1.2.{number}")
        made.SpecificCharacterSet, made.Manufacturer = "ISO_IR 100", "Maker"
        made.SOPClassUID = f"1.2.840.10008.5.1.4.1.1.{sop_class}"
        by_an_archive(made, tmp_path / f"IM{sop_class}", preamble)
    found = find_radiographs([tmp_path])
    assert [one.relative for one in found.radiographs] == ["IM1.1", "IM7"]
    assert found.passed_over == {kind: 1 for kind in of_their_class.values() if kind}


def test_pattern_is_filtered_like_a_folder(archive):
    assert names([str(archive / "*")], archive) == names([archive], archive)
    assert names([str(archive / "**" / "*.7")], archive) == ["deep/deeper/1.2.840.7"]
    assert names([str(archive / "**")], archive) == names([archive], archive)


def test_pattern_with_two_stars_matches_in_the_folder_itself_too(archive):
    assert names([str(archive / "**" / "*.dcm")], archive) == ["b.dcm"]
    save_dicom(archive / "deep" / "z.dcm")
    assert names([str(archive / "**" / "*.dcm")], archive) == ["b.dcm", "deep/z.dcm"]


def test_what_is_named_twice_is_found_once(archive):
    twice = [archive / "b.dcm", archive, archive / "deep" / ".." / "b.dcm"]
    assert names(twice, archive) == names([archive], archive)


def test_file_named_outright_is_taken_as_it_is(archive):
    assert find_radiographs([archive / "notes.txt"]).radiographs == [Located(archive / "notes.txt", archive)]


def test_what_exists_is_a_name_before_it_is_a_pattern(tmp_path):
    for name in ("study [1]/0.png", "study [1]/b[2].png", "study 1/9.png"):
        save_png(tmp_path / name)
    found = ["study [1]/0.png", "study [1]/b[2].png"]
    assert names([tmp_path / "study [1]"], tmp_path) == found
    assert names([str(tmp_path / "study [1]" / "*.png")], tmp_path) == found
    assert names([str(tmp_path / "study [1]" / "b[2].png")], tmp_path) == found[1:]
    assert names([str(tmp_path / "s*" / "b[2].png")], tmp_path) == found[1:]
    assert names([str(tmp_path / "study ?" / "*.png")], tmp_path) == ["study 1/9.png"]
    assert names([str(tmp_path / "study 1" / "[0-9].png")], tmp_path) == ["study 1/9.png"]


def test_paths_below_a_pattern_begin_where_it_does(tmp_path):
    for name in ("p1/x.png", "p2/x.png"):
        save_png(tmp_path / "study" / name)
    found = find_radiographs([str(tmp_path / "study" / "*" / "x.png")]).radiographs
    assert [one.relative for one in found] == ["p1/x.png", "p2/x.png"]


@pytest.mark.parametrize("name", ["absent.dcm", "*.tif", "empty", "x" * 300])
def test_input_that_names_nothing_is_refused(archive, name):
    (archive / "empty").mkdir()
    with pytest.raises(InputError, match="no radiograph found in") as caught:
        find_radiographs([archive, archive / name])
    assert str(archive / name) in str(caught.value)


def test_pipe_among_the_files_is_passed_over_and_not_waited_for(archive):
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no pipes with names")
    os.mkfifo(archive / "pipe")
    assert find_radiographs([archive]).passed_over["without suffix"] == 2
