"""The inbox: what is the same and what replaces, what there is no room for, who holds what, and what is kept."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from inbox_scenario import WORDS, arrive, work

from pleura.errors import InputError, OutputError
from pleura.serve.pacs.database import FILE, Database
from pleura.serve.pacs.holders import holding, is_alive
from pleura.serve.pacs.inbox import (
    DEAD,
    IMAGES,
    MAX_ATTEMPTS,
    MAX_DEATHS,
    RESULTS,
    Inbox,
    InboxFullError,
    Room,
    Taken,
    delay_s,
)
from pleura.serve.pacs.outbox import Outbox
from pleura.serve.pacs.spool import INCOMING, Beginning, Spool
from pleura.serve.pacs.upkeep import (
    Kept,
    forget_other_settings,
    give_up_unnamed,
    open_counts,
    retry_dead,
    sweep,
    tidy,
)


@pytest.fixture
def inbox(tmp_path: Path) -> Iterator[Inbox]:
    (tmp_path / "archive").mkdir()
    made = Inbox(tmp_path / "inbox", Room(files=3, bytes=1000, free_bytes=0))
    yield made
    made.close()


@pytest.fixture
def archive(inbox: Inbox) -> Path:
    return inbox.folder.parent / "archive"


def states(inbox: Inbox) -> list[object]:
    return [state for (state,) in inbox.database.rows("SELECT state FROM instances ORDER BY id")]


def outbox(inbox: Inbox, give_up_s: float = 3600.0) -> Outbox:
    return Outbox(inbox.folder, inbox.database, WORDS, give_up_s)


def predict(inbox: Inbox, holder: str, *destinations: str) -> None:
    job = inbox.claim(holder)
    assert job is not None
    inbox.write_results(job, {word: job.path.read_bytes() for word in WORDS})
    inbox.predicted(job, holder, destinations)


def test_same_bytes_sent_again_are_one_job_before_and_after_the_delivery(inbox: Inbox, archive: Path) -> None:
    assert [arrive(inbox, "1.2", b"one"), arrive(inbox, "1.2", b"one")] == [Taken.NEW, Taken.AGAIN]
    work(inbox, archive)
    assert arrive(inbox, "1.2", b"one") is Taken.AGAIN
    assert states(inbox) == ["delivered"]
    assert list((inbox.folder / INCOMING).iterdir()) == list((inbox.folder / IMAGES).iterdir()) == []


def test_same_bytes_are_new_once_they_are_forgotten_or_other_settings_are_used(inbox: Inbox, archive: Path) -> None:
    forget_other_settings(inbox, "one model")
    arrive(inbox, "1.2", b"one")
    work(inbox, archive)
    forget_other_settings(inbox, "one model")
    assert arrive(inbox, "1.2", b"one") is Taken.AGAIN
    forget_other_settings(inbox, "another model")
    assert arrive(inbox, "1.2", b"one") is Taken.NEW
    work(inbox, archive)
    sweep(inbox, Kept(remembered_s=0.0))
    assert arrive(inbox, "1.2", b"one") is Taken.NEW


def test_changed_bytes_replace_an_older_instance_that_waits(inbox: Inbox, archive: Path) -> None:
    arrive(inbox, "1.2", b"old")
    assert arrive(inbox, "1.2", b"new") is Taken.CHANGED
    work(inbox, archive)
    assert states(inbox) == ["replaced", "delivered"]
    assert {file.read_bytes()[:7] for file in archive.iterdir()} == {b"headnew"}


def test_changed_bytes_wait_for_an_older_instance_that_is_predicted(inbox: Inbox, archive: Path) -> None:
    arrive(inbox, "1.2", b"old")
    with holding(inbox.folder) as holder:
        older = inbox.claim(holder)
        assert older is not None
        arrive(inbox, "1.2", b"new")
        assert inbox.claim("another") is None
        inbox.write_results(older, {"seg": b"of the old one"})
        inbox.predicted(older, holder, ["archive"])
        assert states(inbox) == ["replaced", "waiting"]
    work(inbox, archive)
    assert states(inbox) == ["replaced", "delivered"]


def test_changed_bytes_wait_for_an_older_instance_that_is_sent_and_are_delivered_after_it(inbox: Inbox) -> None:
    arrive(inbox, "1.2", b"old")
    out = outbox(inbox)
    with holding(inbox.folder) as holder:
        predict(inbox, holder, "archive", "other")
        (parcel,) = out.claim("archive", holder, 9)
        arrive(inbox, "1.2", b"new")
        assert inbox.claim(holder) is None
        out.refused(parcel, holder, "busy")
        assert states(inbox) == ["replaced", "waiting"]
        assert out.claim("other", holder, 9) == []
        predict(inbox, holder, "archive")
        (newer,) = out.claim("archive", holder, 9)
        assert newer.files[0].read_bytes() == b"headnew"


def test_what_returns_to_older_bytes_is_new_work(inbox: Inbox, archive: Path) -> None:
    assert [arrive(inbox, "1.2", content) for content in (b"a", b"b", b"a")] == [
        Taken.NEW,
        Taken.CHANGED,
        Taken.CHANGED,
    ]
    work(inbox, archive)
    assert {file.read_bytes()[:5] for file in archive.iterdir()} == {b"heada"}


@pytest.mark.parametrize("room", [Room(files=1, free_bytes=0), Room(bytes=5, free_bytes=0), Room(free_bytes=10**18)])
def test_what_there_is_no_room_for_is_refused_and_leaves_nothing(tmp_path: Path, room: Room) -> None:
    inbox = Inbox(tmp_path / "inbox", room)
    for number in range(0 if room.free_bytes else 1):
        arrive(inbox, f"1.2.{number}", b"four")
    with pytest.raises(InboxFullError, match="full"):
        arrive(inbox, "1.2.9", b"four")
    assert len(list((inbox.folder / IMAGES).iterdir())) == len(states(inbox)) == (0 if room.free_bytes else 1)
    assert list((inbox.folder / INCOMING).iterdir()) == []
    inbox.close()


def test_instance_that_is_there_already_needs_no_room(inbox: Inbox) -> None:
    for number in range(3):
        arrive(inbox, f"1.2.{number}", b"x")
    assert arrive(inbox, "1.2.1", b"x") is Taken.AGAIN


def test_two_associations_that_bring_the_same_at_once_make_one_job(inbox: Inbox) -> None:
    spools = [Spool(inbox.folder / INCOMING, lambda: Beginning(b"head", "1.2.840"), 10**6) for _ in range(6)]
    for spool in spools:
        spool.write(b"one")
    arrivals, taken = [spool.finish("1.2", "MODALITY") for spool in spools], list[Taken]()
    threads = [threading.Thread(target=lambda one=one: taken.append(inbox.take(one))) for one in arrivals]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one.value for one in taken) == ["again"] * 5 + ["new"]
    assert len(list((inbox.folder / IMAGES).iterdir())) == 1


def test_each_job_is_claimed_by_one_of_many(tmp_path: Path) -> None:
    inboxes = [Inbox(tmp_path / "inbox", Room(free_bytes=0)) for _ in range(4)]
    for number in range(20):
        arrive(inboxes[0], f"1.2.{number}", b"x")
    claimed = list[str]()

    def claim_all(one: Inbox) -> None:
        while (job := one.claim("somebody")) is not None:
            claimed.append(job.name)

    threads = [threading.Thread(target=claim_all, args=(one,)) for one in inboxes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(claimed) == len(set(claimed)) == 20
    for one in inboxes:
        one.close()


def test_sweep_frees_what_the_dead_held_and_leaves_the_living_theirs(inbox: Inbox) -> None:
    arrive(inbox, "1.2.1", b"x")
    arrive(inbox, "1.2.2", b"y")
    with holding(inbox.folder) as alive:
        with holding(inbox.folder) as dying:
            inbox.claim(alive)
            inbox.claim(dying)
        assert is_alive(inbox.folder, alive)
        sweep(inbox, Kept())
        assert states(inbox) == ["predicting", "waiting"]


def test_instance_that_kills_each_process_becomes_a_dead_letter(inbox: Inbox) -> None:
    arrive(inbox, "1.2", b"poison")
    for _ in range(MAX_DEATHS):
        assert states(inbox) == ["waiting"]
        assert inbox.claim("somebody who is dead") is not None
        sweep(inbox, Kept())
        assert inbox.claim("another") is None  # not at once: others come first
        with inbox.database.transaction() as db:
            db.execute("UPDATE instances SET due_s = 0")
    assert states(inbox) == ["dead"]
    (letter,) = (inbox.folder / DEAD).glob("*.txt")
    assert f"died, {MAX_DEATHS} times" in letter.read_text()
    assert letter.with_suffix(".dcm").read_bytes() == b"headpoison"


def test_claim_that_was_freed_can_end_nothing(inbox: Inbox, archive: Path) -> None:
    arrive(inbox, "1.2", b"x")
    job = inbox.claim("seems dead")
    assert job is not None
    sweep(inbox, Kept())
    inbox.ended(job, "seems dead", "dead", "too late")
    inbox.predicted(job, "seems dead", ["archive"])
    assert states(inbox) == ["waiting"]
    with inbox.database.transaction() as db:
        db.execute("UPDATE instances SET due_s = 0")
    work(inbox, archive)
    assert open_counts(inbox)["so_far"]["delivered"] == 1


def test_failure_that_is_not_the_files_is_tried_again_later_and_three_times(inbox: Inbox) -> None:
    arrive(inbox, "1.2", b"x")
    for attempt in range(1, MAX_ATTEMPTS + 1):
        with inbox.database.transaction() as db:
            db.execute("UPDATE instances SET due_s = 0")
        job = inbox.claim("somebody")
        assert job is not None
        assert inbox.failed(job, "somebody", "no memory") == (attempt == MAX_ATTEMPTS)
        assert inbox.claim("somebody") is None
    assert states(inbox) == ["dead"]


def test_dead_letters_are_tried_again_when_that_is_asked_for(inbox: Inbox, archive: Path) -> None:
    arrive(inbox, "1.2", b"broken")
    work(inbox, archive)
    assert states(inbox) == ["dead"]
    assert arrive(inbox, "1.2", b"broken") is Taken.NEW
    work(inbox, archive)
    assert retry_dead(inbox) == 2
    assert list((inbox.folder / DEAD).iterdir()) == []
    assert sorted(file.read_bytes() for file in (inbox.folder / IMAGES).iterdir()) == [b"headbroken"] * 2
    work(inbox, archive)
    assert states(inbox) == ["replaced", "dead"]


def test_nothing_is_kept_longer_than_asked_for(inbox: Inbox, archive: Path) -> None:
    inbox.keep_s = 60.0
    arrive(inbox, "1.2.1", b"x")
    arrive(inbox, "1.2.2", b"broken")
    work(inbox, archive)
    assert len(list((inbox.folder / IMAGES).iterdir())) == len(list((inbox.folder / RESULTS).iterdir())) == 1
    inbox.keep_s = 0.0
    tidy(inbox)
    assert [len(list((inbox.folder / name).iterdir())) for name in (IMAGES, RESULTS, DEAD)] == [0, 0, 2]
    sweep(inbox, Kept(dead_s=0.0, remembered_s=0.0))
    assert list((inbox.folder / DEAD).iterdir()) == states(inbox) == []


def test_files_that_no_row_names_are_removed_at_the_start(inbox: Inbox, archive: Path) -> None:
    arrive(inbox, "1.2", b"x")
    strays = [inbox.folder / INCOMING / "a.part", inbox.folder / IMAGES / "b.dcm", inbox.folder / RESULTS / "c"]
    for stray in strays[:2]:
        stray.write_bytes(b"x")
    strays[2].mkdir()
    sweep(inbox, Kept())
    assert all(stray.exists() for stray in strays)  # they may belong to what arrives right now
    sweep(inbox, Kept(), starting=True)
    assert not any(stray.exists() for stray in strays)
    work(inbox, archive)
    assert states(inbox) == ["delivered"]


def test_results_that_are_gone_are_made_again(inbox: Inbox, archive: Path) -> None:
    arrive(inbox, "1.2", b"x")
    out = outbox(inbox)
    with holding(inbox.folder) as holder:
        predict(inbox, holder, "archive")
        for file in (inbox.folder / RESULTS).rglob("*.dcm"):
            file.unlink()
        (parcel,) = out.claim("archive", holder, 9)
        assert parcel.files == ()
        out.lost(parcel, holder)
    work(inbox, archive)
    assert states(inbox) == ["delivered"]


def test_delivery_that_is_refused_too_long_is_given_up_with_its_reason(inbox: Inbox) -> None:
    arrive(inbox, "1.2", b"x")
    patient, strict = outbox(inbox), outbox(inbox, give_up_s=-1.0)
    with holding(inbox.folder) as holder:
        predict(inbox, holder, "archive", "other")
        (parcel,) = patient.claim("archive", holder, 9)
        assert not patient.refused(parcel, holder, "busy")
        assert patient.claim("archive", holder, 9) == []  # not due yet
        with inbox.database.transaction() as db:
            db.execute("UPDATE deliveries SET due_s = 0")
        (parcel,) = strict.claim("archive", holder, 9)
        assert strict.refused(parcel, holder, "it cannot understand it")
        assert states(inbox) == ["sending"]  # the other destination may still take it
        (parcel,) = strict.claim("other", holder, 9)
        strict.delivered(parcel, holder)
    tidy(inbox)
    assert states(inbox) == ["dead"]
    (letter,) = (inbox.folder / DEAD).glob("*.txt")
    assert letter.read_text().startswith("not delivered to archive: it cannot understand it\n")


def test_results_for_a_destination_that_is_not_named_any_more_are_dead_letters(inbox: Inbox) -> None:
    arrive(inbox, "1.2", b"x")
    with holding(inbox.folder) as holder:
        predict(inbox, holder, "gone")
    assert give_up_unnamed(inbox, ["gone"]) == 0
    assert give_up_unnamed(inbox, ["archive"]) == 1
    assert states(inbox) == ["dead"]


def test_clock_that_was_ahead_keeps_nothing_waiting(inbox: Inbox) -> None:
    arrive(inbox, "1.2", b"x")
    with inbox.database.transaction() as db:
        db.execute("UPDATE instances SET due_s = ?", (time.time() + 10**7,))
    assert inbox.claim("somebody") is None
    sweep(inbox, Kept())
    assert inbox.claim("somebody") is not None


def test_waits_double_up_to_a_quarter_of_an_hour_and_differ_by_chance() -> None:
    assert [2.5 * 2**n <= delay_s(n + 1) <= 5.0 * 2**n for n in range(7)] == [True] * 7
    assert 450 <= delay_s(10**6) <= 900
    assert len({delay_s(3) for _ in range(20)}) > 10


def test_spool_writes_what_comes_and_no_more_than_it_may(tmp_path: Path) -> None:
    spool = Spool(tmp_path, lambda: Beginning(b"head", "1.2.840"), 10)
    for piece in (b"12345", b"67890"):
        spool.write(piece)
    assert spool.finish("1.2", "MODALITY").path.read_bytes() == b"head1234567890"
    spool.close()
    assert list(tmp_path.iterdir()) == []
    spool = Spool(tmp_path, lambda: Beginning(b"head", "1.2.840"), 10)
    for _ in range(3):
        spool.write(b"12345")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="more than"):
        spool.finish("1.2", "MODALITY")


def test_same_dataset_in_another_transfer_syntax_has_another_hash(tmp_path: Path) -> None:
    hashes = set()
    for syntax in ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"):
        spool = Spool(tmp_path, lambda syntax=syntax: Beginning(b"head", syntax), 10)
        spool.write(b"x")
        hashes.add(spool.finish("1.2", "MODALITY").sha256)
        spool.close()
    assert len(hashes) == 2


def test_tables_of_another_version_are_refused(tmp_path: Path) -> None:
    Database(tmp_path).close()
    database = Database(tmp_path)
    with database.transaction() as db:
        db.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(OutputError, match="another version"):
        Database(tmp_path)
    (tmp_path / FILE).write_bytes(b"not a database" * 100)
    with pytest.raises(OutputError, match="cannot be opened"):
        Database(tmp_path)
