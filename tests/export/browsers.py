"""The JavaScript of a page, run by node, so that its results can be held against Python's."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pleura.dicom.frontal import uid_names
from pleura.dicom.uids import IMPLEMENTATION_CLASS_UID
from pleura.export.html import BROWSER, worker_script

SCRIPT = Path(__file__).with_name("run_browser.mjs")
FACTS = {"implementationClass": IMPLEMENTATION_CLASS_UID, "uidNames": uid_names()}
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")


def in_browser(tasks: Sequence[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """What a page answers to tasks of run_browser.mjs: {found} or {refused} each. folder: for files of it."""
    worker, listed = folder / "worker.mjs", folder / "tasks.json"
    worker.write_text(worker_script(), encoding="utf-8")
    listed.write_text(json.dumps(list(tasks)), encoding="utf-8")
    command = ["node", str(SCRIPT), str(BROWSER), str(worker), str(listed)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    answers: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return answers
