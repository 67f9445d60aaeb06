"""The command line: `app` registers the commands, each of which has a module that parses, calls one verb and prints."""

from __future__ import annotations

from pleura.cli.app import app, main

__all__ = ["app", "main"]
