"""`pleura pull` and `pleura push`: radiographs of a study into a folder, and results to an archive, with Orthanc."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dicom_objects import found_on
from listeners import LOOPBACK, archiving, images_in
from orthanc import AE_TITLES, missing, orthanc
from orthanc import Archive as Orthanc
from pydicom import dcmread
from pydicom.uid import RLELossless

from pleura.config.nodes import Node
from pleura.data.radiograph import read_radiograph
from pleura.errors import InputError, PleuraError
from pleura.inference.writers import objects_of
from pleura.serve.pacs.dicomweb import Service
from pleura.serve.pacs.pull import pull as pull_from

needs_orthanc = pytest.mark.skipif(
    bool(missing()), reason=f"not installed: {missing()}; Debian has orthanc, orthanc-dicomweb and dcmtk"
)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two radiographs, one of them compressed. Not to be written to."""
    made = images_in(tmp_path_factory.mktemp("phantoms"), 2)
    compressed = dcmread(made[1])
    compressed.compress(RLELossless, generate_instance_uid=False)
    compressed.save_as(made[1])
    for image in sorted(made[0].parent.iterdir()):
        if image not in made:
            image.unlink()
    return made


@pytest.fixture(scope="module")
def results(images: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """seg/ and sr/ of the radiographs, and a file that is no DICOM. Not to be written to."""
    folder = tmp_path_factory.mktemp("results")
    for image in images:
        for word, content in objects_of(found_on(read_radiograph(image)), ("seg", "sr")).items():
            (folder / word).mkdir(exist_ok=True)
            (folder / word / image.name).write_bytes(content)
    (folder / "predictions.csv").write_text("image_id\n")
    return folder


@pytest.fixture(scope="module")
def archive(images: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """An archive that has the radiographs."""
    with orthanc(tmp_path_factory.mktemp("orthanc")) as started:
        started.send(images[0].parent)
        yield started


@needs_orthanc
def test_study_is_pulled_predicted_and_its_results_are_pushed(
    archive: Orthanc, images: list[Path], results: Path, tmp_path: Path, pleura: Callable[..., Any]
) -> None:
    url = f"{archive.url}/dicom-web"
    pushed = pleura("push", results, "--to", f"{LOOPBACK}:{archive.dicom_port}:{AE_TITLES[3]}")
    assert (pushed.returncode, pushed.stderr) == (0, "")
    assert pushed.stdout.endswith(": 4 sent; 1 files are no DICOM\n")
    assert archive.count() == 6
    assert pleura("push", results / "seg", "--to", url).stdout == f"{url}: 2 sent\n"
    assert archive.count() == 6  # they replace what is there

    study = dcmread(images[1]).StudyInstanceUID
    words = ("pull", url, "--study", study, "--match", f"PatientID={dcmread(images[0]).PatientID}", "--out", tmp_path)
    done = pleura(*words)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{tmp_path}: 2 radiographs of 2 studies; 4 other instances passed over\n"
    fetched = {path.name: dcmread(path) for path in tmp_path.iterdir()}
    assert fetched == {f"{one.SOPInstanceUID}.dcm": one for one in map(dcmread, images)}
    assert fetched[f"{dcmread(images[1]).SOPInstanceUID}.dcm"].file_meta.TransferSyntaxUID == RLELossless
    assert pleura(*words).stdout.startswith(f"{tmp_path}: 0 radiographs of 2 studies, 2 were there")


@needs_orthanc
def test_what_cannot_be_pulled_is_refused_with_the_way_out(
    archive: Orthanc, tmp_path: Path, pleura: Callable[..., Any]
) -> None:
    url = f"{archive.url}/dicom-web"
    for words, code, says in (
        ((url,), 1, "name what to fetch: --study UID"),
        ((url, "--study", "1.2.x"), 1, "is no UID"),
        ((url, "--study", "1.2.3"), 1, "has nothing of the 1 studies"),
        ((url, "--match", "PatientID=NOBODY"), 1, "no study matches PatientID=NOBODY"),
        ((url, "--match", "PatientID"), 2, "is no KEYWORD=VALUE"),
        (("127.0.0.1:104:ARCHIVE", "--study", "1.2"), 2, "is no DICOMweb service"),
        ((f"{archive.url}/elsewhere", "--study", "1.2"), 1, "answers HTTP 404"),
        ((f"http://{LOOPBACK}:1/dicom-web", "--study", "1.2"), 1, "no connection"),
    ):
        done = pleura("pull", *words, "--out", tmp_path / "out")
        assert done.returncode == code
        assert says in " ".join(done.stderr.replace("│", " ").split())


def test_reports_are_pushed_after_what_they_refer_to_and_a_refusal_is_named(
    results: Path, pleura: Callable[..., Any]
) -> None:
    with archiving() as archive:
        done = pleura("push", results / "sr", results / "seg", "--to", archive.address)
        assert done.returncode == 0
        assert [one.Modality for one in archive.stored.values()] == ["SEG", "SEG", "SR", "SR"]
        archive.answer = lambda made: 0xC000 if made.Modality == "SR" else 0
        done = pleura("push", results, "--to", archive.address)
    assert done.returncode == 1
    assert [line.split(".dcm: ")[1] for line in done.stderr.splitlines()] == [
        f"{file.stem}: it cannot understand it (0xC000)" for file in sorted((results / "sr").iterdir())
    ]


def test_push_says_how_far_it_came_where_the_archive_is_not_reached(results: Path, pleura: Callable[..., Any]) -> None:
    done = pleura("push", results, "--to", f"{LOOPBACK}:1:ARCHIVE")
    assert done.returncode == 1
    assert "no connection, or no TLS; 0 of 4 sent, send all of them again" in done.stderr
    assert pleura("push", results / "predictions.csv", "--to", f"{LOOPBACK}:1:ARCHIVE").returncode == 1


class Pages:
    """Stands for a service: gives instances two at a time, and may begin anew whatever it is asked to skip."""

    def __init__(self, count: int, forgetful: bool) -> None:
        self.uids, self.forgetful, self.asked = [f"1.2.{number}" for number in range(count)], forgetful, 0

    def search_for_instances(self, offset: int | None = None, **_: Any) -> list[dict[str, Any]]:
        self.asked += 1
        assert self.asked < 20
        first = 0 if self.forgetful else (offset or 0)
        return [{"00080018": {"vr": "UI", "Value": [uid]}} for uid in self.uids[first : first + 2]]


@pytest.mark.parametrize(("forgetful", "found"), [(False, 5), (True, 2)])
def test_search_reads_all_pages_and_ends_where_a_service_knows_none(forgetful: bool, found: int) -> None:
    service = Service("pages", Node(url=f"http://{LOOPBACK}:1"))
    service.client = Pages(5, forgetful)
    assert len(service.find("instances", study_instance_uid="1.2")) == found


def test_name_of_a_file_is_a_uid_whatever_a_service_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service("liar", Node(url=f"http://{LOOPBACK}:1"))
    found = {
        tag: {"Value": [value]}
        for tag, value in (
            ("0020000D", "1.2"),
            ("0020000E", "1.2.3"),
            ("00080018", "../../etc/passwd"),
            ("00080016", "1.2.840.10008.5.1.4.1.1.1"),
        )
    }
    monkeypatch.setattr(service, "find", lambda *_, **__: [found])
    done = pull_from(service, tmp_path / "out", ["1.2"], {})
    assert done.problems == [("../../etc/passwd", "has an invalid UID")]
    assert list((tmp_path / "out").iterdir()) == []


def test_service_that_goes_away_in_between_ends_the_pull(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service("gone", Node(url=f"http://{LOOPBACK}:1"))
    one = {
        tag: {"Value": [value]}
        for tag, value in (
            ("0020000D", "1.2"),
            ("0020000E", "1.2.3"),
            ("00080018", "1.2.3.4"),
            ("00080016", "1.2.840.10008.5.1.4.1.1.1"),
        )
    }
    monkeypatch.setattr(service, "find", lambda *_, **__: [one])
    with pytest.raises(PleuraError, match="run the same command again to go on"):
        pull_from(service, tmp_path / "out", ["1.2"], {})
    with pytest.raises(InputError):
        pull_from(service, tmp_path / "out", [], {})
