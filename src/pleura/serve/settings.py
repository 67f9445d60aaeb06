"""What `pleura serve` is told: where it listens, who may ask, and how much it takes at a time."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from pleura.errors import InputError
from pleura.serve.keys import NO_KEYS, Keys

MEGABYTE = 10**6


@dataclass(frozen=True)
class Limits:
    """How much of everything the service takes; each bounds memory or time."""

    body_bytes: int = 64 * MEGABYTE
    """Of one radiograph's request."""
    batch_body_bytes: int = 256 * MEGABYTE
    """Of a request with several."""
    held_bytes: int = 512 * MEGABYTE
    """Of all uploads together: those that arrive, and those that wait."""
    files: int = 256
    """Of one job."""
    jobs: int = 16
    """Not finished, or not fetched."""
    queue: int = 32
    """Radiographs that are read, predicted or wait for it, besides those of jobs."""
    pixels_in_flight: int = 40_000_000
    """Of the radiographs that are decoded; one that has more by itself is alone."""
    connections: int = 256
    head_s: float = 10.0
    """From a connection, or the first byte of a request, to the end of its headers."""
    body_s: float = 60.0
    """For the whole body."""
    stalled_s: float = 30.0
    """Of an answer that the client does not read."""
    answer_s: float = 60.0
    """From the whole body to the answer."""
    batch_wait_s: float = 0.004
    """For others to be predicted together with."""
    job_s: float = 900.0
    """A finished job is kept for so long."""
    fetched_s: float = 60.0
    """And for so long after its results were first fetched: an answer can be lost on its way."""
    stop_s: float = 60.0
    """To finish what was taken, after a signal to stop."""
    last_fetch_s: float = 10.0
    """Of these, once all is finished: for results of jobs to be fetched."""


@dataclass(frozen=True)
class ServeSettings:
    """The options of `pleura serve`, besides the model."""

    host: str = "127.0.0.1"
    port: int = 8080
    keys: Keys = NO_KEYS
    tls_cert: Path | None = None
    tls_key: Path | None = None
    prevalence: float | None = None
    """The share of positives that reported probabilities are for; that of the calibration by default."""
    batch_size: int = 1
    """Radiographs that pass the net together, at most."""
    limits: Limits = field(default_factory=Limits)

    def check(self) -> None:
        """Refuse what cannot be served, or not safely.

        Raises: InputError for a public address without a key, half of TLS's files, or files that are not there.
        """
        if not is_loopback(self.host) and not self.keys:
            raise InputError(
                f"--host {self.host} lets other machines in, and there is no key: name a file with one by "
                "--api-key-file, or set PLEURA_API_KEY"
            )
        if (self.tls_cert is None) != (self.tls_key is None):
            raise InputError("TLS takes two files; give both --tls-cert and --tls-key")
        for path in (self.tls_cert, self.tls_key):
            if path is not None and not path.is_file():
                raise InputError(f"{path}: is no file; --tls-cert and --tls-key name PEM files")


def names_this_machine(host: str | None) -> bool:
    """Return whether a Host header is an address, localhost, or not there.

    Any other name can be one that a page of another site has let point here (DNS rebinding): to a browser that page and
    what answers to the name are one site, so that the page could read the answers.
    """
    name = (host or "").strip().lower()
    name = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0].removesuffix(".")
    if name == "" or name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Return whether an address can only be reached from this machine; names other than localhost count as public."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
