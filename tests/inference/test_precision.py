"""In how many bits a net computes: what is chosen on which device, and who is heard first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from shown import shown

from pleura.config.model import ModelConfig
from pleura.decision.triplet import Triplet
from pleura.errors import InputError
from pleura.inference.precision import Precision, choose_precision, precision_of_predictor, use_precision
from pleura.models.checkpoint import Checkpoint
from pleura.models.identity import weights_hash
from pleura.models.preprocessing import Preprocessing

CPU, GPU = torch.device("cpu"), torch.device("cuda")
BARE = Checkpoint(
    ModelConfig(pretrained=False),
    Preprocessing(32, 32, 1, 0.0, 1.0, "area"),
    Triplet(0.5, 10, 0.25),
    weights={"weight": torch.arange(3.0)},
)
"""It does not say what bfloat16 changes."""


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


def chosen(
    checkpoint: Checkpoint, asked: str | None = None, tta: str = "none", device: torch.device = CPU
) -> Precision:
    return precision_of_predictor(asked, checkpoint, weights_hash(checkpoint.weights), tta, device)


@pytest.mark.usefixtures("bfloat16_is_faster")
def test_a_predictor_takes_what_it_is_given_then_what_the_process_has_then_float32_of_the_recipe():
    def name(asked: str | None, recipe: str) -> str:
        return chosen(shown(replace(BARE, recipe={"precision": recipe})), asked).name

    assert chosen(shown(BARE)).name == name(None, "bfloat16") == name(None, "auto") == "bfloat16"
    assert name(None, "float32") == name("float32", "auto") == "float32"
    use_precision("bfloat16")
    assert name(None, "float32") == "bfloat16"
    assert name("float32", "auto") == "float32"


def test_a_recipes_bfloat16_is_for_the_machine_that_trains_and_not_for_a_slower_one_that_predicts():
    found = chosen(shown(replace(BARE, recipe={"precision": "bfloat16"})))
    assert str(found) == "float32 (this CPU has no AMX or AVX512_BF16 for bfloat16)"


@pytest.mark.usefixtures("bfloat16_is_faster")
def test_what_was_not_measured_is_predicted_in_float32_and_the_way_out_is_said():
    assert str(chosen(BARE)) == (
        "float32 (what bfloat16 changes in its results was not measured); pleura tune measures it, "
        "--precision bfloat16 computes in it all the same"
    )
    assert chosen(BARE, "bfloat16").name == "bfloat16"


@pytest.mark.usefixtures("bfloat16_is_faster")
def test_what_changes_little_is_predicted_in_bfloat16_and_the_change_is_said():
    assert str(chosen(shown(BARE))) == (
        "bfloat16 (which changes its Dice on positives by -0.0010 and 1 of 200 decisions; a prediction in bfloat16 was "
        "measured 2.00 times as fast on this CPU); --precision float32 gives the same on every machine, but for "
        "rounding"
    )


@pytest.mark.usefixtures("bfloat16_is_faster")
@pytest.mark.parametrize(
    ("other", "words"),
    [
        (
            {"dice_change": 0.0021},
            "Dice on positives by +0.0021 and 1 of 200 decisions, and auto accepts 0.002 and 1 % ",
        ),
        ({"dice_change": -0.0021}, "Dice on positives by -0.0021"),
        ({"dice_change": float("nan")}, "Dice on positives by +nan"),
        ({"decisions_changed": 3}, "3 of 200 decisions, and auto accepts"),
        ({"cases": 49, "decisions_changed": 0}, "0 of 49 decisions, and auto asks for 50 cases"),
        ({"triplet": {"top_threshold": 0.1, "min_pixels": 0, "bottom_threshold": 0.1}}, "with another triplet"),
        ({"tta": "flip"}, "with another tta"),
        ({"device": "cuda"}, "with another kind of device"),
        ({"weights_sha256": "1" * 64}, "with other weights"),
    ],
)
def test_auto_stays_away_from_bfloat16_where_it_changes_much_or_something_else_was_measured(
    other: dict[str, Any], words: str
):
    found = chosen(shown(BARE, **other))
    assert found.name == "float32"
    assert words in found.why
    assert "--precision bfloat16" in found.way_out
    assert chosen(shown(BARE, **other), "bfloat16").name == "bfloat16"


def test_the_limits_themselves_are_accepted_and_kinds_of_gpu_are_not_told_apart(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    limit = shown(BARE, device="cuda", dice_change=-0.002, decisions_changed=2)
    assert chosen(limit, device=torch.device("cuda:1")).name == "bfloat16"
    assert chosen(BARE, device=GPU).name == "float32"


def test_speed_is_not_measured_where_the_change_already_decides(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("pleura.inference.precision.bfloat16_units", lambda: ("AMX",))
    monkeypatch.setattr("pleura.inference.precision.bfloat16_gain", lambda training: pytest.fail("it was measured"))
    assert chosen(BARE).name == chosen(shown(BARE, decisions_changed=200)).name == "float32"


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_within_it_a_product_has_that_precision(name: str):
    with Precision(name, "").on(CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == getattr(torch, name)
