"""The C-STORE SCP: what is taken, what is passed over, who is refused, and that an answer means that it is kept."""

from __future__ import annotations

import errno
import io
import ipaddress
import logging
import os
import shutil
import socket
import sqlite3
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from listeners import LOOPBACK, images_in, send, until
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import JPEGLosslessSV1, RLELossless
from pynetdicom import AE
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu import P_DATA_TF

from pleura.serve.pacs import spool
from pleura.serve.pacs.destinations import server_tls
from pleura.serve.pacs.inbox import IMAGES, Inbox, Room
from pleura.serve.pacs.listener import CANNOT_UNDERSTAND, OUT_OF_RESOURCES, Access, Listener
from pleura.serve.pacs.spool import INCOMING, LEAST_FREE_BYTES
from pleura.serve.pacs.upkeep import open_counts, tidy

CT, SR, SEG = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.88.33", "1.2.840.10008.5.1.4.1.1.66.4"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Not to be written to."""
    return images_in(tmp_path_factory.mktemp("phantoms"), 4)


class Box:
    """A listener in this process, and its inbox."""

    def __init__(self, folder: Path, room: Room, access: Access, take_all: bool) -> None:
        self.inbox = Inbox(folder, room)
        self.listener = Listener(self.inbox, "PLEURA", access, take_all)
        self.port = self.listener.start(LOOPBACK, 0)

    def kept(self) -> list[Path]:
        return sorted((self.inbox.folder / IMAGES).iterdir())

    def counts(self) -> dict[str, int]:
        return dict(open_counts(self.inbox)["so_far"])


@contextmanager
def box(folder: Path, room: Room | None = None, access: Access | None = None, take_all: bool = False) -> Iterator[Box]:
    made = Box(folder / "inbox", room or Room(free_bytes=0), access or Access(), take_all)
    try:
        yield made
    finally:
        made.listener.stop(0.0)
        made.inbox.close()


def of_class(image: Path, sop_class: str, **changes: Any) -> Dataset:
    made = dcmread(image)
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = sop_class
    for keyword, value in changes.items():
        setattr(made, keyword, value)
    return made


def test_echo_is_answered(tmp_path: Path) -> None:
    with box(tmp_path) as one:
        ae = AE("MODALITY")
        ae.add_requested_context("1.2.840.10008.1.1")
        association = ae.associate(LOOPBACK, one.port, ae_title="PLEURA")
        assert association.send_c_echo().Status == 0
        association.release()


def test_what_is_answered_for_is_in_the_inbox_as_it_was_sent(tmp_path: Path, images: list[Path]) -> None:
    with box(tmp_path) as one:
        assert send(one.port, images) == [0] * len(images)
        sent, kept = ({dcmread(path).SOPInstanceUID: dcmread(path) for path in paths} for paths in (images, one.kept()))
        assert kept == sent
        assert one.counts()["received"] == len(images)
        assert list((one.inbox.folder / INCOMING).iterdir()) == []


def test_compressed_images_are_kept_compressed(tmp_path: Path, images: list[Path]) -> None:
    compressed = dcmread(images[0])
    compressed.compress(RLELossless, generate_instance_uid=False)
    with box(tmp_path) as one:
        assert send(one.port, [compressed]) == [0]
        (kept,) = map(dcmread, one.kept())
        assert kept.file_meta.TransferSyntaxUID == RLELossless
        assert kept == compressed


def test_every_transfer_syntax_that_is_read_is_accepted(tmp_path: Path) -> None:
    with box(tmp_path) as one:
        ae = AE("MODALITY")
        ae.add_requested_context("1.2.840.10008.5.1.4.1.1.1", JPEGLosslessSV1)
        ae.add_requested_context("1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.1.2.4.100")  # a film
        association = ae.associate(LOOPBACK, one.port, ae_title="PLEURA")
        assert [each.transfer_syntax for each in association.accepted_contexts] == [[JPEGLosslessSV1]]
        association.release()


def test_results_that_come_back_are_accepted_and_passed_over(tmp_path: Path, images: list[Path]) -> None:
    with box(tmp_path) as one:
        assert send(one.port, [of_class(images[0], kind) for kind in (SR, SEG)] + [dcmread(images[1])]) == [0] * 3
        assert len(one.kept()) == 1
        assert one.counts()["passed over by class"] == 2
        assert open_counts(one.inbox)["passed_over"] == {"report": 1, "segmentation": 1}


def test_other_classes_are_refused_with_their_context_and_counted(tmp_path: Path, images: list[Path]) -> None:
    with box(tmp_path) as one:
        assert send(one.port, [of_class(images[0], CT), dcmread(images[1])]) == [None, 0]
        assert one.counts()["contexts refused"] == 1
        assert len(one.kept()) == 1


def test_other_classes_are_passed_over_where_all_are_taken(tmp_path: Path, images: list[Path]) -> None:
    with box(tmp_path, take_all=True) as one:
        assert send(one.port, [of_class(images[0], CT)]) == [0]
        assert one.kept() == []
        assert one.counts() == {"passed over by class": 1}
        assert open_counts(one.inbox)["passed_over"] == {"another class": 1}


@pytest.mark.parametrize(
    ("access", "calling", "called"),
    [
        (Access(ae_titles=["PACS"]), "MODALITY", "PLEURA"),
        (Access(), "MODALITY", "OTHER"),
        (Access(addresses=[ipaddress.ip_network("10.0.0.0/8")]), "MODALITY", "PLEURA"),
    ],
    ids=["calling AE title", "called AE title", "address"],
)
def test_who_may_not_send_is_refused_and_counted(
    tmp_path: Path, images: list[Path], access: Access, calling: str, called: str
) -> None:
    with box(tmp_path, access=access) as one:
        assert send(one.port, images[:1], calling, called) == [None]
        until(lambda: sum(one.counts().values()) == 1)
        assert {*one.counts()} <= {"associations refused", "connections refused"}
        assert one.kept() == []


def test_who_is_on_the_lists_may_send(tmp_path: Path, images: list[Path]) -> None:
    access = Access(["PACS", "MODALITY"], [ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1")])
    with box(tmp_path, access=access) as one:
        assert send(one.port, images[:1]) == [0]
    assert access.allows("::ffff:127.0.0.1")
    assert not access.allows("::2")


def test_full_inbox_answers_out_of_resources_and_takes_more_once_there_is_room(
    tmp_path: Path, images: list[Path]
) -> None:
    with box(tmp_path, Room(files=2, free_bytes=0)) as one:
        assert send(one.port, images) == [0, 0, OUT_OF_RESOURCES, OUT_OF_RESOURCES]
        assert one.listener.is_full()
        for _ in range(2):
            job = one.inbox.claim("somebody")
            assert job is not None
            one.inbox.ended(job, "somebody", "passed_over", "made room")
        assert send(one.port, images) == [0, 0, OUT_OF_RESOURCES, OUT_OF_RESOURCES]


@pytest.mark.parametrize("where", [(Path, "open"), (os, "fsync"), (os, "replace")], ids=lambda where: where[1])
def test_full_disk_answers_out_of_resources_and_loses_nothing(
    tmp_path: Path, images: list[Path], monkeypatch: pytest.MonkeyPatch, where: tuple[Any, str]
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with box(tmp_path) as one:
        assert send(one.port, images[:1]) == [0]
        other = dcmread(images[1])
        with monkeypatch.context() as patched:
            patched.setattr(*where, refuse)
            assert send(one.port, [other]) == [OUT_OF_RESOURCES]
        assert len(one.kept()) == 1
        assert list((one.inbox.folder / INCOMING).iterdir()) == []
        assert send(one.port, images) == [0] * len(images)
        assert len(one.kept()) == len(images)
        assert one.counts()["refused for lack of room"] == 1


def test_disk_is_left_room_for_results_whatever_arrives_and_nothing_answered_for_is_lost(
    tmp_path: Path, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    disk_bytes = LEAST_FREE_BYTES + 5 * images[0].stat().st_size // 2
    seen: list[int] = []

    def usage(_: Path) -> Any:
        used = 0
        for name in (INCOMING, IMAGES):
            for file in (tmp_path / "inbox" / name).glob("*"):
                with suppress(FileNotFoundError):  # it is on its way from one to the other
                    used += file.stat().st_size
        seen.append(disk_bytes - used)
        return SimpleNamespace(total=disk_bytes, used=used, free=disk_bytes - used)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    with box(tmp_path) as one:
        left, done = images, list[str]()
        for number in (2, 2):
            answers = send(one.port, left)
            assert answers == [0] * number + [OUT_OF_RESOURCES] * (len(left) - number)
            assert list((one.inbox.folder / INCOMING).iterdir()) == []
            while (job := one.inbox.claim("somebody")) is not None:
                done.append(str(dcmread(job.path).SOPInstanceUID))
                one.inbox.ended(job, "somebody", "passed_over", "made room")
            tidy(one.inbox)
            left = left[number:]
        assert done == [str(dcmread(path).SOPInstanceUID) for path in images]
    assert min(seen) >= LEAST_FREE_BYTES - io.DEFAULT_BUFFER_SIZE


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root mounts a small disk")
def test_disk_that_is_full_to_the_last_byte_loses_nothing_and_it_goes_on_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = images_in(tmp_path / "phantoms", 12, size_px=512)
    uids = [str(dcmread(path).SOPInstanceUID) for path in images]
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", disk], capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        monkeypatch.setattr(spool, "LEAST_FREE_BYTES", 0)  # as where others fill the disk
        with box(disk) as one:
            answers = send(one.port, images)
            assert {*answers} == {0, OUT_OF_RESOURCES}
            answered = {uid for uid, answer in zip(uids, answers, strict=True) if answer == 0}
            assert answered <= {str(dcmread(path).SOPInstanceUID) for path in one.kept()}
            subprocess.run(["mount", "-o", "remount,size=50m", disk], check=True)
            assert send(one.port, images) == [0] * len(images)
            assert one.inbox.database.rows("PRAGMA integrity_check") == [("ok",)]
            jobs = [one.inbox.claim("somebody") for _ in images]
            assert sorted(job.sop_instance_uid for job in jobs if job) == sorted(uids)
            assert all(job and dcmread(job.path).SOPInstanceUID == job.sop_instance_uid for job in jobs)
            assert one.inbox.claim("somebody") is None
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_tables_that_cannot_be_written_answer_out_of_resources(
    tmp_path: Path, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> Any:
        raise sqlite3.OperationalError("database or disk is full")

    with box(tmp_path) as one:
        with monkeypatch.context() as patched:
            patched.setattr(one.inbox.database, "transaction", refuse)
            assert send(one.port, images[:1]) == [OUT_OF_RESOURCES]
        assert send(one.port, images[:1]) == [0]
        assert one.counts()["received"] == 1


def test_dataset_larger_than_a_radiograph_is_refused_while_it_comes(
    tmp_path: Path, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pleura.serve.pacs.listener.max_bytes", lambda: 1000)
    with box(tmp_path) as one:
        assert send(one.port, images[:2]) == [CANNOT_UNDERSTAND] * 2
        assert one.kept() == list((one.inbox.folder / INCOMING).iterdir()) == []


def test_sender_that_breaks_off_leaves_nothing(tmp_path: Path, images: list[Path]) -> None:
    with box(tmp_path) as one:
        with half_a_dataset(one.port, images[0]):
            until(lambda: list((one.inbox.folder / INCOMING).iterdir()))
        until(lambda: not list((one.inbox.folder / INCOMING).iterdir()))
        assert one.kept() == []
        assert send(one.port, images[:1]) == [0]


def test_sender_that_stops_in_the_middle_of_a_pdu_is_dropped(
    tmp_path: Path, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pleura.serve.pacs.associations._PDU_S", 0.5)
    with box(tmp_path) as one, half_a_dataset(one.port, images[0]) as connection:
        until(lambda: one.listener.associations == 1)
        connection.settimeout(30.0)
        assert connection.recv(100) == b""


def test_pdu_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    with box(tmp_path) as one, socket.create_connection((LOOPBACK, one.port)) as connection:
        connection.sendall(b"\x01\0\xff\xff\xff\xff" + bytes(100))
        connection.settimeout(30.0)
        assert connection.recv(100) == b""


def test_connections_beyond_the_bound_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with box(tmp_path) as one:
        monkeypatch.setattr("pleura.serve.pacs.associations.threading.active_count", lambda: 10**6)
        with socket.create_connection((LOOPBACK, one.port)) as connection:
            connection.settimeout(30.0)
            assert connection.recv(100) == b""
        assert one.counts()["connections refused"] == 1


@contextmanager
def half_a_dataset(port: int, image: Path) -> Iterator[socket.socket]:
    """A sender that says that it sends an image, begins to, and stops in the middle of a PDU."""
    ae = AE("MODALITY")
    made = dcmread(image)
    ae.add_requested_context(made.SOPClassUID, made.file_meta.TransferSyntaxUID)
    association = ae.associate(LOOPBACK, port, ae_title="PLEURA")
    connection = association.dul.socket.socket
    message = C_STORE_RQ()
    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = made.SOPClassUID, made.SOPInstanceUID
    request.DataSet = io.BytesIO(bytes(5000))
    message.primitive_to_message(request)
    message.context_id = 1
    parts = [P_DATA_TF() for _ in message.encode_msg(1, 2000)]
    for part, primitive in zip(parts, message.encode_msg(1, 2000), strict=True):
        part.from_primitive(primitive)
    association.dul.kill_dul()
    encoded = b"".join(part.encode() for part in parts)
    connection.sendall(encoded[:-1000])
    try:
        yield connection
    finally:
        connection.close()
        association._kill = True


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """own.pem and own.key, for this machine."""
    folder = tmp_path_factory.mktemp("tls")
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    )
    keys = ("-keyout", str(folder / "own.key"), "-out", str(folder / "own.pem"))
    subprocess.run([*command.split(), *keys], check=True, capture_output=True, timeout=60)
    return folder


def test_tls_is_spoken_and_whoever_shakes_no_hands_keeps_nobody_waiting(
    tmp_path: Path, images: list[Path], certificates: Path
) -> None:
    tls = server_tls(certificates / "own.pem", certificates / "own.key", certificates / "own.pem")
    client = ssl.create_default_context(cafile=str(certificates / "own.pem"))
    with box(tmp_path, access=Access(tls=tls)) as one, socket.create_connection((LOOPBACK, one.port)):
        assert send(one.port, images[:1]) == [None]  # not in TLS
        assert send(one.port, images[:1], tls=client) == [None]  # without a certificate
        client.load_cert_chain(certificates / "own.pem", certificates / "own.key")
        assert send(one.port, images[:2], tls=client) == [0, 0]
        assert len(one.kept()) == 2


def test_log_and_status_say_nothing_of_a_patient(
    tmp_path: Path, images: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    named = of_class(images[0], "1.2.840.10008.5.1.4.1.1.1", PatientName="Doe^Jane", PatientID="4711-0815")
    caplog.set_level(logging.DEBUG)
    with box(tmp_path) as one:
        assert send(one.port, [named, of_class(images[1], CT, PatientName="Doe^Jane")]) == [0, None]
        status = str(open_counts(one.inbox))
    ours = [record for record in caplog.records if record.name == "pleura.serve"]
    said = [f"{record.getMessage()} {record.__dict__['fields']}" for record in ours]
    assert len(said) == 2
    assert not any(word in text for text in (*said, status) for word in ("Doe", "Jane", "4711", named.SOPInstanceUID))


def test_store_scu_of_dcmtk_is_answered(tmp_path: Path, images: list[Path]) -> None:
    if shutil.which("storescu") is None:
        pytest.skip("storescu is not installed: Debian has it in dcmtk")
    with box(tmp_path) as one:
        command = ["storescu", "-aec", "PLEURA", LOOPBACK, str(one.port), *map(str, images)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert len(one.kept()) == len(images)
