"""Where a net runs: the device that was asked for, or one line that says what is here."""

from __future__ import annotations

import pytest
import torch

from pleura.errors import InputError
from pleura.inference.device import pick_device


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine without any; a test may give it some."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: torch.cuda.device_count() > 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    return monkeypatch


@pytest.mark.parametrize("name", [None, "auto", "cpu", "cpu:0", torch.device("cpu")])
def test_without_a_gpu_it_is_the_processor(gpus: pytest.MonkeyPatch, name: str | torch.device | None):
    assert pick_device(name).type == "cpu"


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:3", "mps", "meta", "cpu:1", torch.device("cuda:1")])
def test_device_that_is_not_here_is_refused_in_one_line(gpus: pytest.MonkeyPatch, name: str | torch.device):
    with pytest.raises(InputError, match=rf"^device {name}: torch finds none on this machine; here are cpu$"):
        pick_device(name)


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:-1", "", "cpu cpu", 3.5])
def test_name_of_no_device_is_refused_in_one_line(gpus: pytest.MonkeyPatch, name: str):
    with pytest.raises(InputError, match=r"is none that torch knows; here are cpu$"):
        pick_device(name)


def test_with_gpus_the_first_is_taken_and_any_that_is_there(gpus: pytest.MonkeyPatch):
    gpus.setattr(torch.cuda, "device_count", lambda: 2)
    assert [str(pick_device(name)) for name in (None, "auto", "cuda:1", "cpu")] == ["cuda", "cuda", "cuda:1", "cpu"]
    with pytest.raises(InputError, match=r"^device cuda:2: torch counts 2, from cuda:0; here are cpu, cuda:0, cuda:1$"):
        pick_device("cuda:2")
