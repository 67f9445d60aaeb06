"""The command line: a module per command, which parses, calls one verb and prints; `app` registers them."""

from __future__ import annotations

from pleura.cli.app import app, main

__all__ = ["app", "main"]
