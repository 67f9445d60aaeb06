"""`pleura serve` as a command: what it refuses to start with, and a process that answers until a signal."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from places import ROOT


def test_a_public_address_without_a_key_is_refused(pleura, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PLEURA_API_KEY", "PLEURA_API_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)
    done = pleura("serve", "--host", "0.0.0.0", "--port", 0)
    assert done.returncode == 1
    assert "--api-key-file" in done.stderr


def test_a_port_that_is_taken_is_refused_before_a_model_is_read(pleura) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = pleura("serve", "--port", port, "--model", "nowhere.safetensors")
    assert done.returncode == 1
    assert f"--port {port}" in done.stderr


def test_a_missing_package_says_how_it_is_installed(pleura, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pleura.extras.is_installed", lambda package: False)
    done = pleura("serve")
    assert (done.returncode, 'pip install "pleura[serve]"' in done.stderr) == (1, True)


def test_help_has_an_example(pleura) -> None:
    assert "Example: pleura serve --port 8080" in pleura("serve", "--help").stdout


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_answers_until_a_signal_and_ends_with_0(number: signal.Signals, run: Path, files) -> None:
    words = [sys.executable, "-m", "pleura", "serve", "--port", "0", "--model", str(run), "--device", "cpu"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        assert first["event"] == "listening"
        connection = http.client.HTTPConnection(urlsplit(first["url"]).netloc, timeout=60)
        connection.request("POST", "/v1/predict", files["png"], {"Content-Type": "image/png"})
        response = connection.getresponse()
        assert (response.status, json.loads(response.read())["model"]["name"]) == (200, first["model"])
        connection.close()
        process.send_signal(number)
        rest, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, "")
        assert [json.loads(line)["event"] for line in rest.splitlines()] == ["request", "stopped"]
    finally:
        process.kill()
        process.wait()
