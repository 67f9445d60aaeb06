"""What the service does not do: wait for ever, hold too much, let everyone in, or say whose a radiograph is."""

from __future__ import annotations

import gc
import http.client
import io
import json
import logging
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from served import TIMEOUT_S, Answer, Seen, Served, form, serving, wait_for

from pleura.errors import InputError
from pleura.serve import logs
from pleura.serve.keys import load_keys
from pleura.serve.logs import LOGGER, use_json_logs
from pleura.serve.settings import Limits, ServeSettings, is_loopback

KEY, OTHER_KEY = "0123456789abcdef", "fedcba9876543210"
SMALL = Limits(body_bytes=100_000, batch_body_bytes=100_000, head_s=0.3, body_s=0.3, stalled_s=0.3, queue=2)


def raw(served: Served) -> socket.socket:
    return socket.create_connection(("127.0.0.1", served.port), timeout=TIMEOUT_S)


def until_closed(connection: socket.socket) -> bytes:
    """What comes until the service closes the connection; a test's time is over where it does not."""
    received = b""
    while piece := connection.recv(1 << 16):
        received += piece
    return received


@pytest.fixture
def keyed(seen: Seen, tmp_path: Path):
    (tmp_path / "keys").write_text(f"# of the first client\n{KEY}\n\n{OTHER_KEY}\n")
    with serving(seen, keys=load_keys(tmp_path / "keys", {})) as served:
        yield served


@pytest.mark.parametrize("name", ["X-API-Key", "Authorization"])
def test_key_is_taken_by_either_header_and_each_key_of_the_file(keyed: Served, files, name: str) -> None:
    for key, status in ((KEY, 200), (OTHER_KEY, 200), (KEY[:-1], 401), (KEY + "x", 401), ("", 401), ("ü" * 16, 401)):
        value = f"Bearer {key}" if name == "Authorization" else key
        answer = keyed.ask(
            "POST", "/v1/predict", files["png"], {name: value.encode("latin-1"), "Content-Type": "image/png"}
        )
        assert answer.status == status, key
    assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    "path", ["/v1/predict", "/v1/predict:batch", "/v1/jobs/x", "/v1/model", "/metrics", "/nowhere"]
)
def test_nothing_that_says_anything_is_given_without_a_key(keyed: Served, path: str) -> None:
    for method in ("GET", "POST"):
        assert keyed.ask(method, path, b"x").status == 401


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/openapi.json"])
def test_probes_need_no_key(keyed: Served, path: str) -> None:
    assert keyed.ask("GET", path).status == 200


@pytest.mark.parametrize("text", ["", "# nothing\n", "short\n", "0123456789 abcdef\n", "0123456789abcdefü\n"])
def test_a_file_without_a_good_key_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "keys").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="openssl rand"):
        load_keys(tmp_path / "keys", {})
    with pytest.raises(InputError, match="nowhere"):
        load_keys(tmp_path / "nowhere", {})


def test_keys_come_from_the_environment_too(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(KEY)
    assert load_keys(None, {"PLEURA_API_KEY": KEY}) == load_keys(None, {"PLEURA_API_KEY_FILE": str(tmp_path / "keys")})
    assert not load_keys(None, {})


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False),
     ("", False), ("192.168.0.7", False), ("localhost.example", False)],
)  # fmt: skip
def test_a_public_address_needs_a_key(host: str, local: bool) -> None:
    assert is_loopback(host) == local
    ServeSettings(host, keys=load_keys(None, {"PLEURA_API_KEY": KEY})).check()
    if not local:
        with pytest.raises(InputError, match="--api-key-file"):
            ServeSettings(host).check()


HOSTS = {
    **dict.fromkeys(("localhost", "LOCALHOST:8080", "127.0.0.1:1", "[::1]:8080", "10.1.2.3", "a.localhost", ""), 200),
    **dict.fromkeys(("evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example"), 421),
}


@pytest.mark.parametrize("host", HOSTS)
def test_without_a_key_it_is_no_site_of_another_name(seen: Seen, host: str, tmp_path: Path) -> None:
    # A name of another site that points here by now (DNS rebinding): the browser lets that site read what it answers.
    with serving(seen) as service:
        for path in ("/v1/model", "/", "/metrics"):
            answer = service.ask("GET", path, headers={"Host": host})
            assert answer.status == HOSTS[host]
        assert answer.status == 200 or answer.json["code"] == "other-host"


def test_with_a_key_it_may_have_any_name(keyed: Served) -> None:
    assert keyed.ask("GET", "/healthz", headers={"Host": "pleura.hospital.example"}).status == 200


def test_tls_needs_two_files_that_are_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--tls-key"):
        ServeSettings(tls_cert=tmp_path / "cert").check()
    with pytest.raises(InputError, match="is no file"):
        ServeSettings(tls_cert=tmp_path / "cert", tls_key=tmp_path / "key").check()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_over_tls_the_answer_is_the_same_and_plain_http_gets_none(seen: Seen, files, tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    words = f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout {key} -out {cert}".split()
    subprocess.run([*words, "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    with serving(seen, tls_cert=cert, tls_key=key) as served:
        context = ssl.create_default_context(cafile=cert)
        connection = http.client.HTTPSConnection("127.0.0.1", served.port, timeout=TIMEOUT_S, context=context)
        connection.request("POST", "/v1/predict", files["png"], {"Content-Type": "image/png"})
        response = connection.getresponse()
        assert (response.status, json.loads(response.read())["prediction"]["image_id"]) == (200, "file")
        connection.close()
        with raw(served) as plain:
            plain.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b"HTTP" not in until_closed_or_reset(plain)


@pytest.mark.parametrize("path", ["/v1/predict", "/v1/predict:batch"])
def test_a_large_body_is_refused_by_its_length_before_it_comes(seen: Seen, path: str) -> None:
    with serving(seen, SMALL) as served, raw(served) as connection:
        connection.sendall(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100001\r\n\r\n".encode())
        head, _, body = until_closed(connection).partition(b"\r\n\r\n")  # nothing of the body is ever sent
    assert b" 413 " in head.splitlines()[0]
    assert json.loads(body)["code"] == "too-large"


def test_a_large_body_without_a_length_is_refused_on_the_way_and_its_client_sees_the_answer(seen: Seen) -> None:
    def pieces():
        for _ in range(100):
            yield bytes(50_000)

    with serving(seen, SMALL) as served:
        answer = served.ask("POST", "/v1/predict", pieces(), {"Content-Type": "image/png"}, encode_chunked=True)  # type: ignore[arg-type]
        assert (answer.status, answer.json["code"]) == (413, "too-large")
        wait_for(lambda: served.api.service.held.bytes == 0)


def test_a_client_that_sends_a_whole_large_body_sees_the_answer(seen: Seen) -> None:
    with serving(seen, SMALL) as served:
        answer = served.predict(bytes(20_000_000))
        assert (answer.status, answer.json["code"]) == (413, "too-large")


def test_a_body_that_trickles_in_is_given_up(seen: Seen) -> None:
    with serving(seen, SMALL) as served, raw(served) as connection:
        connection.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50000\r\n\r\n")
        threading.Thread(target=_trickle, args=(connection,), daemon=True).start()
        answer = until_closed(connection)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"body-timeout" in answer


@pytest.mark.parametrize("start", [b"", b"POST /v1/predict HT", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-A: "])
def test_headers_that_trickle_in_or_never_come_are_given_up(seen: Seen, start: bytes) -> None:
    with serving(seen, SMALL) as served, raw(served) as connection:
        connection.sendall(start)
        if start:
            threading.Thread(target=_trickle, args=(connection,), daemon=True).start()
        assert until_closed_or_reset(connection) == b""


def test_a_body_that_trickles_on_after_the_answer_is_given_up(seen: Seen) -> None:
    with serving(seen, SMALL) as served, raw(served) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50000\r\n\r\n")
        threading.Thread(target=_trickle, args=(connection,), daemon=True).start()
        assert until_closed_or_reset(connection).startswith(b"HTTP/1.1 200 ")


def test_a_client_that_never_reads_its_answers_is_given_up(seen: Seen) -> None:
    with serving(seen, SMALL) as served, raw(served) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(1)
        with suppress(OSError):  # a reset, or a pipe that nothing empties
            while True:  # thousands of requests, and not one answer read
                connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100)
        wait_for(lambda: not served.server.server_state.connections)


def test_connections_are_bounded(seen: Seen) -> None:
    limits = Limits(connections=3)
    with serving(seen, limits) as served:
        held = [raw(served) for _ in range(3)]
        wait_for(lambda: len(served.server.server_state.connections) == 3)
        with raw(served) as one_more:
            assert until_closed_or_reset(one_more) == b""
        for connection in held:
            connection.close()
        wait_for(lambda: not served.server.server_state.connections)
        assert served.ask("GET", "/healthz").status == 200


def until_closed_or_reset(connection: socket.socket) -> bytes:
    try:
        return until_closed(connection)
    except ConnectionResetError:
        return b""


def _trickle(connection: socket.socket) -> None:
    try:
        while True:
            connection.sendall(b"a")
            time.sleep(0.02)
    except OSError:
        return


def test_a_full_queue_refuses_before_the_body_is_read(seen: Seen, files) -> None:
    seen.go.clear()
    with serving(seen, SMALL) as served, ThreadPoolExecutor(2) as clients:
        waiting = [clients.submit(served.predict, files["png"]) for _ in range(2)]
        wait_for(lambda: served.api.service.taken == 2)
        connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=TIMEOUT_S)
        connection.putrequest("POST", "/v1/predict")
        connection.putheader("Content-Length", "50000")
        connection.endheaders()  # and no body
        response = connection.getresponse()
        assert (response.status, json.loads(response.read())["code"]) == (429, "busy")
        assert int(response.headers["Retry-After"]) >= 1
        connection.close()
        seen.go.set()
        assert [each.result().status for each in waiting] == [200, 200]
        assert served.predict(files["png"]).status == 200


def test_all_uploads_together_are_bounded(seen: Seen, files) -> None:
    limits = replace(SMALL, held_bytes=len(files["png"]) + 10, queue=10)
    seen.go.clear()
    with serving(seen, limits) as served, ThreadPoolExecutor(1) as client:
        first = client.submit(served.predict, files["png"])
        wait_for(lambda: served.api.service.taken == 1)
        answer = served.predict(files["png"])
        assert (answer.status, answer.json["code"]) == (429, "busy")
        seen.go.set()
        assert first.result().status == 200
        assert served.api.service.held.bytes == 0
        assert served.predict(files["png"]).status == 200


def test_requests_that_come_meanwhile_pass_the_net_together(seen: Seen, files) -> None:
    seen.go.clear()
    with serving(seen, batch_size=4) as served, ThreadPoolExecutor(4) as clients:
        first = clients.submit(served.predict, files["png"])
        wait_for(lambda: seen.batches == [1])
        others = [clients.submit(served.predict, files["dicom"]) for _ in range(3)]
        wait_for(lambda: len(served.api.service._batcher._waiting) == 3)
        seen.go.set()
        answers = [each.result() for each in (first, *others)]
    assert seen.batches == [1, 3]
    assert [answer.status for answer in answers] == [200] * 4
    assert {answer.json["prediction"]["image_id"] for answer in answers[1:]} != {"file"}


def test_one_failure_in_a_batch_is_one_clients(seen: Seen, files) -> None:
    seen.go.clear()
    seen.fail = lambda radiograph: radiograph.sop_instance_uid is not None
    with serving(seen, batch_size=4) as served, ThreadPoolExecutor(4) as clients:
        first = clients.submit(served.predict, files["png"])
        wait_for(lambda: seen.batches == [1])
        others = [clients.submit(served.predict, files[kind]) for kind in ("png", "dicom", "jpeg")]
        wait_for(lambda: len(served.api.service._batcher._waiting) == 3)
        seen.go.set()
        assert [each.result().status for each in (first, *others)] == [200, 200, 500, 200]


def test_large_radiographs_are_decoded_one_at_a_time(seen: Seen, files) -> None:
    seen.go.clear()
    limits = Limits(pixels_in_flight=1)
    with serving(seen, limits, batch_size=4) as served, ThreadPoolExecutor(3) as clients:
        answers = [clients.submit(served.predict, files["png"]) for _ in range(3)]
        wait_for(lambda: seen.batches == [1] and served.api.service.taken == 3)
        seen.go.set()
        assert [each.result().status for each in answers] == [200] * 3
    assert seen.batches == [1, 1, 1]


def test_nothing_of_what_was_answered_is_kept(seen: Seen, files, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[weakref.ref[object]] = []
    predict = seen.predict_radiographs

    def predicted(radiographs):
        found = predict(radiographs)
        kept.extend(map(weakref.ref, (*radiographs, *found)))
        return found

    monkeypatch.setattr(seen, "predict_radiographs", predicted)
    with serving(seen) as served:
        for accept in ("application/json", "multipart/form-data", "image/png"):
            assert served.predict(files["dicom"], accept).status == 200
            wait_for(lambda: gc.collect() is not None and not any(one() for one in kept))
    assert len(kept) == 6


def test_what_a_client_that_has_gone_sent_is_not_predicted(seen: Seen, files) -> None:
    seen.go.clear()
    with serving(seen) as served, ThreadPoolExecutor(1) as client:
        first = client.submit(served.predict, files["png"])
        wait_for(lambda: seen.batches == [1])
        with raw(served) as gone:
            head = f"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(files['png'])}\r\n\r\n"
            gone.sendall(head.encode() + files["png"])
            wait_for(lambda: served.api.service.taken == 2)
        wait_for(lambda: served.api.service.taken == 1)
        seen.go.set()
        assert first.result().status == 200
        assert served.predict(files["png"]).status == 200
        assert b'pleura_refusals_total{reason="client-gone"} 1.0' in served.ask("GET", "/metrics").body
    assert seen.batches == [1, 1]


def test_an_answer_that_takes_too_long_is_given_up(seen: Seen, files) -> None:
    seen.go.clear()
    with serving(seen, replace(SMALL, answer_s=0.2)) as served:
        answer = served.predict(files["png"])
        assert (answer.status, answer.json["code"]) == (503, "too-slow")
        assert "retry-after" in {name.lower() for name in answer.headers}
        seen.go.set()


def test_a_signal_to_stop_ends_it_when_all_that_was_taken_is_answered(seen: Seen, files) -> None:
    seen.go.clear()
    with serving(seen) as served, ThreadPoolExecutor(1) as client:
        taken = client.submit(served.predict, files["png"])
        wait_for(lambda: seen.batches == [1])
        served.server.handle_exit(signal.SIGTERM, None)
        refused = served.predict(files["png"])
        assert (refused.status, refused.json["code"]) == (503, "stopping")
        assert served.ask("GET", "/readyz").status == 503
        assert served.ask("GET", "/healthz").status == 200
        assert not taken.done()
        seen.go.set()
        assert taken.result().status == 200
        served.thread.join(TIMEOUT_S)
        assert not served.thread.is_alive()


@pytest.fixture
def logged():
    """What the service logs."""
    stream = io.StringIO()
    loggers = [logging.getLogger(name) for name in (LOGGER, *logs._SERVERS, *logs._QUOTING)]
    before = [(logger, logger.handlers, logger.propagate, logger.level) for logger in loggers]
    use_json_logs(stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    for logger, handlers, propagate, level in before:
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


def test_logs_and_metrics_say_what_happened_and_nothing_of_a_patient(seen: Seen, files, logged, caplog) -> None:
    dataset = pydicom.dcmread(io.BytesIO(files["dicom"]))
    dataset.PatientName = dataset.PatientID = dataset.Modality = "SECRET"
    dataset.SOPInstanceUID = "1.2.3.911"
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    named = {"X-Request-ID": "SECRET", "User-Agent": "SECRET", "X-API-Key": "SECRET"}
    dataset.PhotometricInterpretation = "SECRET"
    refused = io.BytesIO()
    dataset.save_as(refused)
    seen.fail = lambda radiograph: radiograph.sop_instance_uid is None
    with serving(seen) as served:
        answers = [
            served.ask("POST", "/v1/predict", *_with(form(("SECRET.dcm", buffer.getvalue())), named)),
            served.ask("POST", "/v1/predict?SECRET=SECRET", *_with(form(("SECRET", refused.getvalue())), named)),
            served.ask("POST", "/v1/predict", *_with(form(("SECRET.png", files["png"])), named)),
            served.ask("GET", "/SECRET"),
            served.ask("GET", "/v1/jobs/SECRET"),
            served.ask("SECRET", "/v1/predict"),
            served.ask("POST", "/v1/predict", b"--edge\r\nSECRET\r\n", {"Content-Type": form()[1]["Content-Type"]}),
        ]
        assert b"SECRET" in answers[0].body  # the note on its Modality: for the client
        assert b"SECRET" in answers[1].body
        with raw(served) as connection:
            connection.sendall(b"SECRET nonsense\r\n\r\n")
            until_closed_or_reset(connection)
        metrics = served.ask("GET", "/metrics").body
    lines = logged()
    requests = [line for line in lines if line["event"] == "request"]
    assert [(line["status"], line.get("code")) for line in requests[:4]] == [
        (200, None), (422, "unreadable"), (500, "internal"), (404, "not-found"),
    ]  # fmt: skip
    assert [answer.headers["x-request-id"] for answer in answers] == [line["request_id"] for line in requests[:7]]
    assert any(line.get("error") == "RuntimeError" for line in lines), "the fault is in the log"
    others = [record.getMessage() for record in caplog.records if record.name not in (LOGGER, *logs._SERVERS)]
    text = json.dumps([lines, others]).encode() + metrics
    for secret in (b"SECRET", b"1.2.3.911", b"Smith"):
        assert secret not in text


def _with(sent: tuple[bytes, dict[str, str]], more: dict[str, str]) -> tuple[bytes, dict[str, str]]:
    return sent[0], sent[1] | more


def test_metrics_count_requests_refusals_and_images(seen: Seen, files) -> None:
    with serving(seen) as served:
        served.predict(files["png"])
        served.predict(b"x")
        served.ask("GET", "/nowhere")
        answer = served.ask("GET", "/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    text = answer.body.decode()
    for line in (
        'pleura_requests_total{route="/v1/predict",status="200"} 1.0',
        'pleura_requests_total{route="/v1/predict",status="422"} 1.0',
        'pleura_requests_total{route="other",status="404"} 1.0',
        'pleura_refusals_total{reason="unreadable"} 1.0',
        'pleura_images_total{found="pneumothorax"} 1.0',
        'pleura_request_seconds_count{route="/v1/predict"} 2.0',
        "pleura_queue_length 0.0",
        "pleura_queue_limit 32.0",
    ):
        assert line in text.splitlines()


@pytest.mark.skipif(not hasattr(__import__("os"), "memfd_create"), reason="files in memory are Linux'")
def test_no_file_is_written_while_a_radiograph_is_predicted(
    seen: Seen, files, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with serving(seen) as served:
        for kind in files:
            assert served.predict(files[kind]).status == 200
        assert served.ask("POST", "/v1/predict", *form(("../../../../tmp/x", files["dicom"]))).status == 200


def test_an_answer_is_for_the_client_that_asked(seen: Seen, phantoms: Path, predictor) -> None:
    contents = [path.read_bytes() for path in sorted((phantoms / "dicom").iterdir())[:8]]
    with serving(seen, batch_size=3) as served, ThreadPoolExecutor(8) as clients:
        answers: list[Answer] = list(clients.map(served.predict, contents))
    for content, answer in zip(contents, answers, strict=True):
        assert answer.json["prediction"]["mask_rle"] == predictor.predict(content).to_dict()["mask_rle"]
        assert answer.json["prediction"]["image_id"] == str(pydicom.dcmread(io.BytesIO(content)).SOPInstanceUID)
