"""Calls functions of the viewer's modules in node."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from places import ROOT

WEB = ROOT / "src/pleura/serve/web"
_KINDS = {"u8": np.uint8, "u16": np.uint16, "u32": np.uint32, "f32": np.float32}
_RUN = Path(__file__).with_name("run_web_module.mjs")

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")


class JavaScriptError(Exception):
    """What a module threw."""


def call(module: str, *calls: tuple[str, Sequence[Any]]) -> list[Any]:
    """What functions that a module exports return, each (name, arguments); numpy arrays become typed arrays.

    Raises: JavaScriptError where one of them throws.
    """
    given = json.dumps([[name, [_packed(one) for one in arguments]] for name, arguments in calls])
    words = ["node", str(_RUN), str(WEB / module)]
    done = subprocess.run(words, input=given, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    for one in results:
        if "error" in one:
            raise JavaScriptError(one["error"])
    return [_unpacked(one.get("value")) for one in results]


def _packed(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        kind = next(kind for kind, dtype in _KINDS.items() if value.dtype == dtype)
        return {kind: base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()}
    return value


def _unpacked(value: Any) -> Any:
    if isinstance(value, dict) and len(value) == 1 and (kind := next(iter(value))) in _KINDS:
        return np.frombuffer(base64.b64decode(value[kind]), _KINDS[kind])
    if isinstance(value, dict):
        return {key: _unpacked(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_unpacked(one) for one in value]
    return value
