"""Claim: `pleura listen` has each radiograph on the disk before it answers, and is faster than a listener that has not.

Against a handler as pynetdicom's documentation has it, which decodes each dataset and writes it anew, without waiting
for the disk. Both in a process of their own, in turn, on loopback, from senders of dcmtk; and what they hold in memory.

Run: python benchmarks/listen.py [--files 20] [--size 2048] [--rounds 3]
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from paired import machine, ratio, table
from pydicom import dcmread
from pydicom.uid import generate_uid
from pynetdicom import AE, AllStoragePresentationContexts, evt

from pleura.data.phantoms.dicom_files import write_phantom_dataset
from pleura.dicom.decode import TRANSFER_SYNTAXES

LOOPBACK = "127.0.0.1"
PEAK_UNIT_BYTES = 1 if sys.platform == "darwin" else 1024


def images(folder: Path, count: int, size_px: int) -> list[Path]:
    """Radiographs of 16 bits, each with a UID of its own."""
    write_phantom_dataset(folder / "phantom", n_patients=1, seed=1, size_px=64)
    made = dcmread(next((folder / "phantom" / "dicom").iterdir()))
    made.Rows = made.Columns = size_px
    made.BitsAllocated, made.BitsStored, made.HighBit = 16, 12, 11
    made.PixelData = np.random.default_rng(1).integers(0, 4096, (size_px, size_px), dtype=np.uint16).tobytes()
    made["PixelData"].VR = "OW"
    files = []
    for number in range(count):
        made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(number)])
        files.append(folder / f"{number}.dcm")
        made.save_as(files[-1], enforce_file_format=True)
    return files


def as_documented(folder: Path) -> int:
    """Serve as the example of pynetdicom's documentation does; the port."""
    ae = AE("PLEURA")
    for context in AllStoragePresentationContexts:
        ae.add_supported_context(context.abstract_syntax, [*TRANSFER_SYNTAXES])

    def store(event: Any) -> int:
        dataset = event.dataset
        dataset.file_meta = event.file_meta
        dataset.save_as(folder / f"{dataset.SOPInstanceUID}.dcm", enforce_file_format=True)
        return 0x0000

    server: Any = ae.start_server((LOOPBACK, 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    return int(server.server_address[1])


def as_pleura(folder: Path) -> int:
    """Serve as `pleura listen` does, which predicts in another process; the port."""
    from pleura.serve.pacs.inbox import Inbox, Room
    from pleura.serve.pacs.listener import Access, Listener
    from pleura.serve.pacs.logs import begin_log

    begin_log()
    return Listener(Inbox(folder / "inbox", Room(free_bytes=0)), "PLEURA", Access()).start(LOOPBACK, 0)


SIDES = {"documented": as_documented, "pleura": as_pleura}


@dataclass(frozen=True)
class Cost:
    """What it took to receive all files."""

    wall_s: float
    cpu_s: float
    """Of the listener."""
    peak_mb: float


def receive(side: str, files: list[Path], senders: int) -> Cost:
    """Start a listener, send all files in as many associations at a time, and end it."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--serve", side, folder]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        port_file = Path(folder) / "port"
        while not port_file.exists():
            time.sleep(0.05)
        parts = [files[first::senders] for first in range(senders)]
        began = time.perf_counter()
        sending = [
            subprocess.Popen(["dcmsend", "-aec", "PLEURA", LOOPBACK, port_file.read_text(), *map(str, part)])
            for part in parts
        ]
        codes = [one.wait() for one in sending]
        wall_s = time.perf_counter() - began
        process.send_signal(signal.SIGTERM)
        _, _, usage = os.wait4(process.pid, 0)
        process.returncode = 0
        received = len(list(Path(folder).rglob("*.dcm")))
        assert (codes, received) == ([0] * senders, len(files))
    return Cost(wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * PEAK_UNIT_BYTES / 1e6)


def serve(side: str, folder: Path) -> None:
    """Serve until SIGTERM."""
    port = SIDES[side](folder)
    (folder / "port.new").write_text(str(port))
    (folder / "port.new").rename(folder / "port")
    signal.sigwait([signal.SIGTERM])
    os._exit(0)


def main() -> None:
    """Compare both with one sender and with four."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=20)
    parser.add_argument("--size", type=int, default=2048, help="pixels on a side, of 16 bits")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve", nargs=2, metavar=("SIDE", "FOLDER"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.serve[0], Path(given.serve[1]))
    if shutil.which("dcmsend") is None:
        sys.exit("dcmsend is not installed: Debian has it in dcmtk")
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        files = images(Path(folder), given.files, given.size)
        megabytes = sum(file.stat().st_size for file in files) / 1e6
        rows = []
        for senders in (1, 4):
            rounds = [{side: receive(side, files, senders) for side in SIDES} for _ in range(given.rounds)]
            before, ours = ([one[side] for one in rounds] for side in SIDES)
            fastest = min(one.wall_s for one in ours)
            rows.append(
                [
                    f"{senders} sender{'s' * (senders > 1)}, {len(files)} files, {megabytes:.0f} MB",
                    ratio([one.wall_s for one in before], [one.wall_s for one in ours]),
                    ratio([one.cpu_s for one in before], [one.cpu_s for one in ours]),
                    f"{max(one.peak_mb for one in before):.0f} : {max(one.peak_mb for one in ours):.0f} MB",
                    f"{len(files) / fastest:.1f}/s, {megabytes / fastest:.0f} MB/s",
                ]
            )
    table(["receiving", "time", "processor time", "peak memory", "pleura"], rows)


if __name__ == "__main__":
    main()
