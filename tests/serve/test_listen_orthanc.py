"""From an archive to `pleura listen` and back: Orthanc routes what it stores, and gets results that belong to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from listeners import LOOPBACK, images_in, listening, send, until
from orthanc import AE_TITLES, WE_MAY, Archive, missing, orthanc
from places import ROOT, free_port
from pydicom import dcmread

from pleura.data.masks import open_masks
from pleura.inference.predictor import Predictor

pytestmark = pytest.mark.skipif(
    bool(missing()), reason=f"not installed: {missing()}; Debian has orthanc, orthanc-dicomweb and dcmtk"
)
ROUTE_ALL = """
function OnStoredInstance(id, tags, metadata, origin)
  SendToModality(id, 'pleura')
end
"""


@contextmanager
def pleura_listen(folder: Path, *words: str) -> Iterator[tuple[int, int]]:
    """`pleura listen` with the model that comes with it; yields its port and that of its status page."""
    port, status_port = free_port(), free_port()
    command = [sys.executable, "-m", "pleura", "listen", "--inbox", str(folder / "inbox"), "--port", str(port)]
    command += ["--status-port", str(status_port), "--free-gb", "0.2", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PLEURA_DEVICE": "cpu"}
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        try:
            until(lambda: process.poll() is not None or "listening" in (folder / "log.txt").read_text(), 120.0)
            assert process.poll() is None, (folder / "log.txt").read_text()
            yield port, status_port
            process.terminate()
            assert process.wait(60) == 0
        finally:
            process.kill()
            process.wait()


def so_far(status_port: int) -> dict[str, int]:
    with urllib.request.urlopen(f"http://{LOOPBACK}:{status_port}/status", timeout=10) as answer:
        return dict(json.load(answer)["so_far"])


def check_results(archive: Archive, images: list[Path]) -> None:
    """Each radiograph has its results, and each result its radiograph; the masks are those of the model."""
    predictor = Predictor.load("default", device="cpu")
    for image in images:
        study = str(dcmread(image).StudyInstanceUID)
        there = {str(one.SOPInstanceUID): one for one in archive.wado(study)}
        assert Counter(str(one.Modality) for one in there.values() if one.Modality not in ("CR", "DX")) == {
            "SEG": 1,
            "OT": 1,
            "SR": 1,
        }
        for one in there.values():
            named = {str(each.value) for each in one.iterall() if each.keyword == "ReferencedSOPInstanceUID"}
            assert named <= there.keys()
            assert one.PatientID == dcmread(image).PatientID
        seg = image.parent.parent / f"{image.stem}.seg.dcm"
        next(one for one in there.values() if one.Modality == "SEG").save_as(seg)
        ((_, frames),) = open_masks(seg).masks.items()
        assert np.array_equal(frames.read().mask, predictor.predict(image).predicted_mask)


def test_archive_that_routes_everything_gets_each_result_once_and_there_is_no_loop(tmp_path: Path) -> None:
    (tmp_path / "orthanc").mkdir()
    images = images_in(tmp_path / "phantoms", 2, size_px=256)
    with orthanc(tmp_path / "orthanc", ROUTE_ALL) as archive:
        to = f"{LOOPBACK}:{archive.dicom_port}:{AE_TITLES[3]}"
        with pleura_listen(tmp_path, "--send-to", to, "--allow-ae", AE_TITLES[3], "--allow-address", LOOPBACK) as ports:
            archive.put("/modalities/pleura", {"AET": "PLEURA", "Host": LOOPBACK, "Port": ports[0], **WE_MAY})
            archive.send(images[0].parent)
            count = len(list(images[0].parent.iterdir()))
            until(lambda: archive.count() == 4 * count, 120.0)
            # All of ours came back: pictures are passed over by their header, the others by their class.
            until(lambda: so_far(ports[1]).get("passed over by class") == 2 * count, 60.0)
            until(lambda: so_far(ports[1]).get("passed over") == count, 60.0)
            assert so_far(ports[1])["delivered"] == count
            time.sleep(1.0)
            assert archive.count() == 4 * count
            assert so_far(ports[1])["predicted"] == count
        check_results(archive, sorted(images[0].parent.iterdir()))


def test_results_are_pushed_by_dicomweb(tmp_path: Path) -> None:
    (tmp_path / "orthanc").mkdir()
    images = images_in(tmp_path / "phantoms", 2)
    with orthanc(tmp_path / "orthanc") as archive, listening(tmp_path, [f"{archive.url}/dicom-web"]) as running:
        archive.send(images[0].parent)
        before = archive.count()
        assert send(running.port, images) == [0, 0]
        until(lambda: archive.count() == before + 6, 60.0)
        for image in images:
            study = archive.wado(str(dcmread(image).StudyInstanceUID))
            assert sorted(str(one.Modality) for one in study if one.Modality not in ("CR", "DX")) == ["OT", "SEG", "SR"]
        until(lambda: not list((tmp_path / "inbox" / "images").iterdir()))
        assert running.stop() == 0
