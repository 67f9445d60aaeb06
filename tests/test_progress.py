"""Progress where no terminal watches: a line now and then, none for short work, none for who wants quiet."""

from __future__ import annotations

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
