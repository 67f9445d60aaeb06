"""Weights of others: read as plain tensors or refused in one line; nothing else is ever unpickled."""

from __future__ import annotations

import argparse
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from pleura.errors import InputError
from pleura.models.weights import fold_to_one_channel, not_finite, read_weights

REAL = Path(__file__).parents[2].parent / "shared/data/weights"
STATE = {"stem.weight": torch.arange(24.0).reshape(2, 3, 2, 2), "stem.bias": torch.tensor([1.5, -2.0])}


class Attack:
    """Unpickling this makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_weights(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def test_safetensors_are_read_as_they_were_written(tmp_path: Path):
    save_file(STATE, tmp_path / "w.safetensors")
    assert same(read_weights(tmp_path / "w.safetensors"), STATE)


@pytest.mark.parametrize("suffix", ["pth", "pt", "bin"])
def test_torch_file_of_tensors_is_read(tmp_path: Path, suffix: str):
    torch.save(STATE, tmp_path / f"w.{suffix}")
    assert same(read_weights(tmp_path / f"w.{suffix}"), STATE)


def test_state_dict_inside_a_training_checkpoint_is_found(tmp_path: Path):
    torch.save({"epoch": 3, "state_dict": STATE}, tmp_path / "w.pth")
    assert same(read_weights(tmp_path / "w.pth"), STATE)


def test_torch_file_of_the_old_format_is_read(tmp_path: Path):
    torch.save(STATE, tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    assert same(read_weights(tmp_path / "w.pth"), STATE)


def test_missing_file_and_a_folder_are_refused(tmp_path: Path):
    assert "there is no such file of weights" in refusal(tmp_path / "nowhere.safetensors")
    assert "there is no such file of weights" in refusal(tmp_path)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_file_cut_in_half_is_refused(tmp_path: Path, name: str):
    path = tmp_path / name
    save_file(STATE, path) if path.suffix == ".safetensors" else torch.save(STATE, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "cannot be read as weights" in refusal(path)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"\x00" * 64])
def test_file_of_something_else_is_refused(tmp_path: Path, name: str, content: bytes):
    (tmp_path / name).write_bytes(content)
    assert "cannot be read as weights" in refusal(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty; copy it again"),
        (b"\n<!DOCTYPE html><html>404</html>", "is a web page, .* download it again"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "is a pointer of Git LFS"),
    ],
)
@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_what_was_never_written_by_torch_is_named(tmp_path: Path, name: str, content: bytes, reason: str):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=reason):
        read_weights(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_pickle_with_code_is_refused_and_not_run(tmp_path: Path, zipped: bool):
    torch.save({"w": Attack(tmp_path / "pwned")}, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    assert "cannot be read as weights" in refusal(tmp_path / "w.pth")
    assert not (tmp_path / "pwned").exists()


def test_bare_pickle_with_code_is_refused_and_not_run(tmp_path: Path):
    (tmp_path / "w.pt").write_bytes(pickle.dumps(Attack(tmp_path / "pwned"), protocol=2))
    refusal(tmp_path / "w.pt")
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, torch.zeros(2), {"state_dict": {"a": 1}}])
def test_tensors_of_no_net_are_refused(tmp_path: Path, content: object):
    torch.save(content, tmp_path / "w.pth")
    assert "holds no state dict of tensors" in refusal(tmp_path / "w.pth")


@pytest.mark.parametrize("content", [b"hello, this is text\n", b"a", b"\x80\x02}q\x00X\x01"])
def test_any_bytes_are_weights_or_refused(tmp_path: Path, content: bytes):
    (tmp_path / "w.pth").write_bytes(content)
    refusal(tmp_path / "w.pth")


@settings(max_examples=40)
@given(st.binary(max_size=64))
def test_any_bytes_in_a_safetensors_file_are_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes):
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    path.write_bytes(content)
    refusal(path)


@settings(max_examples=30)
@given(st.integers(0, 2**31), st.integers(1, 4), st.sampled_from([1, 3, 7]))
def test_folded_stem_gives_the_same_output_on_a_grey_image(seed: int, widths: int, kernel: int):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(widths, 3, kernel, kernel, generator=generator)
    grey = torch.rand(2, 1, 9, 9, generator=generator)
    colour = functional.conv2d(grey.expand(-1, 3, -1, -1), weight)
    torch.testing.assert_close(functional.conv2d(grey, fold_to_one_channel(weight)), colour, atol=1e-5, rtol=1e-4)


def test_half_precision_is_folded_in_single_precision():
    folded = fold_to_one_channel(torch.full((1, 3, 1, 1), 2049.0, dtype=torch.bfloat16) + 0)
    assert folded.dtype == torch.float32
    assert folded.item() == 3 * 2048.0


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "mobilenetv2_100"])
def test_real_weights_are_read(name: str):
    path = REAL / f"{name}.timm.safetensors"
    if not path.is_file():
        pytest.skip(f"the ImageNet weights are not here ({path})")
    weights = read_weights(path)
    assert weights["conv_stem.weight"].shape == (32, 3, 3, 3)
    assert all(tensor.isfinite().all() for tensor in weights.values())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.float8_e4m3fn])
def test_what_is_not_finite_is_found_whatever_its_type(value: float, kind: torch.dtype) -> None:
    sound = {"a": torch.ones(5, 3), "large": torch.full((9,), 3e38), "half": torch.full((9,), 6e4).half()}
    assert not_finite(sound | {"count": torch.tensor(7)}) == []
    damaged = torch.ones(5, 3)
    damaged[-1, -1] = value
    if torch.isfinite(damaged.to(kind).float()).all():
        return  # float8 has no infinity
    assert not_finite(sound | {"b": damaged.to(kind)}) == ["b"]


def test_number_beyond_float32_is_not_finite() -> None:
    assert not_finite({"a": torch.tensor([1e300], dtype=torch.float64)}) == ["a"]


# --- files of other people's trainings


def pickled_with(content: object, path: Path) -> Path:
    torch.save(content, path)
    return path


def under(prefix: str) -> dict[str, Tensor]:
    return {prefix + key: tensor for key, tensor in STATE.items()}


WRAPPED = {
    "module.": under("module."),
    "compiled": under("_orig_mod."),
    "module. of a compiled net": under("module._orig_mod."),
    "an average of torch": {"n_averaged": torch.tensor(3), **under("module.")},
    "state_dict": {"state_dict": under("module."), "epoch": 3, "optimizer": {"state": {0: {"step": 1}}}},
    "model": {"model": STATE, "lr": 1e-3},
    "nested": {"model": {"state_dict": STATE}},
    "averages first, as timm": {"state_dict": {"a.b": torch.zeros(1)}, "state_dict_ema": STATE},
    "averages of another name": {"model": {"a.b": torch.zeros(1)}, "model_ema": under("module.")},
    "no averages after all": {"state_dict": STATE, "state_dict_ema": None},
}


@pytest.mark.parametrize("name", WRAPPED)
def test_state_dict_is_found_where_timm_looks_for_it(tmp_path: Path, name: str):
    assert same(read_weights(pickled_with(WRAPPED[name], tmp_path / "w.pth")), STATE)


def test_prefixes_are_taken_from_safetensors_too(tmp_path: Path):
    save_file(under("module."), tmp_path / "w.safetensors")
    assert same(read_weights(tmp_path / "w.safetensors"), STATE)


def test_key_that_one_of_many_has_is_no_prefix(tmp_path: Path):
    state = {**STATE, "module.weight": torch.ones(1)}
    assert same(read_weights(pickled_with(state, tmp_path / "w.pth")), state)


@pytest.mark.parametrize("name", ["w.SAFETENSORS", "w.SafeTensors", "w.bin", "w"])
def test_safetensors_are_known_by_their_content(tmp_path: Path, name: str):
    save_file(STATE, tmp_path / name)
    assert same(read_weights(tmp_path / name), STATE)


def test_torch_file_under_the_other_suffix_is_read(tmp_path: Path):
    assert same(read_weights(pickled_with(STATE, tmp_path / "w.safetensors")), STATE)


@pytest.mark.parametrize(
    ("content", "keys", "where"),
    [
        ({"model_state_dict": STATE, "epoch": 3}, "model_state_dict (dict of 2), epoch (int)", "['model_state_dict']"),
        ({"net": STATE, "epoch": 3}, "net (dict of 2), epoch (int)", "['net']"),
        ({"a": {"weights": STATE}}, "a (dict of 1)", "['a']['weights']"),
        ({"optimizer": {"state": {}, "x": 1}, "ema": STATE}, "optimizer (dict of 2), ema (dict of 2)", "['ema']"),
    ],
)
def test_where_else_a_state_dict_is_the_refusal_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: object, keys: str, where: str
):
    message = refusal(pickled_with(content, tmp_path / "w.pth"))
    assert f"holds no state dict of tensors; its keys are {keys}; save a plain state dict: torch.save(" in message
    assert f"'w.pth', map_location='cpu'){where}, 'plain.pth')" in message
    monkeypatch.chdir(tmp_path)
    exec(message[message.index("torch.save(") :], {"torch": torch})
    assert same(read_weights(tmp_path / "plain.pth"), STATE)


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (np.float64(0.5), "a numpy value besides tensors (numpy"),
        (np.zeros(3), "a numpy value besides tensors (numpy"),
        (argparse.Namespace(lr=1), "an object besides tensors (argparse.Namespace)"),
        (Path("x"), "an object besides tensors (pathlib."),
    ],
)
def test_object_beside_the_tensors_is_named_with_the_keys_and_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: object, what: str
):
    message = refusal(pickled_with({"state_dict": STATE, "best": other}, tmp_path / "w.pth"))
    assert what in message
    assert "its keys are state_dict (dict of 2), best (" in message
    assert not {"\x1b", "\t"} & set(message)
    monkeypatch.chdir(tmp_path)
    exec(message[message.index("torch.save(") :], {"torch": torch})
    assert same(read_weights(tmp_path / "plain.pth"), STATE)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_whole_net_and_a_torchscript_archive_are_named_as_such(tmp_path: Path):
    net = torch.nn.Conv2d(1, 1, 1)
    message = refusal(pickled_with(net, tmp_path / "w.pth"))
    assert "torch.nn.modules.conv.Conv2d" in message
    assert message.endswith("have it saved as torch.save(net.state_dict(), 'plain.pth')")
    torch.jit.save(torch.jit.trace(net, torch.zeros(1, 1, 1, 1)), tmp_path / "s.pt")
    assert "is a TorchScript archive" in refusal(tmp_path / "s.pt")


def test_naming_the_keys_of_a_hostile_file_runs_nothing(tmp_path: Path):
    message = refusal(pickled_with({"state_dict": STATE, "x": Attack(tmp_path / "pwned")}, tmp_path / "w.pth"))
    assert "its keys are state_dict (dict of 2), x (" in message
    assert not (tmp_path / "pwned").exists()


def test_key_of_many_lines_is_cut_to_one(tmp_path: Path):
    assert len(refusal(pickled_with({"k\n\x1b[1m" * 10_000: 3}, tmp_path / "w.pth"))) < 400
