"""Whether a CPU is faster in bfloat16: what is measured, when, and what is kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pleura.inference import cpu
from pleura.inference.engines import gain


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[bool]]:
    """What was measured, on a CPU with AMX, and with a cache of its own."""
    done: list[bool] = []
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(cpu, "bfloat16_units", lambda: ("AMX",))
    monkeypatch.setattr(gain, "measured_gain", lambda training: done.append(training) or 2.0 - training)
    cpu._gain.cache_clear()
    yield done
    cpu._gain.cache_clear()


def as_in_a_new_process() -> None:
    cpu._gain.cache_clear()


def test_a_step_and_a_prediction_are_measured_once_each(measured: list[bool]):
    assert [cpu.bfloat16_gain(training) for training in (True, False, True, False)] == [1.0, 2.0, 1.0, 2.0]
    as_in_a_new_process()
    assert cpu.bfloat16_gain(True) == 1.0
    assert measured == [True, False]


def test_another_cpu_torch_or_number_of_threads_is_measured_anew(measured: list[bool], monkeypatch: pytest.MonkeyPatch):
    cpu.bfloat16_gain(True)
    for change in (
        (cpu, "processor", lambda: "another"),
        (cpu, "bfloat16_units", lambda: ("AVX512_BF16",)),
        (torch, "__version__", "99"),
        (torch, "get_num_threads", lambda: 99),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(*change)
            as_in_a_new_process()
            cpu.bfloat16_gain(True)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    as_in_a_new_process()
    cpu.bfloat16_gain(True)
    assert len(measured) == 6


def test_a_cpu_without_units_for_bfloat16_is_never_measured(measured: list[bool], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cpu, "bfloat16_units", lambda: ())
    assert cpu.bfloat16_gain(True) is None
    assert measured == []


@pytest.mark.parametrize("content", ["", "[]", '{"machine": 3}', '{"machine": {}, "bfloat16_gain": 3}'])
def test_a_damaged_note_is_as_good_as_none(measured: list[bool], tmp_path: Path, content: str):
    cpu.bfloat16_gain(True)
    [note] = tmp_path.rglob("*.json")
    note.write_text(content)
    as_in_a_new_process()
    assert cpu.bfloat16_gain(True) == 1.0
    assert measured == [True, True]
    assert json.loads(note.read_text())["bfloat16_gain"] == 1.0


@pytest.mark.parametrize("place", ["/dev/null", "/proc"])
def test_without_a_cache_it_is_measured_once_in_each_process(
    measured: list[bool], monkeypatch: pytest.MonkeyPatch, place: str
):
    monkeypatch.setenv("XDG_CACHE_HOME", place)
    assert [cpu.bfloat16_gain(True), cpu.bfloat16_gain(True)] == [1.0, 1.0]
    assert measured == [True]


@pytest.mark.parametrize("training", [True, False])
def test_measuring_leaves_what_is_random_elsewhere_as_it_was(training: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gain, "MEASURED_S", 0.0001)
    before = torch.random.get_rng_state()
    assert 0.001 < gain.measured_gain(training) < 1000
    assert torch.equal(before, torch.random.get_rng_state())


def test_units_are_those_that_linux_or_torch_names(monkeypatch: pytest.MonkeyPatch):
    for flags, question, expected in (
        ("sse avx512_bf16 amx_bf16", None, ("AMX", "AVX512_BF16")),
        ("sse", None, ()),
        ("", lambda: True, ("AVX512_BF16",)),
    ):
        monkeypatch.setattr(cpu, "_cpuinfo", lambda name, flags=flags: flags)
        monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported", raising=False)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", question or (lambda: False), raising=False)
        assert cpu.bfloat16_units() == expected
