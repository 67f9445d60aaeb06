"""The web server: its sockets, how long a client may take, and how it stops."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from types import FrameType
from typing import Any

import numpy as np
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from pleura.data.in_memory import radiograph_of
from pleura.errors import InputError
from pleura.malloc import give_memory_back
from pleura.serve.app import Api
from pleura.serve.logs import log
from pleura.serve.service import Model, Service
from pleura.serve.settings import Limits, ServeSettings

_RAMP = np.tile(np.arange(256, dtype=np.uint8), (256, 1))
LAST_S = 5
"""To close connections, once all that was taken is answered."""


def open_socket(settings: ServeSettings) -> socket.socket:
    """Return the socket to listen on. It is bound, so that nobody else takes the address, and refuses connections until
    a server listens on it.

    Raises: InputError where the address is taken, or none of this machine.
    """
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        bound = socket.socket(family)
        try:
            if os.name == "posix":  # elsewhere it would let two servers have one address
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
        except OSError:
            bound.close()
            raise
        return bound
    except (OSError, OverflowError, UnicodeError) as error:
        raise InputError(
            f"--host {settings.host} --port {settings.port}: cannot be listened on ({error}); choose another --port"
        ) from error


def url_of(settings: ServeSettings, listening: socket.socket) -> str:
    """Return the address that clients use."""
    host, port = listening.getsockname()[:2]
    scheme = "https" if settings.tls_cert else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def serve(model: Model, settings: ServeSettings, listening: socket.socket) -> None:
    """Serve until a signal to stop, and then finish what was taken. listening: of `open_socket`."""
    give_memory_back()
    model.predict_radiographs([radiograph_of(_RAMP)])  # the first one takes longer than any other
    server_of(Api(Service(model, settings)), settings).run([listening])
    log("stopped")


def server_of(api: Api, settings: ServeSettings) -> Server:
    """Return the server of an API."""
    limits = settings.limits

    class Bounded(Connection):
        bounds = limits

    config = uvicorn.Config(
        api.guard,
        http=Bounded,
        ws="none",
        lifespan="on",
        loop="asyncio",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=LAST_S,
        timeout_graceful_shutdown=LAST_S,
        backlog=limits.connections,
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
    )
    return Server(config, api)


class Server(uvicorn.Server):
    """Goes on answering after a signal to stop, until nothing is left to do or the time for it is over."""

    def __init__(self, config: uvicorn.Config, api: Api) -> None:
        super().__init__(config)
        self._api, self._stop_by, self._done_at = api, 0.0, 0.0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take nothing new from the first signal on; at the second one, stop at once."""
        if self._stop_by:
            self.should_exit = self.force_exit = True
        self._stop_by = time.monotonic() + self._api.service.settings.limits.stop_s
        self._api.service.stopping = True

    async def on_tick(self, counter: int) -> bool:
        """Return whether to end, which is asked ten times a second."""
        if self._stop_by and self._is_time_to_end():
            self.should_exit = True
        return await super().on_tick(counter)

    def _is_time_to_end(self) -> bool:
        now = time.monotonic()
        if now > self._stop_by:
            return True
        if not self._api.is_done:
            return False
        self._done_at = self._done_at or now
        return self._api.jobs.waiting == 0 or now > self._done_at + self._api.service.settings.limits.last_fetch_s

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say where."""
        await super().startup(sockets)
        for each in sockets or ():
            log("listening", url=url_of(self._api.service.settings, each), model=self._api.service.algorithm.name)


class Connection(H11Protocol):
    """A connection that is closed where the client is too slow: uvicorn itself waits for ever for headers, for the rest
    of a body that was answered already, and for an answer to be read."""

    bounds: Limits

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._head: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, unless there are too many already."""
        super().connection_made(transport)
        if len(self.connections) > self.bounds.connections:
            transport.abort()
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Take what came; from the first byte of a request on, its headers have to be whole in time."""
        before = self.cycle
        if before is None or before.response_complete:
            self._await_head()
        super().data_received(data)
        if self.cycle is not before:
            self._head = _cancel(self._head)

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._head, self._stalled = _cancel(self._head), _cancel(self._stalled)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client does not read: not for long."""
        super().pause_writing()
        self._stalled = self._stalled or self.loop.call_later(self.bounds.stalled_s, self.transport.abort)

    def resume_writing(self) -> None:
        """It does."""
        super().resume_writing()
        self._stalled = _cancel(self._stalled)

    def on_response_complete(self) -> None:
        """Close what is to be closed, also where the last bytes of the answer are not read."""
        super().on_response_complete()
        if self.transport.is_closing():
            self.loop.call_later(self.bounds.stalled_s, self.transport.abort)

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection."""
        super().timeout_keep_alive_handler()
        self.loop.call_later(self.bounds.stalled_s, self.transport.abort)

    def _await_head(self) -> None:
        self._head = self._head or self.loop.call_later(self.bounds.head_s, self.transport.abort)


def _cancel(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    """Stop a timer; returns that there is none any more."""
    if timer is not None:
        timer.cancel()
    return None
