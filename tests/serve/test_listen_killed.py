"""`pleura listen` between a modality and an archive, killed at random moments: each result arrives once in effect."""

from __future__ import annotations

import io
import os
import random
import signal
import threading
import time
from pathlib import Path

import pytest
from listeners import Drawn, Running, archiving, children_of, images_in, send, start, until
from pydicom import dcmread

from pleura.data.radiograph import read_radiograph
from pleura.inference.writers import objects_of
from pleura.serve.pacs.inbox import DEAD, IMAGES, RESULTS, Inbox, Room
from pleura.serve.pacs.spool import INCOMING
from pleura.serve.pacs.upkeep import open_counts

KILLS = int(os.environ.get("PLEURA_LISTENER_KILLS", "3"))
"""`make abuse` has 50."""
IMAGES_A_KILL = 2
pytestmark = pytest.mark.skipif(not Path("/proc").exists(), reason="needs /proc")


class Modality(threading.Thread):
    """Sends each image until it is answered for, as modalities do."""

    def __init__(self, images: list[Path], folder: Path) -> None:
        super().__init__(daemon=True)
        self.waiting, self.folder = list(images), folder

    def run(self) -> None:
        while self.waiting:
            try:
                port = int((self.folder / "settings.port").read_text())
            except (OSError, ValueError):
                time.sleep(0.1)
                continue
            answers = send(port, self.waiting[:3])
            done = [image for image, answer in zip(self.waiting, answers, strict=False) if answer == 0]
            self.waiting = [image for image in self.waiting if image not in done]
            time.sleep(0.2)


def kill(running: Running, which: int) -> None:
    """By turns: all of it as a power cut does, the listener alone, and what predicts alone."""
    if which == 0:
        running.kill()
    elif which == 1:
        os.kill(running.process.pid, signal.SIGKILL)
        running.process.wait()
    else:
        for worker in children_of(running.process.pid):
            os.kill(worker, signal.SIGKILL)


def expected(images: list[Path]) -> set[str]:
    """The UIDs of all results: they follow from the images and the model."""
    found = Drawn().predict_radiographs([read_radiograph(image) for image in images])
    files = [content for one in found for content in objects_of(one, ("seg", "sc", "sr")).values()]
    return {str(dcmread(io.BytesIO(content)).SOPInstanceUID) for content in files}


def test_killed_at_random_moments_it_delivers_each_result_and_no_other(tmp_path: Path) -> None:
    images = images_in(tmp_path / "phantoms", 2 + IMAGES_A_KILL * KILLS)
    chance = random.Random(int(os.environ.get("PLEURA_SEED", "1")))
    with archiving() as archive:
        modality = Modality(images, tmp_path)
        modality.start()
        running = start(tmp_path, [archive.address], pause_s=0.05)
        try:
            for number in range(KILLS):
                time.sleep(chance.uniform(0.0, 3.0))
                kill(running, number % 3)
                if running.process.poll() is not None:
                    running = start(tmp_path, [archive.address], pause_s=0.05)
            modality.join(120.0)
            assert modality.waiting == []
            until(lambda: len(archive.stored) == 3 * len(images), 120.0)
            until(lambda: nothing_is_left(tmp_path), 90.0)
            assert running.stop() == 0
        finally:
            if running.process.poll() is None:
                running.kill()
        assert {*archive.stored} == expected(images)
        sent = {dcmread(image).StudyInstanceUID for image in images}
        assert {made.StudyInstanceUID for made in archive.stored.values()} == sent
    check_the_books(tmp_path, len(images))


def nothing_is_left(folder: Path) -> bool:
    inbox = Inbox(folder / "inbox", Room(free_bytes=0))
    now = open_counts(inbox)["now"]
    inbox.close()
    return not any(now.values())


def check_the_books(folder: Path, count: int) -> None:
    """Each image is one row, and was counted once."""
    inbox = Inbox(folder / "inbox", Room(free_bytes=0))
    rows = inbox.database.rows("SELECT state, COUNT(*) FROM instances GROUP BY state")
    counts = open_counts(inbox)["so_far"]
    inbox.close()
    assert rows == [("delivered", count)]
    assert counts["received"] == counts["delivered"] == counts["deliveries"] == count
    for name in (INCOMING, IMAGES, RESULTS, DEAD):
        assert list((folder / "inbox" / name).iterdir()) == [], name
