"""STOW-RS: only an answer that names each instance as stored is a success."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from listeners import LOOPBACK, Drawn, images_in
from pydicom import dcmread

from pleura.config.nodes import Node
from pleura.data.radiograph import read_radiograph
from pleura.errors import ConfigError
from pleura.inference.writers import objects_of
from pleura.serve.pacs.delivery import UnreachableError
from pleura.serve.pacs.dicomweb import StowClient
from pleura.serve.pacs.outbox import Parcel


class Service:
    """A service that gives one answer to everything, and keeps what it was asked."""

    def __init__(self, code: int, content: bytes, headers: dict[str, str]) -> None:
        self.requests = list[tuple[str, str, dict[str, str], bytes]]()
        service = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = service.body_of(self)
                service.requests.append((self.command, self.path, dict(self.headers), body))
                self.send_response(code)
                for name, value in {"Content-Length": str(len(content)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer((LOOPBACK, 0), Handler)
        self.url = f"http://{LOOPBACK}:{self.server.server_address[1]}/dicom-web"

    @staticmethod
    def body_of(handler: Any) -> bytes:
        if handler.headers.get("Transfer-Encoding") != "chunked":
            return bytes(handler.rfile.read(int(handler.headers.get("Content-Length", 0))))
        body = b""
        while size := int(handler.rfile.readline(), 16):
            body += handler.rfile.read(size)
            handler.rfile.readline()
        handler.rfile.readline()
        return body


@contextmanager
def service(code: int, content: bytes | dict[str, Any] = b"", **headers: str) -> Iterator[Service]:
    made = Service(code, content if isinstance(content, bytes) else json.dumps(content).encode(), headers)
    thread = threading.Thread(target=made.server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield made
    finally:
        made.server.shutdown()
        made.server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def parcel(tmp_path_factory: pytest.TempPathFactory) -> Parcel:
    folder = tmp_path_factory.mktemp("results")
    (image,) = images_in(folder, 1)
    files = []
    for word, content in objects_of(Drawn().predict_radiographs([read_radiograph(image)])[0], ("seg", "sr")).items():
        files.append(folder / f"{word}.dcm")
        files[-1].write_bytes(content)
    return Parcel(1, "name", "service", tuple(files), 0, 0.0)


def uids(parcel: Parcel) -> list[str]:
    return [str(dcmread(file).SOPInstanceUID) for file in parcel.files]


def answer(stored: list[str], failed: dict[str, int] | None = None) -> dict[str, Any]:
    """The Store Instances Response Module in JSON."""
    document: dict[str, Any] = {}
    if stored:
        document["00081199"] = {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": [uid]}} for uid in stored]}
    if failed:
        document["00081198"] = {
            "vr": "SQ",
            "Value": [
                {"00081155": {"vr": "UI", "Value": [uid]}, "00081197": {"vr": "US", "Value": [reason]}}
                for uid, reason in failed.items()
            ],
        }
    return document


def pushed(url: str, parcel: Parcel, **node: Any) -> str | None:
    ((_, refusal),) = StowClient("service", Node(url=url, **node)).send([parcel])
    return refusal


JSON = {"Content-Type": "application/dicom+json; charset=utf-8"}


def test_all_files_of_a_parcel_are_pushed_in_one_request(parcel: Parcel) -> None:
    with service(200, answer(uids(parcel)), **JSON) as one:
        assert pushed(one.url, parcel) is None
        ((method, path, headers, body),) = one.requests
    assert (method, path) == ("POST", "/dicom-web/studies")
    assert headers["Content-Type"].startswith('multipart/related; type="application/dicom"')
    assert headers["Accept"] == "application/dicom+json"
    assert all(file.read_bytes()[128:] in body for file in parcel.files)


def test_instance_that_an_answer_does_not_name_is_refused_with_its_reason(parcel: Parcel) -> None:
    seg, sr = uids(parcel)
    for code in (200, 202, 409):
        with service(code, answer([seg], {sr: 0xA900}), **JSON) as one:
            assert pushed(one.url, parcel) == f"sr: HTTP {code} does not say that it is stored (0xA900)"


@pytest.mark.parametrize("content", [b"<html>Please log in</html>", b"", b"[1]", b"{}"], ids=repr)
def test_other_page_that_answers_200_is_no_success(parcel: Parcel, content: bytes) -> None:
    for kind in ("text/html", "application/dicom+json"):
        with service(200, content, **{"Content-Type": kind}) as one:
            refusal = pushed(one.url, parcel)
            assert refusal == "seg, sr: HTTP 200 does not say that it is stored (no reason given)"


@pytest.mark.parametrize("code", [401, 403, 404, 429, 500, 503])
def test_service_that_takes_nothing_now_is_not_reached(parcel: Parcel, code: int) -> None:
    with service(code, b"no") as one, pytest.raises(UnreachableError, match=f"HTTP {code}") as refusal:
        pushed(one.url, parcel)
    assert refusal.value.during == (parcel if code >= 500 else None)


def test_redirection_is_not_followed(parcel: Parcel) -> None:
    with service(302, b"", Location="/login") as one:
        with pytest.raises(UnreachableError, match="redirects to another address"):
            pushed(one.url, parcel)
        assert len(one.requests) == 1


def test_service_that_is_not_there_is_not_reached(parcel: Parcel) -> None:
    with pytest.raises(UnreachableError, match="no connection"):
        pushed(f"http://{LOOPBACK}:1/dicom-web", parcel)


def test_token_and_password_come_from_files(parcel: Parcel, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3cret\n")
    with service(200, answer(uids(parcel)), **JSON) as one:
        pushed(one.url, parcel, token_file=str(tmp_path / "secret"))
        pushed(one.url, parcel, user="me", password_file=str(tmp_path / "secret"))
        given = [headers["Authorization"] for _, _, headers, _ in one.requests]
    assert given == ["Bearer s3cret", "Basic bWU6czNjcmV0"]
    (tmp_path / "empty").touch()
    for name in ("missing", "empty"):
        with pytest.raises(ConfigError, match=name):
            StowClient("service", Node(url="http://x", token_file=str(tmp_path / name)))
