"""A store of objects that speaks S3 over HTTP on this machine, and the log of what it was asked for."""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from processes import ended

HAS_STORE = all(importlib.util.find_spec(name) for name in ("moto", "flask", "flask_cors", "s3fs"))
needs_store = pytest.mark.skipif(not HAS_STORE, reason="needs moto, flask, flask-cors and s3fs, of pleura[dev]")
BUCKET = "radiographs"
_LINE = re.compile(r'"?([A-Z]+) (\S+) HTTP/1.[01]"? (\d+)')


@dataclass
class Store:
    """A server, and how commands reach it."""

    environment: dict[str, str]
    requests: list[tuple[str, str, int]] = field(default_factory=list)
    """(method, path, status)."""
    when: Callable[[str, str], None] | None = None
    """Is called with method and path when a request has been done, before it is answered."""

    def files(self) -> Any:
        """The objects, as fsspec's file system."""
        import fsspec

        name = {"key": "key", "secret": "secret"}
        url = self.environment["AWS_ENDPOINT_URL"]
        return fsspec.filesystem("s3", endpoint_url=url, use_listings_cache=False, **name)

    def fill(self, folder: Path, key: str) -> str:
        """Put a folder's files below a key; returns its URL."""
        files = self.files()
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                files.pipe_file(f"{BUCKET}/{key}/{path.relative_to(folder).as_posix()}", path.read_bytes())
        return f"s3://{BUCKET}/{key}"

    def contents(self, key: str) -> dict[str, bytes]:
        """Every object below a key."""
        files = self.files()
        prefix = f"{BUCKET}/{key}/"
        return {name.removeprefix(prefix): files.cat_file(name) for name in files.find(prefix)}

    def counts(self, key: str = "") -> Counter[str]:
        """How often each kind of request came, of those whose path holds `key`."""
        return Counter("LIST" if "list-type" in path else method for method, path, _ in self.requests if key in path)

    def start(
        self, *words: object, home: Path, script: tuple[str, ...] = ("-m", "pleura"), **environment: str
    ) -> subprocess.Popen[str]:
        """Start `pleura`, or a script. home: where it keeps what is its own; another one is another machine."""
        line = [sys.executable, *script, *map(str, words)]
        every = {**os.environ, **self.environment, "XDG_CACHE_HOME": str(home), **environment}
        return subprocess.Popen(line, env=every, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run(self, *words: object, home: Path, **more: Any) -> tuple[int, str, str]:
        """Run `pleura`: exit code, standard output and standard error."""
        return ended(self.start(*words, home=home, **more))

    def kill_at(self, process: subprocess.Popen[str], method: str, part: str, number: int) -> None:
        """kill -9 a process from within the server, at its n-th request of a kind."""
        seen = []

        def when(asked: str, path: str) -> None:
            if asked == method and part in path:
                seen.append(path)
                if len(seen) == number:
                    process.kill()

        self.when = when
        try:
            assert ended(process)[0] == -signal.SIGKILL
        finally:
            self.when = None


def drivers_are_forgotten() -> None:
    """What was asked for is the environment's of now: fsspec keeps a driver for each set of settings."""
    import s3fs

    from pleura.urls import store

    store._store.cache_clear()
    s3fs.S3FileSystem.clear_instance_cache()


class _Log(logging.Handler):
    def __init__(self, store: Store) -> None:
        super().__init__()
        self.store = store

    def handle(self, record: logging.LogRecord) -> bool:
        # Not `emit`, which holds a lock: what is called may ask the server for something itself.
        if found := _LINE.search(re.sub(r"\x1b\[[0-9;]*m", "", record.getMessage())):
            self.store.requests.append((found[1], found[2], int(found[3])))
            if self.store.when is not None:
                self.store.when(found[1], found[2])
        return True


@contextmanager
def store() -> Iterator[Store]:
    """A server with one bucket."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    made = Store(environment)
    logger, handler = logging.getLogger("werkzeug"), _Log(made)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        made.files().makedirs(BUCKET, exist_ok=True)  # the servers of one process have the same objects
        yield made
    finally:
        logger.removeHandler(handler)
        server.stop()
