"""The status of a listener, as a page and as JSON, on loopback: counts, and nothing of a patient."""

from __future__ import annotations

import html
import http.server
import json
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any

from pleura.errors import OutputError
from pleura.serve.settings import names_this_machine

_TIMEOUT_S = 2.0
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;margin:2rem;max-width:50rem}"
    "td,th{padding:.1rem 1rem .1rem 0;text-align:left}"
)


class StatusPage:
    """Answers `/` with a page, `/status` with JSON, and `/healthz` with 200, or 503 where nothing is predicted."""

    def __init__(self, port: int, status: Callable[[], dict[str, Any]]) -> None:
        """Raises: OutputError where the port cannot be had."""
        handler = type("Handler", (_Handler,), {"status": staticmethod(status)})
        try:
            self._server = http.server.HTTPServer(("127.0.0.1", port), handler)
        except OSError as error:
            raise OutputError(
                f"no status page on port {port}: {error.strerror}; choose another --status-port"
            ) from error
        self.port = int(self._server.server_address[1])

    def __enter__(self) -> StatusPage:
        """Answer, in a thread."""
        threading.Thread(target=self._server.serve_forever, name="status", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    timeout = _TIMEOUT_S  # one at a time: who sends nothing does not keep others waiting for long
    server_version, sys_version = "pleura", ""
    status: Callable[[], dict[str, Any]]

    def do_GET(self) -> None:
        if not names_this_machine(self.headers.get("Host")):
            self._answer(421, "text/plain", "it answers to localhost and to IP addresses alone\n")
            return
        try:
            found = self.status()
        except sqlite3.Error as error:
            self._answer(503, "text/plain", f"the tables of the inbox cannot be read ({type(error).__name__})\n")
            return
        if self.path == "/healthz":
            healthy = found["workers"] > 0
            self._answer(200 if healthy else 503, "text/plain", "ok\n" if healthy else "nothing is predicted\n")
        elif self.path == "/status":
            self._answer(200, "application/json", json.dumps(found, indent=1) + "\n")
        elif self.path == "/":
            self._answer(200, "text/html; charset=utf-8", page_of(found))
        else:
            self._answer(404, "text/plain", "see / and /status\n")

    def log_message(self, *_: Any) -> None:
        """Log nothing."""

    def _answer(self, code: int, kind: str, text: str) -> None:
        content = text.encode()
        self.send_response(code)
        for name, value in (
            ("Content-Type", kind),
            ("Content-Length", str(len(content))),
            ("Cache-Control", "no-store"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


def page_of(status: Mapping[str, Any]) -> str:
    """Return a status as a page that loads itself anew."""
    rows = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in _flat(status)
    )
    title = f"pleura listen: {html.escape(str(status['ae_title']))}"
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="5">'
        f"<title>{title}</title><style>{_STYLE}</style><h1>{title}</h1><table>{rows}</table>"
        "<p>Research software, not for diagnosis.</p></html>\n"
    )


def _flat(tree: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for key, value in tree.items():
        name = f"{before}{key}".replace("_", " ")
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}: ")
        else:
            yield name, "" if value is None else str(value)
