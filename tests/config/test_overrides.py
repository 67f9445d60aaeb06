"""Settings on the command line: what they change, and that each which would change nothing is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from pleura.config.parse import load_recipe
from pleura.config.recipe import Recipe
from pleura.errors import ConfigError

ONE_STAGE = "stages: [{name: low}]"
TWO_STAGES = """
training: {lr: 1.0e-3, batch_size: 8, loss: {bce: 3.0, focal: 4.0}, schedule: {name: plateau, patience: 5}}
stages:
  - {name: low, size_px: 128}
  - {name: high, size_px: 256, lr: 1.0e-5, loss: {bce: 2.0}}
"""


def loaded(folder: Path, text: str, *overrides: str, strict: bool = True) -> Recipe:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return load_recipe(path, overrides, strict)


def refusal(folder: Path, text: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        loaded(folder, text, *overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("key", ["stages.high.lr", "stages.1.lr"])
def test_an_override_changes_one_stage_by_name_or_by_position(tmp_path: Path, key: str):
    low, high = loaded(tmp_path, TWO_STAGES, f"{key}=7e-5").stages
    assert (low.lr, high.lr) == (1e-3, 7e-5)


def test_an_override_of_training_changes_every_stage_also_those_with_a_value_of_their_own(tmp_path: Path):
    low, high = loaded(
        tmp_path, TWO_STAGES, "training.lr=0.5", "training.loss.bce=7", "training.augment.shift=0.25"
    ).stages
    assert low.lr == high.lr == 0.5
    assert low.loss.bce == high.loss.bce == 7
    assert low.loss.focal == high.loss.focal == 4
    assert low.augment.shift == high.augment.shift == 0.25


def test_a_section_that_is_given_whole_is_the_same_in_every_stage(tmp_path: Path):
    low, high = loaded(tmp_path, TWO_STAGES, "training.loss={dice: 2}").stages
    assert low.loss == high.loss
    assert (low.loss.bce, low.loss.dice, low.loss.focal) == (1, 2, 0)
    low, high = loaded(tmp_path, TWO_STAGES, "training={lr: 0.5, size_px: 64}").stages
    assert [(stage.name, stage.lr, stage.size_px, stage.batch_size) for stage in (low, high)] == [
        ("low", 0.5, 64, 4),
        ("high", 0.5, 64, 4),
    ]


@pytest.mark.parametrize("order", [1, -1])
def test_a_value_for_one_stage_wins_over_the_value_for_all(tmp_path: Path, order: int):
    words = ["training.lr=0.5", "stages.high.lr=0.25", "training.loss={dice: 2}", "training.loss.bce=5"][::order]
    low, high = loaded(tmp_path, TWO_STAGES, *words).stages
    assert (low.lr, high.lr) == (0.5, 0.25)
    assert (low.loss.bce, low.loss.dice, high.loss.bce) == (5, 2, 5)


def test_an_override_that_no_stage_is_left_for_is_refused(tmp_path: Path):
    words = ("training.lr=0.5", "stages.low.lr=0.1", "stages.1.lr=0.2")
    assert "training.lr: every stage is given a value of its own" in refusal(tmp_path, TWO_STAGES, *words)


@pytest.mark.parametrize(
    ("first", "second"),
    [("seed=1", "seed=2"), ("stages.low.lr=0.1", "stages.0.lr=0.2"), ("training.lr=0.1", "training.lr=0.2")],
)
def test_a_setting_that_is_given_two_values_is_refused_with_both(tmp_path: Path, first: str, second: str):
    assert f"is given twice, as {first!r} and {second!r}" in refusal(tmp_path, TWO_STAGES, first, second)
    loaded(tmp_path, TWO_STAGES, first, first)
    assert loaded(tmp_path, TWO_STAGES, first, second, strict=False) == loaded(tmp_path, TWO_STAGES, second)


def test_an_override_makes_new_keys(tmp_path: Path):
    recipe = loaded(tmp_path, ONE_STAGE, "seed=2", "model.classes=3", "stages.0.positive_rate=null", " samples = 1 ")
    assert (recipe.seed, recipe.model.classes, recipe.stages[0].positive_rate, recipe.samples) == (2, 3, None, 1)


def test_every_bad_word_of_a_command_line_is_named_at_once(tmp_path: Path):
    words = ["training.lr=abc", "seed", "=3", "samples=[", "name=", "stages.low.epochs=ten", "stages.middle.lr=1"]
    words += ["training.batchsize=2", "training.optimizer=sdg", "model.classes=0", "data.size=3"]
    message = refusal(tmp_path, TWO_STAGES, *words)
    for phrase in (
        "training.lr: input should be a valid number (given: 'abc')",
        "'seed' is no override",
        "'=3' is no override",
        "'samples=[': the value is not YAML",
        "name: no value stands after the =",
        "stages.0.epochs: input should be a valid integer (given: 'ten')",
        "there is no stage 'middle'; the stages are low, high",
        "training.batchsize: unknown setting; did you mean batch_size?",
        "training.optimizer: input should be 'adam', 'adamw' or 'sgd' (given: 'sdg')",
        "model.classes: input should be greater than or equal to 1",
        "data: unknown setting; did you mean the option --data?",
    ):
        assert phrase in message
    assert message.count("training.lr: ") == 1


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("lr=1e-4", "training.lr"),
        ("learning_rate=1e-4", "training.lr"),
        ("training.learning_rate=1e-4", "lr"),
        ("training.lrr=1", "lr"),
        ("stages.high.learning-rate=1", "lr"),
        ("model.lr=1e-4", "training.lr"),
        ("Training.lr=1e-4", "training"),
        ("training.LR=1e-4", "lr"),
        ("encoder=resnet34", "model.encoder"),
        ("training.encoder=resnet34", "model.encoder"),
        ("stages.low.encoder=resnet34", "model.encoder"),
        ("encoder_weights=imagenet", "model.pretrained"),
        ("model.encoder_weights=imagenet", "pretrained"),
        ("backbone=resnet34", "model.encoder"),
        ("epochs=3", "training.epochs"),
        ("num_epochs=3", "training.epochs"),
        ("loss.dice=2", "training.loss"),
        ("gamma=[1,2]", "training.augment.gamma"),
        ("stages.high.gamma=[1,2]", "stages.1.augment.gamma"),
        ("training.min_lr=0", "training.schedule.min_lr"),
        ("device=cuda", "the option --device"),
        ("training.fold=1", "the option --fold"),
        ("sedd=1", "seed"),
        ("training.precision=float32", "precision at the top of the recipe, beside stages"),
        ("stages.low.seed=1", "seed at the top of the recipe, beside stages"),
    ],
)
def test_an_unknown_setting_is_answered_with_the_one_that_is_meant(tmp_path: Path, override: str, meant: str):
    message = refusal(tmp_path, TWO_STAGES, override)
    assert f"unknown setting; did you mean {meant}?" in message


def test_a_word_that_is_like_no_setting_is_answered_with_none(tmp_path: Path):
    assert refusal(tmp_path, TWO_STAGES, "zzzzzz=1").endswith("zzzzzz: unknown setting")


@pytest.mark.parametrize(
    ("override", "phrase"),
    [
        ("training.lr", "is no override; write key=value"),
        ("seed=[", "the value is not YAML"),
        ("training.lr=", "training.lr: no value stands after the =; what may be empty is written as null or ''"),
        ("stages.2.lr=1", "there is no stage '2'; the stages are low, high"),
        ("stages.low=1", "names no setting; write stages.NAME.KEY=value"),
        ("training.lr.x=1", "names no setting, training.lr is a plain value"),
        ("stages.low.size_px.x.y=1", "lies below a plain value"),
        ("model.decoder_widths.0=8", "names no setting; give all of it, as in model.decoder_widths=[...]"),
        ("training.lr=[1,2]", "training.lr: input should be a valid number (given: [1, 2])"),
        ("training.lr='1e-4'", "training.lr: input should be a valid number (given: '1e-4')"),
        ("training.lr=true", "training.lr: input should be a valid number"),
        ("training.epochs=3.5", "training.epochs: input should be a valid integer"),
        ("training.epochs=010", "training.epochs: input should be a valid integer (given: '010')"),
        ("training.epochs=1:30", "training.epochs: input should be a valid integer (given: '1:30')"),
        ("model.presence_head=1", "model.presence_head: input should be a valid boolean (given: 1)"),
        ("model.encoder=off", "model.encoder: input should be a valid string (given: False), as YAML reads on, off"),
        ("training=3", "training: must be a mapping of settings"),
        ("training.name=x", "training.name: unknown setting"),
        ("training={name: x}", "training.name: unknown setting"),
    ],
)
def test_a_wrong_override_is_refused(tmp_path: Path, override: str, phrase: str):
    assert phrase in refusal(tmp_path, TWO_STAGES.replace("stages:", "model: {decoder_widths: [8]}\nstages:"), override)


@pytest.mark.parametrize(
    ("text", "value"), [("1_000", 1000), ("+7", 7), ("0", 0), ("18446744073709551616", 2**64), ("0x10", None)]
)
def test_whole_numbers_are_those_of_people(tmp_path: Path, text: str, value: int | None):
    if value is None:
        assert "seed: input should be a valid integer (given: '0x10')" in refusal(tmp_path, ONE_STAGE, f"seed={text}")
    else:
        assert loaded(tmp_path, ONE_STAGE, f"seed={text}").seed == value


@pytest.mark.parametrize(
    ("text", "value"), [("1e-4", 1e-4), (".5", 0.5), ("5.", 5), ("1_0.5", 10.5), ("1.5E-3", 1.5e-3)]
)
def test_fractions_are_those_of_people(tmp_path: Path, text: str, value: float):
    assert loaded(tmp_path, ONE_STAGE, f"training.lr={text}").stages[0].lr == value


@pytest.mark.parametrize(("word", "value"), [("yes", True), ("no", False), ("on", True), ("false", False)])
def test_a_switch_may_be_written_as_yaml_writes_it(tmp_path: Path, word: str, value: bool):
    assert loaded(tmp_path, ONE_STAGE, f"model.pretrained={word}").model.pretrained is value


def test_a_setting_that_a_file_gives_twice_is_refused_with_its_line(tmp_path: Path):
    text = "seed: 1\nstages:\n  - name: low\n    lr: 1.0e-3\n    epochs: 2\n    lr: 1.0e-4\n"
    assert refusal(tmp_path, text).endswith(
        "recipe.yaml: line 6: lr is given twice in one place; leave one of them out"
    )


def test_a_bad_value_in_training_is_refused_also_where_every_stage_has_its_own(tmp_path: Path):
    text = "training: {lr: abc, augment: {shift: 2}}\nstages: [{name: low, lr: 0.1, augment: {shift: 0}}]"
    message = refusal(tmp_path, text)
    assert "training.lr: input should be a valid number (given: 'abc')" in message
    assert "training.augment.shift: input should be less than or equal to 1" in message
    assert loaded(tmp_path, text.replace("abc", "0.5").replace("shift: 2", "shift: 1")).stages[0].lr == 0.1


def test_a_combination_that_each_stage_completes_is_no_fault_of_training(tmp_path: Path):
    text = "training: {averaging: {hand_on: ema}}\nstages: [{name: low, averaging: {ema_decay: 0.5}}]"
    assert loaded(tmp_path, text).stages[0].averaging.hand_on == "ema"
