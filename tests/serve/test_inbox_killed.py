"""An inbox whose process is killed at each of its writes: nothing is lost, and nothing is done twice in effect."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from inbox_scenario import ARRIVALS, CHANGED, READABLE, UNREADABLE, WORDS, open_inbox, run
from places import ROOT

from pleura.serve.pacs.inbox import DEAD, IMAGES, RESULTS
from pleura.serve.pacs.spool import INCOMING
from pleura.serve.pacs.upkeep import open_counts

KILLS = int(os.environ.get("PLEURA_KILLS", "12"))
"""At how many of the writes; `make abuse` tries each."""


def dies_at(folder: Path, number: int) -> subprocess.CompletedProcess[str]:
    (folder / "archive").mkdir(parents=True)
    paths = os.pathsep.join([str(ROOT / "tests"), str(ROOT / "src")])
    command = [sys.executable, "-c", "import inbox_scenario; inbox_scenario.main()", str(folder), str(number)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONPATH": paths})


def check(folder: Path) -> None:
    """Go on, and look at what has become of each arrival."""
    run(folder, lambda number: (folder / f"answered-{number}").exists(), lambda _: None)
    archived = {file.name: file.read_bytes() for file in (folder / "archive").iterdir()}
    wanted = {
        f"{uid}.{word}": b"head" + content + word.encode()
        for uid, content in ((READABLE, b"one"), (CHANGED, b"after"))
        for word in WORDS
    }
    assert archived == wanted
    inbox = open_inbox(folder)
    rows = inbox.database.rows("SELECT sop_instance_uid, state FROM instances ORDER BY id")
    assert rows[:2] == [(READABLE, "delivered"), (UNREADABLE, "dead")]
    assert rows[-1] == (CHANGED, "delivered")
    assert len(rows) == len(ARRIVALS)
    assert not any(open_counts(inbox)["now"][state] for state in ("waiting", "predicting", "sending"))
    for name in (IMAGES, RESULTS, INCOMING):
        assert list((inbox.folder / name).iterdir()) == []
    (letter,), (image,) = ((inbox.folder / DEAD).glob(f"*.{suffix}") for suffix in ("txt", "dcm"))
    assert letter.read_text().startswith("it is broken\n")
    assert image.read_bytes() == b"headbroken"
    inbox.close()


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_process_killed_at_any_write_loses_nothing_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pleura.serve.pacs.upkeep.delay_s", lambda _: 0.0)  # what was freed is tried again at once
    whole = dies_at(tmp_path / "whole", -1)
    assert whole.returncode == 0, whole.stderr
    check(tmp_path / "whole")
    writes = int(whole.stdout)
    assert writes > 50
    points = sorted({round(one * (writes - 1) / max(1, KILLS - 1)) for one in range(min(KILLS, writes))})
    for point in points:
        folder = tmp_path / f"at-{point}"
        assert dies_at(folder, point).returncode == -signal.SIGKILL, point
        check(folder)
