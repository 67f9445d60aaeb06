"""Checkpoints: everything comes back, nothing is unpickled, and neither damage nor a full disk costs the old file."""

from __future__ import annotations

import errno
import json
import os
import pickle
import struct
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from pleura.config.model import ModelConfig
from pleura.decision.calibration import Calibration
from pleura.decision.triplet import Triplet
from pleura.errors import CheckpointError, OutputError
from pleura.models.checkpoint import (
    Checkpoint,
    load_checkpoint,
    load_state,
    load_weights,
    save_checkpoint,
    save_state,
    update_header,
)
from pleura.models.preprocessing import Preprocessing
from pleura.models.seen import SeenCases

WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.count": torch.tensor(7), "half": torch.ones(3).bfloat16()}
CHECKPOINT = Checkpoint(
    model=ModelConfig(encoder="resnet34", pretrained=False, classes=2),
    weights=WEIGHTS,
    preprocessing=Preprocessing(1024, 512, 1, 0.449, 0.226, "area"),
    triplet=Triplet(0.75, 2000, 0.3),
    recipe={"name": "é ☃", "stages": [{"name": "low", "lr": 1e-4}]},
    scores={"split": "val, fold 0", "siim_dice": 0.8451},
    provenance={"data_sha256": "abc", "seed": 42, "fold": 0},
    calibration=Calibration(1.5).header() | {"cases": 12},
    seen=SeenCases(("0" * 32, "89abcdef"), ("f" * 32,), ("its teacher",)),
)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "best.safetensors", CHECKPOINT)
    return tmp_path / "best.safetensors"


def refusal(path: Path, load: Callable[[Path], object] = load_checkpoint) -> str:
    with pytest.raises(CheckpointError) as caught:
        load(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def header_of(path: Path) -> dict[str, Any]:
    """The header as safetensors defines it: a length in 8 bytes, then JSON."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header: dict[str, Any] = json.loads(content[8 : 8 + length])
    return header


def full_disk(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_all_but_the_tensors_comes_back_as_it_was(saved: Path):
    loaded = load_checkpoint(saved)
    names = [field.name for field in fields(Checkpoint) if field.name != "weights"]
    assert [getattr(loaded, name) for name in names] == [getattr(CHECKPOINT, name) for name in names]


def test_names_of_files_that_are_no_utf8_come_back_as_they_were(tmp_path: Path):
    """On Unix a name is bytes: that of a dataset stands in an evaluation's command, that of weights in `imported`."""
    name = os.fsdecode(b"data-\xff")
    card = {"title": "A net", "evaluation": {"command": f"pleura evaluate a.safetensors --data {name}"}}
    save_checkpoint(tmp_path / "a.safetensors", replace(CHECKPOINT, card=card, provenance={"imported": name}))
    loaded = load_checkpoint(tmp_path / "a.safetensors")
    assert loaded.card == card
    assert loaded.provenance == {"imported": name}


def test_tensors_come_back_with_their_values_and_types(saved: Path):
    weights = load_checkpoint(saved).weights
    assert weights.keys() == WEIGHTS.keys()
    assert all(torch.equal(weights[key], WEIGHTS[key]) for key in WEIGHTS)
    assert all(weights[key].dtype == WEIGHTS[key].dtype for key in WEIGHTS)


def test_what_was_left_out_comes_back_empty(tmp_path: Path):
    bare = replace(CHECKPOINT, recipe={}, scores={}, provenance={}, calibration=None)
    save_checkpoint(tmp_path / "x.safetensors", bare)
    loaded = load_checkpoint(tmp_path / "x.safetensors")
    assert (loaded.recipe, loaded.scores, loaded.provenance, loaded.calibration) == ({}, {}, {}, None)


def test_whoever_loads_a_checkpoint_does_not_look_for_imagenet(tmp_path: Path):
    pretrained = replace(CHECKPOINT, model=ModelConfig(pretrained=True))
    save_checkpoint(tmp_path / "x.safetensors", pretrained)
    assert load_checkpoint(tmp_path / "x.safetensors").model == ModelConfig(pretrained=False)


def test_channels_last_weights_and_parameters_are_saved(tmp_path: Path):
    net = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    save_checkpoint(tmp_path / "x.safetensors", replace(CHECKPOINT, weights=dict(net.named_parameters())))
    assert torch.equal(load_checkpoint(tmp_path / "x.safetensors").weights["weight"], net.weight)


def test_every_value_of_the_header_is_json(saved: Path):
    values = {key: json.loads(value) for key, value in header_of(saved)["__metadata__"].items()}
    assert values["format"] == 2
    documented = {
        "format",
        "model",
        "recipe",
        "preprocessing",
        "triplet",
        "calibration",
        "scores",
        "provenance",
        "seen",
        "card",
        "bfloat16",
    }
    assert values.keys() == documented


def test_loading_unpickles_nothing(saved: Path, monkeypatch: pytest.MonkeyPatch):
    for where, name in ((pickle, "loads"), (pickle, "load"), (pickle, "Unpickler"), (torch, "load")):
        monkeypatch.setattr(where, name, lambda *_, **__: pytest.fail("something was unpickled"))
    load_checkpoint(saved)


def test_missing_checkpoint_is_refused(tmp_path: Path):
    assert "there is no such checkpoint" in refusal(tmp_path / "nowhere.safetensors")
    assert "there is no such checkpoint" in refusal(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_checkpoint_cut_off_is_refused_with_the_way_out(saved: Path, share: float):
    saved.write_bytes(saved.read_bytes()[: int(share * saved.stat().st_size)])
    assert "copy it again or use last.safetensors of its run" in refusal(saved)


@pytest.mark.parametrize("content", [b"hello, this is text\n", b"PK\x03\x04", b"\x00" * 100, b"\xff" * 100])
def test_file_of_something_else_is_refused(saved: Path, content: bytes):
    saved.write_bytes(content)
    assert "is damaged or no safetensors file" in refusal(saved)


def test_torch_file_is_refused_and_not_unpickled(saved: Path):
    torch.save(WEIGHTS, saved)
    assert "is damaged or no safetensors file" in refusal(saved)


@settings(max_examples=40)
@given(st.binary(max_size=80))
def test_any_bytes_are_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes):
    path = tmp_path_factory.getbasetemp() / "any-checkpoint.safetensors"
    path.write_bytes(content)
    refusal(path)


@pytest.mark.parametrize("metadata", [None, {}, {"format": "0"}, {"format": '"1"'}])
def test_safetensors_of_somebody_else_are_no_checkpoint(saved: Path, metadata: dict[str, str] | None):
    save_file(WEIGHTS, saved, metadata)
    assert "is no checkpoint of this version of pleura" in refusal(saved)


def test_published_weights_are_called_no_checkpoint_and_not_damaged(saved: Path):
    save_file(WEIGHTS, saved, {"format": "pt"})
    assert "is no checkpoint" in refusal(saved)


@pytest.mark.parametrize("missing", ["model", "triplet", "provenance"])
def test_incomplete_header_is_refused(saved: Path, missing: str):
    metadata = header_of(saved)["__metadata__"]
    del metadata[missing]
    save_file(WEIGHTS, saved, metadata)
    assert "the header is incomplete or of another version" in refusal(saved)


def test_header_with_a_setting_that_is_not_known_is_refused(saved: Path):
    metadata = header_of(saved)["__metadata__"] | {"model": json.dumps({"transformer": True})}
    save_file(WEIGHTS, saved, metadata)
    assert "header model.transformer: unknown key" in refusal(saved)


def test_weights_are_put_into_the_net_they_came_from():
    source, target = nn.Linear(3, 2), nn.Linear(3, 2)
    load_weights(target, {key: tensor.half() for key, tensor in source.state_dict().items()}, "x")
    torch.testing.assert_close(target.weight, source.weight, atol=1e-3, rtol=1e-3)
    assert target.weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("net", "phrase"),
    [
        (nn.Linear(3, 4), "0 tensors missing, 0 unknown, 2 of another shape; bias first"),
        (nn.Linear(3, 2, bias=False), "0 tensors missing, 1 unknown, 0 of another shape; bias first"),
        (nn.Sequential(nn.Linear(3, 2)), "2 tensors missing, 2 unknown, 0 of another shape; 0.bias first"),
    ],
)
def test_weights_of_another_architecture_are_refused(net: nn.Module, phrase: str):
    with pytest.raises(CheckpointError, match="run/best: the weights belong to another architecture") as caught:
        load_weights(net, nn.Linear(3, 2).state_dict(), "run/best")
    assert phrase in str(caught.value)


def test_refused_load_leaves_the_net_alone():
    net = nn.Linear(3, 2)
    before = net.weight.clone()
    with pytest.raises(CheckpointError):
        load_weights(net, {"weight": torch.zeros(2, 3)}, "x")
    assert torch.equal(net.weight, before)


@pytest.mark.parametrize("where", [(os, "fsync"), (Path, "open"), (os, "replace")])
def test_full_disk_costs_neither_the_old_file_nor_leaves_a_part(
    saved: Path, monkeypatch: pytest.MonkeyPatch, where: tuple[object, str]
):
    with monkeypatch.context() as patch:
        patch.setattr(*where, full_disk)
        with pytest.raises(OutputError, match=r"best\.safetensors: the disk is full; free some space") as caught:
            save_checkpoint(saved, replace(CHECKPOINT, triplet=Triplet()))
    assert "\n" not in str(caught.value)
    assert load_checkpoint(saved).triplet == CHECKPOINT.triplet
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_file_in_the_way_of_a_folder_is_refused(saved: Path):
    with pytest.raises(OutputError, match="choose another --out"):
        save_checkpoint(saved / "deeper/x.safetensors", CHECKPOINT)


def test_folder_in_the_way_of_the_file_is_refused(tmp_path: Path):
    (tmp_path / "x.safetensors").mkdir()
    with pytest.raises(OutputError, match=r"cannot write .*x\.safetensors"):
        save_checkpoint(tmp_path / "x.safetensors", CHECKPOINT)
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]


def trained_a_step() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    net = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    net(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return net, optimizer


def test_state_of_a_training_comes_back(tmp_path: Path):
    net, optimizer = trained_a_step()
    progress = {"epoch": 3, "best": -float("inf"), "history": [{"lr": 1e-4, "stage": "low"}]}
    save_state(tmp_path / "state/state.pt", {"optimizer": optimizer.state_dict(), "progress": progress})
    state = load_state(tmp_path / "state/state.pt")
    assert state["progress"] == progress
    moment: Tensor = state["optimizer"]["state"][0]["exp_avg"]
    assert torch.equal(moment, optimizer.state[net.weight]["exp_avg"])


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_state_cut_off_is_refused_with_the_way_out(tmp_path: Path, share: float):
    path = tmp_path / "state.pt"
    save_state(path, {"epoch": 3, "w": torch.zeros(100)})
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert "the training state is damaged" in refusal(path, load_state)
    assert "remove its folder to start anew" in refusal(path, load_state)


def test_missing_state_is_refused(tmp_path: Path):
    refusal(tmp_path / "nowhere.pt", load_state)


class Attack:
    """Unpickling this makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_state_with_code_is_refused_and_not_run(tmp_path: Path):
    torch.save({"epoch": Attack(tmp_path / "pwned")}, tmp_path / "state.pt")
    refusal(tmp_path / "state.pt", load_state)
    assert not (tmp_path / "pwned").exists()


def test_text_file_is_no_state(tmp_path: Path):
    (tmp_path / "state.pt").write_text("hello, this is text\n")
    refusal(tmp_path / "state.pt", load_state)


def test_full_disk_keeps_the_old_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    save_state(tmp_path / "state.pt", {"epoch": 1})
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OutputError, match="the disk is full"):
        save_state(tmp_path / "state.pt", {"epoch": 2})
    assert load_state(tmp_path / "state.pt") == {"epoch": 1}


# --- a header written anew


def test_header_is_written_anew_and_the_tensors_stay_byte_for_byte(saved: Path) -> None:
    def tensors(content: bytes) -> bytes:
        return content[8 + int.from_bytes(content[:8], "little") :]

    before = saved.read_bytes()
    update_header(saved, {"triplet": Triplet(0.25), "calibration": None})
    loaded = load_checkpoint(saved)
    assert (loaded.triplet, loaded.calibration) == (Triplet(0.25), None)
    assert (loaded.recipe, loaded.scores, loaded.model) == (CHECKPOINT.recipe, CHECKPOINT.scores, CHECKPOINT.model)
    assert tensors(saved.read_bytes()) == tensors(before)


def test_same_values_give_the_same_bytes_as_saving_them(saved: Path, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "other", replace(CHECKPOINT, triplet=Triplet(0.25)))
    update_header(saved, {"triplet": Triplet(0.25)})
    assert saved.read_bytes() == (tmp_path / "other").read_bytes()


def test_header_can_be_written_into_a_copy(saved: Path, tmp_path: Path) -> None:
    before = saved.read_bytes()
    update_header(saved, {"calibration": None}, tmp_path / "copy.safetensors")
    assert saved.read_bytes() == before
    assert load_checkpoint(tmp_path / "copy.safetensors").calibration is None


def test_header_takes_no_key_that_it_does_not_have(saved: Path) -> None:
    before = saved.read_bytes()
    assert "no weather" in refusal(saved, lambda path: update_header(path, {"weather": 1}))
    assert saved.read_bytes() == before


def test_disk_that_is_full_leaves_the_old_header(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = saved.read_bytes()
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OutputError, match="disk is full"):
        update_header(saved, {"calibration": None})
    assert saved.read_bytes() == before
