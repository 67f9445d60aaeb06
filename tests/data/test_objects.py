"""Radiographs among objects: those that a folder would have, known by their first bytes, which are read once."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from dicom_files import make_dicom, save_dicom
from PIL import Image

from pleura.data.finding import find_radiographs
from pleura.data.ids import identify
from pleura.data.objects import HEAD_BYTES, Heads
from pleura.data.radiograph import pixels_of, read_radiograph
from pleura.errors import InputError
from pleura.urls.store import put
from pleura.urls.url import Url

pytest.importorskip("fsspec")
BASE = Url("memory", ("objects",))


@pytest.fixture(autouse=True)
def memory_is_empty():
    import fsspec

    fsspec.filesystem("memory").store.clear()
    yield
    fsspec.filesystem("memory").store.clear()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a folder may hold: pictures, DICOM with and without a preamble, a long header, hidden files, and others."""
    (tmp_path / "a-b").mkdir()
    (tmp_path / "a").mkdir()
    save_dicom(tmp_path / "a" / "one.dcm", sop_uid="1.2.3")
    save_dicom(tmp_path / "a-b" / "no suffix", sop_uid="1.2.4", preamble=False)
    long = make_dicom(sop_uid="1.2.5")
    long.PatientComments = "x" * 10_000
    long.AdditionalPatientHistory = "y" * 10_000
    long.save_as(tmp_path / "long", enforce_file_format=True)
    save_dicom(tmp_path / ".hidden.dcm", sop_uid="1.2.6")
    Image.effect_noise((200, 150), 60).save(tmp_path / "picture.png")
    (tmp_path / "broken.jpg").write_bytes(b"nothing")
    (tmp_path / "notes.txt").write_text("anything")
    return tmp_path


def fill(folder: Path, base: Url = BASE) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            put(base.joinpath(*path.relative_to(folder).parts), path.read_bytes())


def test_objects_are_found_identified_and_measured_as_the_files_of_a_folder(folder):
    fill(folder)
    here, there = find_radiographs([folder]), find_radiographs([BASE])
    assert [one.relative for one in there.radiographs] == [one.relative for one in here.radiographs]
    assert there.passed_over == here.passed_over
    ids = [[case.image_id for case in identify(found.radiographs).cases] for found in (here, there)]
    assert ids[0] == ids[1]
    pixels = [[pixels_of(one.path) for one in found.radiographs] for found in (here, there)]
    assert pixels[0] == pixels[1]
    assert max(pixels[1]) == 200 * 150


def test_a_radiograph_of_a_store_has_the_pixels_of_its_file(folder):
    fill(folder)
    for one in find_radiographs([BASE]).radiographs:
        path = folder / one.relative
        if path.name == "broken.jpg":
            with pytest.raises(InputError, match=r"memory://objects/broken\.jpg"):
                read_radiograph(one.path)
        else:
            assert (read_radiograph(one.path).image == read_radiograph(path).image).all()


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a*", ["a/one.dcm", "a-b/no suffix"]),
        ("**/*.dcm", ["a/one.dcm"]),
        ("**/o*", ["a/one.dcm"]),
        ("*.png", ["picture.png"]),
        ("a/one.dcm", ["one.dcm"]),
    ],
)
def test_patterns_match_objects_as_they_match_files(folder, pattern, expected):
    fill(folder)
    found = [find_radiographs([source]) for source in (f"{folder}/{pattern}", f"{BASE}/{pattern}")]
    relatives = [[one.relative for one in each.radiographs] for each in found]
    assert relatives[0] == relatives[1] == expected


def test_first_bytes_are_read_once_and_again_where_an_object_has_changed(folder, tmp_path, monkeypatch):
    fill(folder)
    read: list[str] = []
    # `pleura.data.objects.ahead` is what reads them.
    module = sys.modules["pleura.data.objects"]
    ahead = module.ahead
    monkeypatch.setattr(
        module, "ahead", lambda urls, *more: ahead((read.append(url.name) or url for url in urls), *more)
    )
    index = tmp_path / "index" / "inputs.jsonl"
    index.parent.mkdir()
    first = find_radiographs([BASE], heads=Heads(index))
    assert len(read) == 6
    read.clear()
    again = find_radiographs([BASE], heads=Heads(index))
    assert (read, again.passed_over) == ([], first.passed_over)
    assert [one.path.head for one in again.radiographs] == [one.path.head for one in first.radiographs]
    put(BASE / "picture.png", (folder / "picture.png").read_bytes())
    find_radiographs([BASE], heads=Heads(index))
    assert read == ["picture.png"]


def test_an_input_that_names_no_object_is_refused(folder):
    fill(folder)
    with pytest.raises(InputError, match="no radiograph found in memory://objects/none"):
        find_radiographs(["memory://objects/none"])


def test_a_header_longer_than_the_first_bytes_is_read_whole(folder):
    assert (folder / "long").stat().st_size > HEAD_BYTES
    fill(folder)
    (one,) = find_radiographs([BASE / "long"]).radiographs
    assert one.path.head.uid == "1.2.5"
    assert one.path.head.pixels == pixels_of(folder / "long")
