"""What is done with one instance: predicted, passed over, tried again, or a dead letter with its reason."""

from __future__ import annotations

import errno
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dicom_objects import numbers_in
from listeners import Drawn, images_in
from pydicom import dcmread
from pydicom.dataset import Dataset

from pleura.decision.calibration import probability_at_prevalence
from pleura.dicom.instance import bytes_of
from pleura.errors import CheckpointError, OutputError
from pleura.files import write_atomically
from pleura.inference.predictor import Predictor
from pleura.serve.pacs import worker
from pleura.serve.pacs.inbox import DEAD, RESULTS, Inbox, Room
from pleura.serve.pacs.spool import INCOMING, Beginning, Spool
from pleura.serve.pacs.upkeep import open_counts, tidy
from pleura.serve.pacs.worker import Work, identity_of, loader, work_on

SC = "1.2.840.10008.5.1.4.1.1.7"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return images_in(tmp_path_factory.mktemp("phantoms"), 1)[0]


@pytest.fixture
def inbox(tmp_path: Path) -> Iterator[Inbox]:
    made = Inbox(tmp_path / "inbox", Room(free_bytes=0))
    yield made
    made.close()


def put(inbox: Inbox, content: bytes | Dataset) -> None:
    spool = Spool(inbox.folder / INCOMING, lambda: Beginning(b"", "1.2.840"), 10**8)
    spool.write(content if isinstance(content, bytes) else bytes_of(content))
    inbox.take(spool.finish("1.2.3", "MODALITY"))


def done(inbox: Inbox, model: Any = None, **settings: Any) -> tuple[bool, str, str]:
    """Whether the instance is settled, its state, and the reason."""
    work = Work(inbox.folder, Drawn, **{"words": ("seg", "sc", "sr"), "destinations": ("archive",), **settings})
    job = inbox.claim("somebody")
    assert job is not None
    settled = work_on(work, model or Drawn(), inbox, "somebody", job)
    tidy(inbox)
    ((state, reason),) = inbox.database.rows("SELECT state, reason FROM instances")
    return settled, str(state), str(reason or "")


def changed(image: Path, **values: Any) -> Dataset:
    made = dcmread(image)
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def test_results_of_a_radiograph_are_written_and_refer_to_it_and_to_each_other(inbox: Inbox, image: Path) -> None:
    put(inbox, dcmread(image))
    assert done(inbox)[:2] == (True, "sending")
    made = {file.stem: dcmread(file) for file in (inbox.folder / RESULTS).rglob("*.dcm")}
    assert sorted(made) == ["sc", "seg", "sr"]
    named = {str(one.value) for one in made["sr"].iterall() if one.keyword == "ReferencedSOPInstanceUID"}
    assert named == {str(dcmread(image).SOPInstanceUID), str(made["seg"].SOPInstanceUID)}


def test_report_says_the_probability_at_the_share_of_positives_asked_for(inbox: Inbox, image: Path) -> None:
    put(inbox, dcmread(image))
    done(inbox, prevalence=0.05)
    (report,) = (inbox.folder / RESULTS).rglob("sr.dcm")
    wanted = probability_at_prevalence(0.625, 0.25, 0.05)
    assert any(value == pytest.approx(wanted, abs=1e-3) for value in numbers_in(dcmread(report)).values())


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"ViewPosition": "LL", "ViewCodeSequence": []}, "View Position"),
        ({"BodyPartExamined": "HAND"}, "Body Part"),
        ({"Modality": "MG"}, "Modality"),
        ({"PresentationIntentType": "FOR PROCESSING"}, "FOR PROCESSING"),
        ({"SOPClassUID": SC, "Manufacturer": "Camera", "Modality": "OT", "SamplesPerPixel": 3}, "Modality"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_frontal_chest_radiograph_is_passed_over(
    inbox: Inbox, image: Path, values: dict[str, Any], word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(worker, "log", lambda event, *_, **fields: lines.append((event, fields)))

    put(inbox, changed(image, **values))
    settled, state, reason = done(inbox)
    assert (settled, state) == (True, "passed_over")
    assert word in reason
    assert list((inbox.folder / DEAD).iterdir()) == []
    ((kind, number),) = open_counts(inbox)["passed_over"].items()
    assert number == 1
    assert reason.startswith(f"{kind} is ")  # the attribute alone: what it says may be anything
    assert [fields["reason"] for event, fields in lines if event == "passed over"] == [kind]


def test_other_radiographs_are_predicted_where_that_is_asked_for(inbox: Inbox, image: Path) -> None:
    put(inbox, changed(image, BodyPartExamined="HAND"))
    assert done(inbox, any_radiograph=True)[:2] == (True, "sending")


def test_picture_of_ours_that_comes_back_is_passed_over_whatever_is_asked_for(inbox: Inbox, image: Path) -> None:
    prediction = Drawn().predict_radiographs([read(image)])[0]
    picture = prediction.to_sc()
    picture.file_meta.ImplementationClassUID = "1.2.276.0.7230010.3.0.3.6.7"  # as an archive writes it
    put(inbox, picture)
    assert done(inbox, any_radiograph=True) == (True, "passed_over", "written by pleura")


def read(image: Path) -> Any:
    from pleura.data.radiograph import read_radiograph

    return read_radiograph(image)


@pytest.mark.parametrize("damage", ["cut", "empty pixels", "noise"])
def test_what_cannot_be_read_is_a_dead_letter_with_its_reason(inbox: Inbox, image: Path, damage: str) -> None:
    whole = image.read_bytes()
    put(inbox, {"cut": whole[:-500], "empty pixels": changed(image, PixelData=b""), "noise": b"noise" * 100}[damage])
    settled, state, reason = done(inbox)
    assert (settled, state) == (True, "dead")
    (letter,) = (inbox.folder / DEAD).glob("*.txt")
    assert letter.read_text().splitlines()[0] == reason
    assert letter.with_suffix(".dcm").exists()


def test_radiograph_that_no_archive_could_file_results_of_is_a_dead_letter(inbox: Inbox, image: Path) -> None:
    nobodys = dcmread(image)
    del nobodys.PatientID
    del nobodys.PatientName
    put(inbox, nobodys)
    assert done(inbox)[:2] == (True, "dead")


class Failing(Drawn):
    """A model that fails for reasons that are not the image's."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def predict_radiographs(self, radiographs: Any) -> Any:
        raise self.error


@pytest.mark.parametrize(
    "error", [CheckpointError("not finite"), MemoryError()], ids=lambda error: type(error).__name__
)
def test_what_a_model_fails_at_is_tried_again(inbox: Inbox, image: Path, error: Exception) -> None:
    put(inbox, dcmread(image))
    assert done(inbox, Failing(error))[:2] == (True, "waiting")


def test_full_disk_settles_nothing_and_counts_as_no_attempt(
    inbox: Inbox, image: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    put(inbox, dcmread(image))

    def refuse(*_: Any) -> None:
        raise OutputError("the disk is full") from OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pleura.serve.pacs.inbox.write_atomically", refuse)
    assert done(inbox)[:2] == (False, "predicting")
    assert [record.fields["reason"] for record in caplog.records if record.msg == "results not written"] == [  # type: ignore[attr-defined]
        "No space left on device"
    ]
    inbox.release("somebody", counts=False)
    monkeypatch.setattr("pleura.serve.pacs.inbox.write_atomically", write_atomically)
    assert done(inbox)[:2] == (True, "sending")
    assert inbox.database.rows("SELECT attempts FROM instances") == [(1,)]


def test_loader_gives_the_model_with_what_this_process_was_told() -> None:
    load = loader(Path("default"), "none")
    assert isinstance(load, functools.partial)
    predictor = load()
    assert isinstance(predictor, Predictor)
    assert predictor.tta == "none"
    assert "test-time augmentation: none" in identity_of(predictor)
