"""In how many bits a net computes: what is chosen on which device, and who is heard first."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from pleura.errors import InputError
from pleura.inference.precision import Precision, choose_precision, precision_of_predictor, use_precision

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def nothing_is_asked_for() -> Iterator[None]:
    yield
    use_precision(None)


@pytest.mark.parametrize(
    ("gain", "expected"), [(None, "float32"), (0.3, "float32"), (1.09, "float32"), (1.1, "bfloat16"), (4.0, "bfloat16")]
)
def test_auto_takes_bfloat16_on_cpus_that_were_measured_to_be_faster_in_it(
    monkeypatch: pytest.MonkeyPatch, gain: float | None, expected: str
):
    monkeypatch.setattr("pleura.inference.precision.bfloat16_gain", lambda training: gain)
    chosen = choose_precision("auto", CPU, training=True)
    assert chosen.name == expected
    assert (f"{gain:.2f} times as fast" if gain else "no AMX") in chosen.why


def test_training_and_predicting_are_measured_apart(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("pleura.inference.precision.bfloat16_gain", lambda training: 2.0 if training else 0.5)
    assert choose_precision("auto", CPU, training=True).name == "bfloat16"
    assert choose_precision("auto", CPU, training=False).name == "float32"


@pytest.mark.parametrize(
    ("native", "training", "expected"),
    [(True, True, "bfloat16"), (True, False, "bfloat16"), (False, True, "float16"), (False, False, "float32")],
)
def test_bfloat16_is_for_gpus_that_compute_in_it_and_float16_to_train_on_those_that_emulate_it(
    monkeypatch: pytest.MonkeyPatch, native: bool, training: bool, expected: str
):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: native or including_emulation)
    assert choose_precision("auto", GPU, training).name == expected


@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
def test_float32_can_be_asked_for_everywhere_and_bfloat16_where_it_is(device: str):
    assert choose_precision("float32", torch.device(device), True) == Precision("float32", "as asked for")
    if device == "mps":
        assert choose_precision("auto", torch.device(device), True).name == "float32"
        with pytest.raises(InputError, match="not for mps; take float32"):
            choose_precision("bfloat16", torch.device(device), True)
    else:
        assert choose_precision("bfloat16", torch.device(device), True).name == "bfloat16"


@pytest.mark.parametrize("name", ["float16", "bf16", ""])
def test_another_word_is_refused(name: str):
    with pytest.raises(InputError, match="precision is auto, float32, bfloat16, not"):
        choose_precision(name, CPU, training=False)
    with pytest.raises(InputError, match="precision is auto"):
        use_precision(name)


def test_a_predictor_takes_what_it_is_given_then_what_the_process_has_then_float32_of_the_recipe(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("pleura.inference.precision.bfloat16_gain", lambda training: 2.0)

    def name(asked: str | None, recipe: str) -> str:
        return precision_of_predictor(asked, {"precision": recipe}, CPU, cancels=False).name

    assert (
        precision_of_predictor(None, {}, CPU, cancels=False).name
        == name(None, "bfloat16")
        == name(None, "auto")
        == "bfloat16"
    )
    assert name(None, "float32") == name("float32", "auto") == "float32"
    use_precision("bfloat16")
    assert name(None, "float32") == "bfloat16"
    assert name("float32", "auto") == "float32"


def test_a_recipes_bfloat16_is_for_the_machine_that_trains_and_not_for_a_slower_one_that_predicts():
    assert precision_of_predictor(None, {"precision": "bfloat16"}, CPU, cancels=False).name == "float32"


def test_auto_stays_away_from_bfloat16_for_a_net_that_cancels(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("pleura.inference.precision.bfloat16_gain", lambda training: 4.0)
    chosen = precision_of_predictor("auto", {}, CPU, cancels=True)
    assert str(chosen) == "float32 (bfloat16 would change its masks: one of its layers cancels)"
    assert precision_of_predictor("bfloat16", {}, CPU, cancels=True).name == "bfloat16"


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_within_it_a_product_has_that_precision(name: str):
    with Precision(name, "").on(CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == getattr(torch, name)
