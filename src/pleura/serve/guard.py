"""What is around every request: its id, the key, time and refusals in one form, a line in the log, and metrics."""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextlib import suppress
from typing import Any

from pleura.serve.logs import log
from pleura.serve.pages import PAGES
from pleura.serve.problems import MEDIA_TYPE, ProblemError
from pleura.serve.service import Service
from pleura.serve.settings import names_this_machine

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = ("/healthz", "/readyz", "/openapi.json", *PAGES)
"""Without a key: what probes, generators of clients and browsers ask for, and no result."""
ROUTES = ("/v1/predict", "/v1/predict:batch", "/v1/model", "/metrics", *OPEN)
JOBS = "/v1/jobs/"
LINGER_S, LINGER_BYTES = 2.0, 256 * 10**6
"""How long, and how much, of a refused body is still read: closed at once, the client may not see the answer."""
_EVERYWHERE = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))


def route_of(path: str) -> str:
    """Return the address that a path belongs to, as it is counted and logged: never what a client wrote."""
    if path.startswith(JOBS):
        return f"{JOBS}{{id}}"
    return path if path in ROUTES else "other"


def headers_of(scope: Scope) -> dict[str, str]:
    """Return the headers of a request by their names in lower case."""
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


def request_id_of(headers: Mapping[str, str]) -> str:
    """Return the client's X-Request-ID where it is a UUID, else a new one: other text might name a patient."""
    with suppress(ValueError):
        given = headers.get("x-request-id", "")
        if len(given) == 36:
            return str(uuid.UUID(given))
    return str(uuid.uuid4())


async def refuse(problem: ProblemError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with a problem, and then read on for a moment what the client still sends."""
    state = scope["state"]
    state["code"] = problem.code
    body = json.dumps(problem.document(state["request_id"])).encode()
    unread = not state["body_read"]
    headers = {"content-type": MEDIA_TYPE, "content-length": str(len(body)), **problem.headers}
    if unread and scope["method"] not in ("GET", "HEAD"):
        headers["connection"] = "close"
    encoded = [(name.lower().encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": problem.status, "headers": encoded})
    await send({"type": "http.response.body", "body": body, "more_body": unread})
    if unread:
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                left = LINGER_BYTES
                while left > 0 and not state["body_read"]:
                    left -= len((await receive()).get("body", b""))
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class Guard:
    """The ASGI application around the API."""

    def __init__(self, app: App, service: Service) -> None:
        self._app, self._service = app, service
        self.active = 0
        """Requests that are not answered yet."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or pass on what is none."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = headers_of(scope)
        clock = asyncio.get_running_loop().time
        started, status, route = clock(), 0, route_of(scope["path"])
        state = scope.setdefault("state", {})
        state |= {"request_id": request_id_of(headers), "body_read": False, "bytes_in": 0, "code": None}

        async def reading() -> Message:
            message = await receive()
            state["bytes_in"] += len(message.get("body", b""))
            if message["type"] == "http.disconnect" or not message.get("more_body", False):
                state["body_read"] = True
            return message

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = [*_EVERYWHERE, (b"x-request-id", state["request_id"].encode())]
                message = {**message, "headers": [*message.get("headers", ()), *own]}
            await send(message)

        self.active += 1
        try:
            await self._admitted(scope, headers, route, reading, sending)
        finally:
            self.active -= 1
            seconds = clock() - started
            self._service.metrics.request(route, status, seconds, state["code"])
            level = logging.ERROR if status in (0, 500) else logging.INFO
            log(
                "request",
                level,
                request_id=state["request_id"],
                method=scope["method"] if scope["method"] in ("GET", "POST", "DELETE", "HEAD") else "other",
                route=route,
                status=status,
                code=state["code"],
                seconds=round(seconds, 4),
                bytes_in=state["bytes_in"],
                client=(scope.get("client") or [None])[0],
            )

    async def _admitted(
        self, scope: Scope, headers: Mapping[str, str], route: str, receive: Receive, send: Send
    ) -> None:
        try:
            scope["state"]["key"] = self._key_of(route, headers)
            if not self._service.settings.keys and not names_this_machine(headers.get("host")):
                raise ProblemError(
                    "other-host",
                    "without an API key it answers to localhost and to IP addresses alone; ask by one of these, or "
                    "start it with --api-key-file",
                )
            if scope["method"] not in ("GET", "HEAD") and headers.get("sec-fetch-site") == "cross-site":
                raise ProblemError("other-site", "only pages of this service may send requests from a browser")
            if self._service.stopping and scope["method"] == "POST":
                raise ProblemError("stopping", "it finishes what it took; ask another instance", retry_after_s=5)
        except ProblemError as problem:
            await refuse(problem, scope, receive, send)
            return
        if scope["method"] == "HEAD" and route in ROUTES:  # the server leaves the body out; a job it would not be sent
            scope = {**scope, "method": "GET"}
        await self._app(scope, receive, send)

    def _key_of(self, route: str, headers: Mapping[str, str]) -> bytes:
        keys = self._service.settings.keys
        if not keys or route in OPEN:
            return b""
        who = keys.who(headers)
        if who is None:
            raise ProblemError(
                "no-key",
                "give the key as X-API-Key, or as Authorization: Bearer",
                WWW_Authenticate='Bearer realm="pleura"',
            )
        return who
