"""Results on their way: to archives that refuse, are not there, break off, or take only some of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from listeners import LOOPBACK, Archive, Drawn, archiving, images_in, until
from pydicom import dcmread
from pydicom.dataset import Dataset

from pleura.data.radiograph import read_radiograph
from pleura.inference.writers import objects_of
from pleura.serve.pacs.delivery import Delivery, UnreachableError
from pleura.serve.pacs.holders import holding
from pleura.serve.pacs.inbox import Inbox, Room
from pleura.serve.pacs.outbox import Outbox
from pleura.serve.pacs.spool import INCOMING, Beginning, Spool
from pleura.serve.pacs.store_scu import Peer, StoreScu

WORDS = ("seg", "sc", "sr")
SEG = "1.2.840.10008.5.1.4.1.1.66.4"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, bytes]]:
    """The objects of three radiographs."""
    images = images_in(tmp_path_factory.mktemp("phantoms"), 3)
    found = Drawn().predict_radiographs([read_radiograph(image) for image in images])
    return [objects_of(one, WORDS) for one in found]


@pytest.fixture
def archive() -> Iterator[Archive]:
    with archiving() as made:
        yield made


@pytest.fixture
def outbox(tmp_path: Path, results: list[dict[str, bytes]]) -> Iterator[Outbox]:
    """The results of three radiographs, for the destination `archive`."""
    inbox = Inbox(tmp_path / "inbox", Room(free_bytes=0))
    with holding(inbox.folder) as holder:
        for number, files in enumerate(results):
            spool = Spool(inbox.folder / INCOMING, lambda: Beginning(b"", "1.2.840"), 100)
            spool.write(b"x")
            inbox.take(spool.finish(f"1.2.{number}", "MODALITY"))
            job = inbox.claim(holder)
            assert job is not None
            inbox.write_results(job, files)
            inbox.predicted(job, holder, ["archive"])
    yield Outbox(inbox.folder, inbox.database, WORDS, 3600.0)
    inbox.close()


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails is tried again after a moment."""
    monkeypatch.setattr("pleura.serve.pacs.delivery.delay_s", lambda _: 0.1)
    monkeypatch.setattr("pleura.serve.pacs.outbox.delay_s", lambda _: 0.1)


def scu(port: int, ae_title: str = "ARCHIVE") -> StoreScu:
    return StoreScu(Peer("archive", LOOPBACK, port, ae_title), "PLEURA")


def states(outbox: Outbox) -> list[object]:
    return [state for (state,) in outbox.database.rows("SELECT state FROM instances ORDER BY id")]


def deliver(outbox: Outbox, destination: Any, ends: Any) -> Delivery:
    delivery = Delivery(outbox, destination)
    delivery.start()
    try:
        until(ends)
    finally:
        delivery.stop()
        delivery.join(30.0)
    assert not delivery.is_alive()
    return delivery


def test_all_that_is_due_goes_in_one_association_as_it_was_made(
    outbox: Outbox, archive: Archive, results: list[dict[str, bytes]]
) -> None:
    deliver(outbox, scu(archive.port), lambda: states(outbox) == ["delivered"] * 3)
    made = [dcmread_bytes(content) for files in results for content in files.values()]
    assert archive.stored == {one.SOPInstanceUID: one for one in made}
    assert {*archive.times.values()} == {1}
    assert archive.associations == 1


def dcmread_bytes(content: bytes) -> Dataset:
    import io

    return dcmread(io.BytesIO(content))


def test_report_is_sent_after_the_segmentation_that_it_refers_to(outbox: Outbox, archive: Archive) -> None:
    deliver(outbox, scu(archive.port), lambda: len(archive.stored) == 9)
    assert [one.Modality for one in archive.stored.values()] == ["SEG", "OT", "SR"] * 3


@pytest.mark.usefixtures("at_once")
def test_what_is_refused_is_tried_again_and_holds_up_nothing_else(outbox: Outbox, archive: Archive) -> None:
    refused = list[str]()

    def answer(made: Dataset) -> int:
        if made.Modality == "SEG" and len(refused) < 4:
            refused.append(made.SOPInstanceUID)
            return 0xA700
        return 0

    archive.answer = answer
    deliver(outbox, scu(archive.port), lambda: states(outbox) == ["delivered"] * 3)
    assert len(archive.stored) == 9
    counts = dict(outbox.database.rows("SELECT name, value FROM counts"))
    assert counts["deliveries refused"] == 4
    assert counts["deliveries"] == 3


def test_warning_of_an_archive_that_stored_it_is_a_success(outbox: Outbox, archive: Archive) -> None:
    archive.answer = lambda _: 0xB000
    deliver(outbox, scu(archive.port), lambda: states(outbox) == ["delivered"] * 3)


def test_reason_of_a_refusal_names_the_object_and_the_status(outbox: Outbox, archive: Archive) -> None:
    archive.answer = lambda made: 0xA900 if made.Modality == "SEG" else 0
    with holding(outbox.folder) as holder:
        parcels = outbox.claim("archive", holder, 9)
        found = [refusal for _, refusal in scu(archive.port).send(parcels)]
    assert found == ["seg: it does not take it as that class (0xA900)"] * 3
    assert len(archive.stored) == 6


def test_archive_that_does_not_know_a_class_gets_the_others(outbox: Outbox) -> None:
    archive = Archive(without=[SEG])
    archive.start()
    with holding(outbox.folder) as holder:
        found = [refusal for _, refusal in scu(archive.port).send(outbox.claim("archive", holder, 9))]
    archive.stop()
    assert found == ["seg: it does not take objects of that class"] * 3
    assert len(archive.stored) == 6


def test_archive_of_implicit_vr_alone_gets_all(outbox: Outbox) -> None:
    archive = Archive(syntaxes=["1.2.840.10008.1.2"])
    archive.start()
    deliver(outbox, scu(archive.port), lambda: states(outbox) == ["delivered"] * 3)
    archive.stop()
    assert len(archive.stored) == 9


@pytest.mark.usefixtures("at_once")
def test_archive_that_is_away_gets_all_when_it_is_back_and_no_attempt_is_counted(
    outbox: Outbox, archive: Archive, caplog: pytest.LogCaptureFixture
) -> None:
    archive.stop()
    delivery = Delivery(outbox, scu(archive.port))
    delivery.start()
    until(lambda: delivery.failures > 2)
    assert outbox.database.rows("SELECT DISTINCT state, attempts FROM deliveries") == [("waiting", 0)]
    archive.start()
    until(lambda: states(outbox) == ["delivered"] * 3)
    until(lambda: delivery.failures == 0)
    delivery.stop()
    delivery.join(30.0)


@pytest.mark.parametrize(
    ("titles", "reason"),
    [(("OTHER", []), "its AE title is another"), (("ARCHIVE", ["SOMEBODY"]), "our AE title is not known there")],
)
def test_rejection_of_an_association_is_said_in_words(
    outbox: Outbox, titles: tuple[str, list[str]], reason: str
) -> None:
    archive = Archive(called=titles[0], calling=titles[1])
    archive.start()
    with holding(outbox.folder) as holder, pytest.raises(UnreachableError, match=reason):
        next(scu(archive.port).send(outbox.claim("archive", holder, 9)))
    archive.stop()


@pytest.mark.usefixtures("at_once")
def test_object_that_ends_every_association_does_not_keep_the_others_back(outbox: Outbox, archive: Archive) -> None:
    first = list[str]()

    def answer(made: Dataset) -> int:
        poison = first[0] if first else made.StudyInstanceUID
        first[:] = [poison]
        if made.StudyInstanceUID == poison:
            archive.break_off()
        return 0

    archive.answer = answer
    deliver(outbox, scu(archive.port), lambda: states(outbox).count("delivered") == 2)
    assert sorted(map(str, states(outbox))) == ["delivered", "delivered", "sending"]
    ((attempts,),) = outbox.database.rows("SELECT attempts FROM deliveries WHERE state != 'delivered'")
    assert int(str(attempts)) >= 1


def test_archive_that_stays_away_too_long_is_given_up(outbox: Outbox, archive: Archive) -> None:
    archive.stop()
    impatient = Outbox(outbox.folder, outbox.database, WORDS, -1.0)
    deliver(impatient, scu(archive.port), lambda: states(outbox) == ["dead"] * 3)
    ((reason,),) = outbox.database.rows("SELECT DISTINCT reason FROM instances")
    assert reason == "not delivered to archive: not reached: no connection, or no TLS"


def test_each_destination_gets_all_whatever_becomes_of_the_other(outbox: Outbox, archive: Archive) -> None:
    with outbox.database.transaction() as db:
        db.execute(
            "INSERT INTO deliveries (instance, destination, state, since_s, due_s)"
            " SELECT instance, 'away', 'waiting', since_s, due_s FROM deliveries"
        )
    away = StoreScu(Peer("away", LOOPBACK, 1, "AWAY"), "PLEURA")
    other = Delivery(outbox, away)
    other.start()
    deliver(outbox, scu(archive.port), lambda: len(archive.stored) == 9)
    assert states(outbox) == ["sending"] * 3
    other.stop()
    other.join(30.0)
