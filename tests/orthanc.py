"""An archive to send to and to fetch from: Orthanc of Debian, on loopback, with a folder and ports of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO

AE_TITLES = ("-aet", "PLEURA", "-aec", "ORTHANC")
WE_MAY = {"AllowStore": True, "AllowFind": True, "AllowGet": True}
TIMEOUT_S = 60
_PLUGINS = (Path("/usr/share/orthanc/plugins"), Path("/usr/lib/orthanc"))
_STARTS_WITHIN_S = 60


def of_dcmtk(program: str) -> str | None:
    """Where a program of dcmtk is: pynetdicom puts others of these names beside Python, first on an activated PATH."""
    beside_python = Path(sys.executable).parent
    folders = [each for each in os.get_exec_path() if Path(each) != beside_python]
    return shutil.which(program, path=os.pathsep.join(folders))


def missing() -> str:
    """What of an archive and its clients is not installed; nothing where all of it is."""
    programs = [name for name in ("dcmsend", "findscu", "getscu") if of_dcmtk(name) is None]
    programs += ["orthanc"] if _program() is None else []
    return ", ".join(programs + (["orthanc-dicomweb"] if _dicomweb() is None else []))


def _program() -> str | None:
    return shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin")


def _dicomweb() -> Path | None:
    return next((path for folder in _PLUGINS for path in sorted(folder.glob("libOrthancDicomWeb.so*"))), None)


@dataclass(frozen=True)
class Archive:
    """A running archive."""

    url: str
    dicom_port: int

    def get(self, path: str, accept: str = "application/json", body: bytes | None = None) -> tuple[bytes, str]:
        """What it answers, and the Content-Type of that. body: posted, where there is one."""
        request = urllib.request.Request(f"{self.url}{path}", data=body, headers={"Accept": accept})
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            return answer.read(), answer.headers["Content-Type"]

    def json(self, path: str, body: bytes | None = None) -> Any:
        return json.loads(self.get(path, body=body)[0])

    def put(self, path: str, document: Any) -> None:
        """Change a setting."""
        request = urllib.request.Request(f"{self.url}{path}", data=json.dumps(document).encode(), method="PUT")
        with urllib.request.urlopen(request, timeout=TIMEOUT_S):
            pass

    def count(self) -> int:
        """How many instances it has."""
        return int(self.json("/statistics")["CountInstances"])

    def send(self, *folders: Path) -> None:
        """Send every file below folders, compressed ones as they are."""
        self._run("dcmsend", *AE_TITLES, "-dn", "+sd", "+r", *self._address, *map(str, folders))

    def find(self, study: str, *keys: str) -> list[str]:
        """What C-FIND prints for the series of a study."""
        wanted = [word for key in ("0008,0052=SERIES", f"StudyInstanceUID={study}", *keys) for word in ("-k", key)]
        return self._run("findscu", "-S", *AE_TITLES, *wanted, *self._address).splitlines()

    def get_study(self, study: str, folder: Path, *options: str) -> list[Path]:
        """Fetch a study into a new folder by C-GET."""
        folder.mkdir(parents=True)
        keys = ("-k", "0008,0052=STUDY", "-k", f"StudyInstanceUID={study}")
        self._run("getscu", "-S", *AE_TITLES, *options, "-od", str(folder), *keys, *self._address)
        return sorted(folder.iterdir())

    def wado(self, study: str) -> list[Dataset]:
        """The instances of a study by DICOMweb, as they are stored."""
        accept = 'multipart/related; type="application/dicom"; transfer-syntax=*'
        content, kind = self.get(f"/dicom-web/studies/{study}", accept)
        return [pydicom.dcmread(DicomBytesIO(part)) for part in parts(content, kind)]

    def orthanc_id(self, sop_instance_uid: str) -> str | None:
        """By which name its own addresses know an instance; None where it has none of this UID."""
        found = self.json("/tools/lookup", sop_instance_uid.encode())
        return next((str(one["ID"]) for one in found if one["Type"] == "Instance"), None)

    @property
    def _address(self) -> tuple[str, str]:
        return "127.0.0.1", str(self.dicom_port)

    @staticmethod
    def _run(program: str, *words: str) -> str:
        command = [str(of_dcmtk(program)), *words]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S)
        said = done.stdout + done.stderr
        assert done.returncode == 0, said
        return said


def parts(content: bytes, kind: str) -> list[bytes]:
    """The bodies of multipart/related. Source: RFC 2046 5.1.1."""
    boundary = re.search(r'boundary="?([^";]+)', kind)
    assert boundary is not None, kind
    _, *rest, last = (b"\r\n" + content).split(b"\r\n--" + boundary[1].encode())
    assert last.startswith(b"--")
    return [part.split(b"\r\n\r\n", 1)[1] for part in rest]


@contextmanager
def orthanc(folder: Path, lua: str = "") -> Iterator[Archive]:
    """Run an archive whose files are in `folder`; it takes from this machine alone, and newer instances for older.

    lua: a script of it, such as one that routes.
    """
    with socket.socket() as one, socket.socket() as other:  # both, so that they differ
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        http_port, dicom_port = one.getsockname()[1], other.getsockname()[1]
    settings, log = folder / "orthanc.json", folder / "log.txt"
    (folder / "route.lua").write_text(lua)
    settings.write_text(json.dumps(_settings(folder, http_port, dicom_port)))
    with log.open("wb") as said:
        process = subprocess.Popen([str(_program()), str(settings)], stdout=said, stderr=said, cwd=folder)
        try:
            archive = Archive(f"http://127.0.0.1:{http_port}", dicom_port)
            _wait(archive, process, log)
            yield archive
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _settings(folder: Path, http_port: int, dicom_port: int) -> dict[str, Any]:
    no_one_else_may = {f"DicomAlwaysAllow{what}": False for what in ("Echo", "Store", "Find", "Get", "Move")}
    return {
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "HttpPort": http_port,
        "DicomPort": dicom_port,
        "DicomAet": AE_TITLES[3],
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "OverwriteInstances": True,
        **no_one_else_may,
        "DicomCheckCalledAet": True,
        "DicomCheckModalityHost": True,
        "DicomModalities": {"pleura": {"AET": AE_TITLES[1], "Host": "127.0.0.1", "Port": 104, **WE_MAY}},
        "LuaScripts": [str(folder / "route.lua")],
        "Plugins": [str(_dicomweb())],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }


def _wait(archive: Archive, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until it answers. Raises: RuntimeError with its log where it does not."""
    ends = time.monotonic() + _STARTS_WITHIN_S
    while time.monotonic() < ends and process.poll() is None:
        try:
            archive.json("/system")
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"Orthanc does not answer: {log.read_text(errors='replace')}")
