"""A listener in a process of its own, with a model that needs no net, and those who send to it and take from it."""

from __future__ import annotations

import functools
import json
import logging
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dicom_objects import ALGORITHM, found_on
from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.transport import AssociationSocket

import pleura.serve.pacs.upkeep as upkeep
from pleura.data.phantoms.dicom_files import write_phantom_dataset
from pleura.serve.pacs.destinations import destinations_of
from pleura.serve.pacs.inbox import Room
from pleura.serve.pacs.listen import ListenSettings, listen


def _close(connection: AssociationSocket) -> None:
    if connection.socket is not None:
        with suppress(OSError):
            connection.socket.shutdown(socket.SHUT_RDWR)
        connection.socket.close()


# pynetdicom's own leaves the socket open of a connection that the other side has closed.
AssociationSocket._shutdown_socket = _close  # type: ignore[method-assign]
logging.getLogger("pynetdicom").addHandler(logging.NullHandler())
LOOPBACK = "127.0.0.1"
RESULTS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.88.34")


class Drawn:
    """Stands for a model: an F on every radiograph. The slow part of it is a sleep."""

    algorithm, prevalence, calibration = ALGORITHM, 0.25, object()

    def __init__(self, pause_s: float = 0.0) -> None:
        self.pause_s = pause_s

    def predict_radiographs(self, radiographs: Sequence[Any]) -> list[Any]:
        """What patients are called decides what happens to the process."""
        for radiograph in radiographs:
            if radiograph.patient_id == "KILLS":
                os.kill(os.getpid(), signal.SIGKILL)
            if radiograph.patient_id == "HANGS":
                time.sleep(1000.0)
        time.sleep(self.pause_s)
        return [found_on(radiograph) for radiograph in radiographs]


def main() -> None:
    """Listen with the settings in a JSON file, and write the port into another."""
    given = json.loads(Path(sys.argv[1]).read_text())
    upkeep.MAX_DEATHS = given.pop("deaths", upkeep.MAX_DEATHS)
    send_to, pause_s = given.pop("send_to"), given.pop("pause_s")
    inbox = Path(given.pop("inbox"))
    if "room" in given:
        given["room"] = Room(**given["room"])
    settings = ListenSettings(
        inbox, "PLEURA", destinations_of(send_to, {}, "PLEURA"), functools.partial(Drawn, pause_s), port=0, **given
    )

    def ready(port: int) -> None:
        file = Path(sys.argv[1]).with_suffix(".port")
        file.with_suffix(".new").write_text(str(port))
        file.with_suffix(".new").rename(file)

    listen(settings, ready)


@dataclass
class Running:
    """A running listener."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def kill(self) -> None:
        """End it and its workers at once, as a power cut does."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """Ask it to stop, and wait."""
        self.process.terminate()
        return self.process.wait(60)


def start(folder: Path, send_to: Sequence[str], pause_s: float = 0.0, **settings: Any) -> Running:
    """Start a listener whose inbox is folder/inbox; it goes on where an earlier one of the folder ended."""
    folder.mkdir(parents=True, exist_ok=True)
    file, log = folder / "settings.json", folder / "log.txt"
    file.with_suffix(".port").unlink(missing_ok=True)
    file.write_text(json.dumps({"inbox": str(folder / "inbox"), "send_to": send_to, "pause_s": pause_s, **settings}))
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    with log.open("ab") as said:
        command = [sys.executable, "-c", "import listeners; listeners.main()", str(file)]
        process = subprocess.Popen(command, stdout=said, stderr=said, env=environment, start_new_session=True)
    until(lambda: file.with_suffix(".port").exists() or process.poll() is not None, 60.0)
    if process.poll() is not None:
        raise RuntimeError(log.read_text())
    return Running(process, int(file.with_suffix(".port").read_text()), log)


@contextmanager
def listening(folder: Path, send_to: Sequence[str], **settings: Any) -> Iterator[Running]:
    """Run a listener, and end it."""
    running = start(folder, send_to, **settings)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.kill()


def until(is_so: Callable[[], object], within_s: float = 30.0) -> None:
    """Wait until something is so. Raises: TimeoutError."""
    ends = time.monotonic() + within_s
    while not is_so():
        if time.monotonic() > ends:
            raise TimeoutError
        time.sleep(0.05)


class Archive:
    """An application entity that takes results, and keeps count of how often each came."""

    def __init__(
        self,
        called: str = "ARCHIVE",
        calling: Sequence[str] = (),
        without: Sequence[str] = (),
        syntaxes: Sequence[str] = ("1.2.840.10008.1.2.1", "1.2.840.10008.1.2"),
    ) -> None:
        """called, calling: AE titles. without: classes that it does not know."""
        self.stored: dict[str, Dataset] = {}
        self.times: Counter[str] = Counter()
        self.associations = self.port = 0
        self.answer: Callable[[Dataset], int] = lambda _: 0x0000
        """The status for an instance."""
        self._ae = AE(called)
        self._ae.require_called_aet, self._ae.require_calling_aet = True, [*calling]
        for context in AllStoragePresentationContexts:
            if context.abstract_syntax not in without:
                self._ae.add_supported_context(context.abstract_syntax, [*syntaxes])
        self._server: Any = None

    @property
    def address(self) -> str:
        """How it is named as a destination."""
        return f"{LOOPBACK}:{self.port}:ARCHIVE"

    def start(self) -> None:
        """Listen; at the same port again, after a stop."""
        handlers: Any = [(evt.EVT_C_STORE, self._store), (evt.EVT_ACCEPTED, self._accept)]
        self._server = self._ae.start_server((LOOPBACK, self.port), block=False, evt_handlers=handlers)
        self.port = self._server.server_address[1]

    def stop(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self.break_off()
            self._server.shutdown()
            self._server = None

    def break_off(self) -> None:
        """Abort what associations there are."""
        for association in self._server.active_associations:
            association.abort()

    def _accept(self, _: Any) -> None:
        self.associations += 1

    def _store(self, event: Any) -> int:
        made = event.dataset
        status = self.answer(made)
        if status == 0:
            self.times[made.SOPInstanceUID] += 1
            self.stored[made.SOPInstanceUID] = made
        return status


@contextmanager
def archiving() -> Iterator[Archive]:
    """Run an archive."""
    archive = Archive()
    archive.start()
    try:
        yield archive
    finally:
        archive.stop()


def send(
    port: int,
    images: Sequence[Path | Dataset],
    calling: str = "MODALITY",
    called: str = "PLEURA",
    tls: ssl.SSLContext | None = None,
) -> list[int | None]:
    """Send images in one association; the status of each answer, None where there was none."""
    read = [dcmread(image) if isinstance(image, Path) else image for image in images]
    ae = AE(calling)
    for kind in {(one.SOPClassUID, one.file_meta.TransferSyntaxUID) for one in read}:
        ae.add_requested_context(*kind)
    association = ae.associate(LOOPBACK, port, ae_title=called, tls_args=(tls, LOOPBACK) if tls else None)
    if not association.is_established:
        return [None] * len(read)
    answers = []
    for one in read:
        try:
            answers.append(association.send_c_store(one).get("Status"))
        except (RuntimeError, ValueError):
            answers.append(None)
    association.release()
    return answers


def images_in(folder: Path, count: int, seed: int = 1, size_px: int = 64) -> list[Path]:
    """New radiographs of one study each."""
    write_phantom_dataset(folder, n_patients=count, seed=seed, size_px=size_px)
    return sorted((folder / "dicom").iterdir())[:count]


def children_of(process: int) -> list[int]:
    """The processes that a process has started, on Linux."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
        if parent == process:
            found.append(int(folder.name))
    return found
