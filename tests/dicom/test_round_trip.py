"""To an archive and back: Orthanc stores, finds, shows and hands out what predict writes, and it is the same."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from dicom_objects import ALGORITHM, found_on
from orthanc import Archive, missing, orthanc
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import JPEGLosslessSV1

from pleura.data.masks import open_masks
from pleura.data.phantoms.dicom_files import write_phantom_dataset
from pleura.inference.batch import BatchResult, BatchSettings, predict_batch

pytestmark = pytest.mark.skipif(
    bool(missing()), reason=f"not installed: {missing()}; Debian has orthanc, orthanc-dicomweb and dcmtk"
)
MODALITIES = {"seg": "SEG", "sc": "OT", "sc-jpeg-lossless": "OT", "gsps": "PR", "sr": "SR"}
SIDE_PX = 90


class Drawn:
    """Stands for a model: an F on every radiograph, and nothing on each third one."""

    tta, precision, engine, calibration, prevalence = "none", "float32", "torch", object(), 0.25
    algorithm, doubts, precisions = ALGORITHM, (), ()

    def __init__(self) -> None:
        self.seen: list[str] = []

    def square(self, radiograph: Any) -> Any:
        self.seen.append(radiograph.image_id)
        return np.zeros((1, 1), dtype=np.uint8)

    def probabilities(self, squares: Any) -> Any:
        return squares

    def decide(self, radiograph: Any, _: Any) -> Any:
        is_third = self.seen.index(radiograph.image_id) % 3 == 2
        return found_on(radiograph, np.zeros(radiograph.shape, dtype=np.uint8) if is_third else None)


def predict(source: Path, out: Path, sc: str) -> BatchResult:
    words = ("mask", "seg", sc, "gsps", "sr")
    done = predict_batch(Drawn(), BatchSettings((str(source),), out, "drawn", words))  # type: ignore[arg-type]
    assert done.problems == []
    return done


@dataclass(frozen=True)
class Study:
    """Radiographs of one folder, and what was found on them."""

    source: Path
    out: Path
    sc: str

    def files(self, word: str) -> list[Path]:
        return sorted((self.out / word).iterdir())

    @property
    def objects(self) -> dict[str, Dataset]:
        """Every DICOM object by its UID, as it was written."""
        read = [pydicom.dcmread(file) for word in ("seg", self.sc, "gsps", "sr") for file in self.files(word)]
        return {str(one.SOPInstanceUID): one for one in read}

    @property
    def radiographs(self) -> list[Dataset]:
        return [pydicom.dcmread(file) for file in sorted(self.source.iterdir())]

    @property
    def uids(self) -> list[str]:
        """Of the studies: each phantom has one of its own."""
        return [str(one.StudyInstanceUID) for one in self.radiographs]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    with orthanc(tmp_path_factory.mktemp("orthanc")) as started:
        yield started


def sent_by(archive: Archive, folder: Path, seed: int, sc: str) -> Study:
    write_phantom_dataset(folder, n_patients=2, seed=seed, size_px=SIDE_PX)
    study = Study(folder / "dicom", folder / "out", sc)
    predict(study.source, study.out, sc)
    archive.send(study.source, *(study.out / word for word in ("seg", sc, "gsps", "sr")))
    return study


@pytest.fixture(scope="module", params=["sc", "sc-jpeg-lossless"])
def sent(archive: Archive, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Study:
    """What is in the archive. Not to be written to."""
    seed = {"sc": 5, "sc-jpeg-lossless": 6}[request.param]
    return sent_by(archive, tmp_path_factory.mktemp("sent"), seed, request.param)


def test_every_object_is_found_by_dicomweb_and_by_c_find(archive: Archive, sent: Study) -> None:
    for study in sent.uids:
        found = archive.json(f"/dicom-web/instances?StudyInstanceUID={study}&includefield=00080060")
        assert sorted(one["00080060"]["Value"][0] for one in found)[1:] == ["OT", "PR", "SEG", "SR"]
        by_c_find = archive.find(study, "Modality", "SeriesInstanceUID", "SeriesDescription")
        for word in ("seg", sent.sc, "gsps", "sr"):
            (only,) = archive.json(f"/dicom-web/series?StudyInstanceUID={study}&Modality={MODALITIES[word]}")
            assert "not for diagnosis" in only["0008103E"]["Value"][0]
            assert sum(only["0020000E"]["Value"][0] in line for line in by_c_find) == 1


def test_what_dicomweb_hands_out_is_what_was_written(archive: Archive, sent: Study) -> None:
    back = [one for study in sent.uids for one in archive.wado(study)]
    written = sent.objects | {str(one.SOPInstanceUID): one for one in sent.radiographs}
    assert {str(one.SOPInstanceUID): one for one in back} == written
    coded = {one.file_meta.TransferSyntaxUID for one in back if one.Modality == "OT"}
    assert (coded == {JPEGLosslessSV1}) == (sent.sc == "sc-jpeg-lossless")


def test_what_c_get_hands_out_has_the_very_masks_and_pictures(archive: Archive, sent: Study, tmp_path: Path) -> None:
    files = [file for study in sent.uids for file in archive.get_study(study, tmp_path / study)]
    written, masks = sent.objects, open_masks(sent.out / "masks").masks
    assert len(files) == len(written) + len(masks)
    seen = []
    for file in files:
        one = pydicom.dcmread(file)
        if one.Modality == "SEG":
            ((image_id, frames),) = open_masks(file).masks.items()
            assert np.array_equal(frames.read().mask, masks[image_id].read().mask)
        elif one.Modality == "OT":
            assert np.array_equal(one.pixel_array, written[one.SOPInstanceUID].pixel_array)
        elif one.Modality in ("PR", "SR"):
            assert one == written[one.SOPInstanceUID]
        seen.append(one.Modality)
    assert [seen.count(modality) for modality in ("SEG", "OT", "PR", "SR")] == [len(masks)] * 4
    assert {bool(mask.read().mask.any()) for mask in masks.values()} == {True, False}


def references_in(made: Dataset) -> set[str]:
    return {str(one.value) for one in made.iterall() if one.keyword == "ReferencedSOPInstanceUID"}


def test_every_instance_that_an_object_refers_to_is_in_the_archive(archive: Archive, sent: Study) -> None:
    radiographs = {str(one.SOPInstanceUID) for one in sent.radiographs}
    for uid, made in sent.objects.items():
        named = references_in(made)
        assert named & radiographs, f"{made.Modality} {uid} refers to no radiograph"
        assert [one for one in named if archive.orthanc_id(one) is None] == []
    of_reports = {one for made in sent.objects.values() if made.Modality == "SR" for one in references_in(made)}
    assert {made.Modality for uid, made in sent.objects.items() if uid in of_reports} == {"SEG"}


def test_second_run_replaces_what_the_first_one_sent(archive: Archive, tmp_path: Path) -> None:
    first = sent_by(archive, tmp_path, 7, "sc")
    count = archive.count()
    again = Study(first.source, tmp_path / "again", "sc")
    predict(again.source, again.out, "sc")
    archive.send(*(again.out / word for word in ("seg", "sc", "gsps", "sr")))
    assert archive.count() == count
    before, now = first.objects, again.objects
    assert before.keys() == now.keys()
    back = [one for study in first.uids for one in archive.wado(study) if str(one.SOPInstanceUID) in now]
    assert {str(one.SOPInstanceUID): one for one in back} == now != before


@pytest.mark.parametrize("picture", ["/preview", "/rendered"])
def test_archives_own_picture_of_the_secondary_capture_is_that_picture(
    archive: Archive, sent: Study, picture: str
) -> None:
    pictures = {uid: made for uid, made in sent.objects.items() if made.Modality == "OT"}
    assert len(pictures) == len(sent.radiographs)
    for uid, made in pictures.items():
        shown, kind = archive.get(f"/instances/{archive.orthanc_id(uid)}{picture}", "image/png")
        assert kind == "image/png"
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(shown)).convert("RGB")), made.pixel_array)


def test_what_comes_back_scores_1_and_is_predicted_again_without_its_objects(
    archive: Archive, sent: Study, tmp_path: Path, pleura: Callable[..., Any]
) -> None:
    (tmp_path / "segs").mkdir()
    for study in sent.uids:
        for file in archive.get_study(study, tmp_path / "back" / study):
            if file.name.startswith("SG"):
                (tmp_path / "segs" / file.name).write_bytes(file.read_bytes())
    scored = pleura("score", "--truth", sent.out / "masks", "--pred", tmp_path / "segs")
    assert scored.returncode == 0, scored.stderr
    dice = [line.split()[3:4] for line in scored.stdout.splitlines() if line.strip().startswith("Dice on positives")]
    assert dice == [["1.0000"]]
    done = predict(tmp_path / "back", tmp_path / "out", sent.sc)
    assert done.predicted == len(sent.radiographs)
    count = len(sent.objects)
    assert done.notes == [f"{count} files are no radiographs ({count} written by pleura)"]
