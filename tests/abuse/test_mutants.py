"""Damaged radiographs: each is refused in one line, or read as another decoder reads it; never a traceback.

`make abuse` tries 10,000 of them, and then holds memory and time to their limits too.
"""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest

pytest.importorskip("imagecodecs", reason="the independent decoders are imagecodecs, of pleura[dev]")
from judge import Outcome, judged
from seeds import seeds

COUNT = int(os.environ.get("PLEURA_MUTANTS", "300"))
FIRST = int(os.environ.get("PLEURA_FIRST_MUTANT", "0"))
MANY = 1000
"""From this many on the limits of memory and time are looked at too: no test of the suite depends on time."""
MAX_MIB, MAX_CPU_S = 1024, 5.0


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> list[Outcome]:
    """In processes of their own, which hold nothing but what reading needs."""
    folder = str(tmp_path_factory.mktemp("mutants"))
    numbers = [range(start, min(start + 50, FIRST + COUNT)) for start in range(FIRST, FIRST + COUNT, 50)]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        parts = pool.starmap(judged, [(seeds(), part, folder) for part in numbers])
    return [outcome for part in parts for outcome in part]


def test_an_undamaged_radiograph_is_read_in_every_form(tmp_path: Path) -> None:
    from judge import judge

    for name, content in seeds().items():
        outcome = judge(0, name, content, tmp_path / "whole")
        assert outcome.read, f"{name} was refused: {outcome.fault}"
        assert outcome.fault == "", f"{name}: {outcome.fault}"


def test_no_mutant_is_misread_in_silence(outcomes: list[Outcome]) -> None:
    faults = [f"{each.number} ({each.what}): {each.fault}" for each in outcomes if each.fault]
    assert not faults, f"{len(faults)} of {len(outcomes)}:\n" + "\n".join(faults[:40])


def test_damage_is_seen_and_harmless_changes_are_read(outcomes: list[Outcome]) -> None:
    read = sum(each.read for each in outcomes)
    assert 0 < read < len(outcomes)


@pytest.mark.skipif(COUNT < MANY, reason="make abuse")
def test_no_mutant_takes_much_memory_or_time(outcomes: list[Outcome]) -> None:
    assert max(each.peak_mib for each in outcomes) < MAX_MIB
    slow = [f"{each.number} ({each.what}): {each.cpu_s:.1f} s" for each in outcomes if each.cpu_s > MAX_CPU_S]
    assert not slow
