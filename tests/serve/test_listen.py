"""`pleura listen` as a process: the whole way, what ends its workers, and how it stops."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from listeners import LOOPBACK, Archive, archiving, children_of, images_in, listening, send, until
from places import free_port
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from pleura.files import held
from pleura.serve.pacs.inbox import DEAD, IMAGES, RESULTS, Inbox, Room
from pleura.serve.pacs.status import page_of

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs process groups")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Not to be written to."""
    return images_in(tmp_path_factory.mktemp("phantoms"), 4)


@pytest.fixture
def archive() -> Iterator[Archive]:
    with archiving() as made:
        yield made


def patient(image: Path, patient_id: str) -> Dataset:
    made = dcmread(image)
    made.PatientID = patient_id
    return made


def status(port: int, path: str = "/status") -> Any:
    with urllib.request.urlopen(f"http://{LOOPBACK}:{port}{path}", timeout=10) as answer:
        content = answer.read().decode()
    return json.loads(content) if path == "/status" else content


def test_radiographs_come_back_as_results_and_nothing_is_kept(
    tmp_path: Path, images: list[Path], archive: Archive
) -> None:
    port = free_port()
    with listening(tmp_path, [archive.address], status_port=port) as running:
        assert send(running.port, [*images, images[0]]) == [0] * 5
        until(lambda: status(port)["so_far"].get("delivered") == len(images))
        assert len(archive.stored) == 3 * len(images)
        assert {*archive.times.values()} == {1}
        assert status(port)["so_far"]["received again"] == 1
        assert status(port, "/healthz") == "ok\n"
        page = status(port, "/")
        assert "<th>so far: delivered</th><td>4</td>" in page
        with pytest.raises(urllib.error.HTTPError, match="404"):
            status(port, "/other")
        elsewhere = urllib.request.Request(f"http://{LOOPBACK}:{port}/status", headers={"Host": "evil.example"})
        with pytest.raises(urllib.error.HTTPError, match="421"):
            urllib.request.urlopen(elsewhere, timeout=10)
        # A picture that comes back makes no loop: it is taken, and passed over.
        pictures = [one for one in archive.stored.values() if one.Modality == "OT"]
        for picture in pictures:
            picture.file_meta = FileMetaDataset()
            picture.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        assert send(running.port, pictures) == [0] * len(pictures)
        until(lambda: status(port)["so_far"].get("passed over") == len(pictures))
        assert running.stop() == 0
        log = running.log.read_text()
        assert not any(
            str(dcmread(image)[key].value) in log for image in images for key in ("PatientID", "SOPInstanceUID")
        )
    inbox = tmp_path / "inbox"
    assert [list((inbox / name).iterdir()) for name in (IMAGES, RESULTS, DEAD)] == [[], [], []]
    assert not (inbox.stat().st_mode | (inbox / "inbox.sqlite").stat().st_mode) & 0o077


def test_instance_that_kills_its_process_again_and_again_is_a_dead_letter_and_the_others_go_on(
    tmp_path: Path, images: list[Path], archive: Archive
) -> None:
    with listening(tmp_path, [archive.address], deaths=2) as running:
        assert send(running.port, [patient(images[0], "KILLS"), *images[1:]]) == [0] * len(images)
        until(lambda: len(archive.stored) == 3 * (len(images) - 1), 60.0)
        until(lambda: list((tmp_path / "inbox" / DEAD).glob("*.dcm")), 120.0)
        (letter,) = (tmp_path / "inbox" / DEAD).glob("*.txt")
        assert letter.read_text().startswith("the process that predicted it died, 2 times\n")


def test_instance_that_takes_too_long_is_ended(tmp_path: Path, images: list[Path], archive: Archive) -> None:
    with listening(tmp_path, [archive.address], limit_s=1.0, deaths=1) as running:
        assert send(running.port, [patient(images[0], "HANGS")]) == [0]
        until(lambda: list((tmp_path / "inbox" / DEAD).glob("*.dcm")), 120.0)
        assert "took too long" in running.log.read_text()


def test_worker_ends_with_the_process_that_started_it(tmp_path: Path, images: list[Path], archive: Archive) -> None:
    with listening(tmp_path, [archive.address], pause_s=30.0) as running:
        assert send(running.port, images[:1]) == [0]
        until(lambda: states(tmp_path) == ["predicting"])
        workers = children_of(running.process.pid)
        assert workers
        os.kill(running.process.pid, signal.SIGKILL)
        running.process.wait()
        until(lambda: not any(os.path.exists(f"/proc/{worker}") for worker in workers), 10.0)


def states(folder: Path) -> list[object]:
    inbox = Inbox(folder / "inbox", Room(free_bytes=0))
    try:
        return [state for (state,) in inbox.database.rows("SELECT state FROM instances ORDER BY id")]
    finally:
        inbox.close()


def test_what_is_left_when_it_stops_is_done_at_the_next_start(
    tmp_path: Path, images: list[Path], archive: Archive
) -> None:
    address = archive.address
    archive.stop()
    with listening(tmp_path, [address]) as running:
        assert send(running.port, images[:2]) == [0, 0]
        until(lambda: states(tmp_path) == ["sending", "sending"])
        assert running.stop() == 0
    archive.start()
    with listening(tmp_path, [address]):
        until(lambda: len(archive.stored) == 6)
        until(lambda: states(tmp_path) == ["delivered", "delivered"])


def test_second_listener_of_an_inbox_is_refused(tmp_path: Path, pleura: Callable[..., Any]) -> None:
    with held(tmp_path, "listens with this inbox"):
        done = pleura("listen", "--inbox", tmp_path, "--send-to", "127.0.0.1:1:ARCHIVE")
    assert done.returncode == 1
    assert "another process listens with this inbox; wait for it or stop it" in done.stderr


def test_model_that_cannot_be_loaded_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"no model")
    words = ["listen", "--inbox", "inbox", "--send-to", "127.0.0.1:1:ARCHIVE", "--model", "model.safetensors"]
    done = subprocess.run(
        [sys.executable, "-m", "pleura", *words], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    assert done.stderr.startswith("pleura: model.safetensors: ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--send-to", "nowhere"), "is no destination: give HOST:PORT:AE_TITLE"),
        (("--send-to", "host:99999:ARCHIVE"), "is no destination: port"),
        (("--send-to", "https://user:secret@host/dicom-web"), "addresses are logged"),
        (("--host", "0.0.0.0"), "can be reached by others: say who may send"),
        (("--write", "mask"), "'mask' is none of seg"),
        (("--write", ","), "is none of seg"),
        (("--ae-title", "LONGER THAN 16 CHARACTERS"), "is no AE title"),
        (("--allow-ae", "Ä"), "is no AE title"),
        (("--allow-address", "10.0.0.0/99"), "is no address and no network"),
        (("--tls-ca", "ca.pem"), "needs --tls-cert and --tls-key"),
        (("--tls-cert", "no.pem", "--tls-key", "no.key"), "a file cannot be used"),
        (("--nodes", "missing.yaml"), "missing.yaml"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_is_refused_before_anything_is_received(
    tmp_path: Path, pleura: Callable[..., Any], words: tuple[str, ...], says: str
) -> None:
    send_to = () if "--send-to" in words else ("--send-to", "127.0.0.1:1:ARCHIVE")
    done = pleura("listen", "--inbox", tmp_path / "inbox", *send_to, *words)
    assert done.returncode in (1, 2)
    assert says in " ".join(done.stderr.replace("│", " ").split())
    assert not (tmp_path / "inbox").exists()


def test_page_quotes_what_could_be_markup() -> None:
    page = page_of({"ae_title": "<b>", "now": {"last_failure": "<script>"}})
    assert "<b>" not in page
    assert "<script>" not in page
    assert "now: last failure" in page
