"""A service in a thread of the test, on a free port of this machine, and a client for it."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from pleura.inference.predictor import Predictor
from pleura.serve.app import Api
from pleura.serve.server import Server, open_socket, server_of
from pleura.serve.service import Service
from pleura.serve.settings import Limits, ServeSettings

TIMEOUT_S = 60
"""Of a test that waits for what never comes."""


@dataclass(frozen=True)
class Answer:
    """What a client got."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Served:
    """A service that runs."""

    port: int
    api: Api
    server: Server
    thread: threading.Thread

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None, **more: Any
    ) -> Answer:
        """Send one request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_S)
        try:
            connection.request(method, path, body, dict(headers or {}), **more)
            response = connection.getresponse()
            return Answer(response.status, dict(response.getheaders()), response.read())
        finally:
            connection.close()

    def predict(self, content: bytes, accept: str | None = None, path: str = "/v1/predict") -> Answer:
        headers = {"Content-Type": "application/octet-stream"} | ({} if accept is None else {"Accept": accept})
        return self.ask("POST", path, content, headers)

    def stop(self) -> None:
        """End it, and wait for that."""
        self.server.should_exit = True
        self.thread.join(TIMEOUT_S)
        assert not self.thread.is_alive()


@contextmanager
def serving(model: object, limits: Limits | None = None, **settings: Any) -> Iterator[Served]:
    """Serve a model for as long as the context lasts."""
    chosen = ServeSettings(port=0, limits=limits or Limits(), **settings)
    chosen.check()
    with open_socket(chosen) as listening:
        api = Api(Service(model, chosen))  # type: ignore[arg-type]
        server = server_of(api, chosen)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])), daemon=True)
        thread.start()
        served = Served(listening.getsockname()[1], api, server, thread)
        wait_for(lambda: server.started)
        try:
            yield served
        finally:
            served.stop()


def wait_for(condition: Callable[[], object]) -> None:
    """Wait until something is so."""
    until = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < until, "it never came to be"
        time.sleep(0.005)


def form(*files: tuple[str, bytes], name: str = "file") -> tuple[bytes, dict[str, str]]:
    """The body of a form with files, and its headers."""
    parts = [
        f'--edge\r\nContent-Disposition: form-data; name="{name}"; filename="{title}"\r\n\r\n'.encode()
        + content
        + b"\r\n"
        for title, content in files
    ]
    return b"".join([*parts, b"--edge--\r\n"]), {"Content-Type": "multipart/form-data; boundary=edge"}


class Seen:
    """A Predictor whose net is replaced by what it would see: all but the net is real, and takes milliseconds."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self.algorithm, self.triplet = predictor.algorithm, predictor.triplet
        self.batches: list[int] = []
        self.order: list[str] = []
        """Of the images that came to the net."""
        self.go = threading.Event()
        """Not set: whatever comes to the net waits there."""
        self.go.set()
        self.fail: Callable[[Any], bool] = lambda radiograph: False
        predictor.probabilities = lambda squares: (squares[:, ::4, ::4] / 255).astype(np.float32)  # type: ignore[method-assign]

    def predict_radiographs(self, radiographs):
        self.batches.append(len(radiographs))
        self.order += [radiograph.image_id for radiograph in radiographs]
        assert self.go.wait(TIMEOUT_S)
        if any(map(self.fail, radiographs)):
            raise RuntimeError("Smith^John is in this message")
        return self._predictor.predict_radiographs(radiographs)

    def predict(self, content):
        return self._predictor.predict(content)
