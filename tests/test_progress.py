"""Progress: a bar on a terminal; elsewhere a line now and then, none for short work, none for who wants quiet."""

from __future__ import annotations

import io
import logging

import pytest

from pleura import progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds, ten more at each look."""
    now = [0.0]

    def monotonic() -> float:
        now[0] += 10
        return now[0]

    monkeypatch.setattr(progress, "FIRST_LINE_S", 30.0)
    monkeypatch.setattr(progress.time, "monotonic", monotonic)
    monkeypatch.setattr(logging.getLogger("pleura"), "level", logging.INFO)
    return now


def test_long_work_writes_a_line_to_standard_error_ever_more_seldom(clock: list[float], capsys):
    assert list(progress.track(range(40), "predicting", total=50, done=10)) == list(range(40))
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err.splitlines()[0] == "predicting: 13 of 50, about 6.2 min left"
    assert len(written.err.splitlines()) == 3  # after 30, 90 and 210 of its seconds


def test_short_work_and_quiet_work_write_nothing(clock: list[float], capsys, monkeypatch: pytest.MonkeyPatch):
    list(progress.track(range(2), "predicting"))
    list(progress.track(range(100), None))
    monkeypatch.setattr(logging.getLogger("pleura"), "level", logging.WARNING)
    list(progress.track(range(100), "predicting"))
    assert capsys.readouterr().err == ""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_terminal_shows_a_bar_with_the_count_the_time_left_and_the_speed(monkeypatch: pytest.MonkeyPatch):
    terminal = Terminal()
    for name, value in {"COLUMNS": "120", "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setattr(logging.getLogger("pleura"), "level", logging.INFO)
    assert list(progress.track(iter(range(3)), "predicting", total=5, done=2, images=1)) == [0, 1, 2]
    last = next(line for line in terminal.getvalue().splitlines() if "5/5" in line)
    assert [word in last for word in ("predicting", "0:00:00", "images/s")] == [True] * 3, repr(last)
