"""The experiment file: every fault at once and by its dotted path, overrides, stages, numbers as people write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pleura.cli.train import settings_in_words
from pleura.config.model import ModelConfig
from pleura.config.parse import load_recipe, parse_model, parse_recipe
from pleura.config.recipe import Recipe
from pleura.errors import ConfigError

ONE_STAGE = "stages: [{name: low}]"
TWO_STAGES = """
training: {lr: 1.0e-3, batch_size: 8, loss: {bce: 3.0, focal: 4.0}, schedule: {name: plateau, patience: 5}}
stages:
  - name: low
    size_px: 128
  - name: high
    size_px: 256
    lr: 1.0e-5
    loss: {bce: 2.0}
"""


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "recipe.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def loaded(folder: Path, text: str, *overrides: str) -> Recipe:
    return load_recipe(written(folder, text), overrides)


def refusal(folder: Path, text: str | bytes, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_recipe(written(folder, text), overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_one_named_stage_is_a_whole_recipe(tmp_path: Path):
    recipe = loaded(tmp_path, ONE_STAGE)
    assert [stage.name for stage in recipe.stages] == ["low"]
    assert (recipe.seed, recipe.model.encoder) == (42, "densenet121")
    assert recipe.model.decoder_widths is None


def test_training_is_merged_into_every_stage_and_a_stage_wins(tmp_path: Path):
    low, high = loaded(tmp_path, TWO_STAGES).stages
    assert (low.size_px, low.lr, low.batch_size) == (128, 1e-3, 8)
    assert (high.size_px, high.lr, high.batch_size) == (256, 1e-5, 8)


def test_a_stage_that_changes_one_loss_weight_keeps_the_others(tmp_path: Path):
    low, high = loaded(tmp_path, TWO_STAGES).stages
    assert (low.loss.bce, low.loss.dice, low.loss.focal) == (3.0, 1.0, 4.0)
    assert (high.loss.bce, high.loss.dice, high.loss.focal) == (2.0, 1.0, 4.0)
    assert (high.schedule.name, high.schedule.patience) == ("plateau", 5)


@pytest.mark.parametrize("number", ["1e-4", "1E-4", "1.0e-4", "0.0001", "10e-5", "+1e-4"])
def test_numbers_are_read_as_people_write_them(tmp_path: Path, number: str):
    assert loaded(tmp_path, f"stages: [{{name: low, lr: {number}}}]").stages[0].lr == pytest.approx(1e-4)
    assert loaded(tmp_path, ONE_STAGE, f"training.lr={number}").stages[0].lr == pytest.approx(1e-4)


def test_a_name_that_looks_almost_like_a_number_stays_text(tmp_path: Path):
    assert loaded(tmp_path, f"name: e5b\n{ONE_STAGE}").name == "e5b"


def test_a_pair_may_be_written_as_a_list(tmp_path: Path):
    augment = loaded(tmp_path, ONE_STAGE, "training.augment.gamma=[0.5, 2.0]").stages[0].augment
    assert augment.gamma == (0.5, 2.0)


@pytest.mark.parametrize(
    ("setting", "phrase"),
    [
        ("{name: a, batchsize: 8}", "stages.0.batchsize: unknown setting; did you mean batch_size?"),
        ("{name: a, loss: {dise: 1.0}}", "stages.0.loss.dise: unknown setting; did you mean dice?"),
        ("{name: a, zzzzzz: 1}", "stages.0.zzzzzz: unknown setting"),
        ("{name: a, epochs: ten}", "stages.0.epochs: input should be a valid integer (given: 'ten')"),
        ("{name: a, epochs: 2.5}", "stages.0.epochs:"),
        ("{name: a, epochs: true}", "stages.0.epochs:"),
        ("{name: a, lr: '1e-4'}", "stages.0.lr: input should be a valid number"),
        ("{name: a, lr: 0}", "stages.0.lr: input should be greater than 0 (given: 0)"),
        ("{name: a, lr: .nan}", "stages.0.lr: input should be a finite number"),
        ("{name: a, lr: .inf}", "stages.0.lr: input should be a finite number"),
        ("{name: a, positive_rate: 1.2}", "stages.0.positive_rate: input should be less than or equal to 1"),
        ("{name: a, positive_rate: 0}", "stages.0.positive_rate: input should be greater than 0"),
        ("{name: a, size_px: 16}", "stages.0.size_px: input should be greater than or equal to 32"),
        ("{name: a, schedule: {name: linear}}", "stages.0.schedule.name: input should be 'constant', 'cosine'"),
        ("{name: a, augment: {horizontal_flip: 2}}", "stages.0.augment.horizontal_flip:"),
        (
            "{name: a, labels: {weights: {x: 1.0e+39}}}",
            "stages.0.labels.weights.x: input should be less than or equal to 1000",
        ),
        ("{name: a, loss: {bce: 0, dice: 0}}", "stages.0.loss: all weights are 0; give at least one"),
        ("{name: ../a}", "stages.0.name:"),
        ("{epochs: 3}", "stages.0.name: is missing"),
        ("3", "stages.0: input should be an object (given: 3)"),
    ],
)
def test_a_wrong_setting_is_named_with_its_stage_and_the_reason(tmp_path: Path, setting: str, phrase: str):
    assert phrase in refusal(tmp_path, f"stages: [{setting}]")


def test_a_fault_in_training_is_named_once_and_where_it_was_written(tmp_path: Path):
    message = refusal(tmp_path, "training: {loss: {bce: -1.0}}\nstages: [{name: a}, {name: b}]")
    assert message.count("bce") == 1
    assert "training.loss.bce: input should be greater than or equal to 0 (given: -1.0)" in message


def test_all_faults_of_a_file_are_reported_at_once(tmp_path: Path):
    faults = "seeds: 3\nmodel: {classes: 0}\ntraining: {lrr: 1}\nstages: [{name: a, epochs: 0}, {name: b, lr: x}]"
    message = refusal(tmp_path, faults)
    for dotted in ("seeds: unknown", "model.classes:", "training.lrr:", "stages.0.epochs:", "stages.1.lr:"):
        assert dotted in message


def test_the_message_begins_with_the_file(tmp_path: Path):
    assert refusal(tmp_path, "stages: []").startswith(f"{tmp_path / 'recipe.yaml'}: stages:")


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("stages: [", "is not plain YAML"),
        ("a: b: c", "is not plain YAML"),
        ("- low\n- high", "a recipe is a mapping with the key 'stages'"),
        ("", "a recipe is a mapping with the key 'stages'"),
        (b"\xff\xfe\x00", "cannot be read"),
        ("name: x", "stages: is missing"),
        ("stages: {low: 1}", "stages: input should be a valid"),
        (f"training: [1]\n{ONE_STAGE}", "training: must be a mapping"),
        ("stages: [{name: a}, {name: b}, {name: a}]", "two stages are named 'a'; give each its own name"),
        (f"!!python/object/apply:os.getcwd []\n{ONE_STAGE}", "is not plain YAML"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path, text: str | bytes, phrase: str):
    assert phrase in refusal(tmp_path, text)


def test_a_missing_file_is_refused_by_name(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: cannot be read \(No such file"):
        load_recipe(tmp_path / "nowhere.yaml")


def test_a_fault_in_a_stage_is_not_blamed_on_training(tmp_path: Path):
    assert "stages.1.lr:" in refusal(tmp_path, "training: {lr: 0.1}\nstages: [{name: a}, {name: b, lr: -1.0}]")


@pytest.mark.parametrize("text", [f"2020-01-01: 3\n{ONE_STAGE}", "stages: &again [*again]"])
def test_yaml_that_json_cannot_represent_is_refused(tmp_path: Path, text: str):
    refusal(tmp_path, text)


def test_a_setting_in_the_wrong_place_is_not_answered_with_itself(tmp_path: Path):
    assert "did you mean gamma?" not in refusal(tmp_path, "stages: [{name: a, gamma: [0.5, 2.0]}]")


@pytest.mark.parametrize(
    ("settings_of_net", "phrase"),
    [
        ({"encoders": "resnet34"}, "model.encoders: unknown setting; did you mean encoder?"),
        ({"in_channels": 2}, "in_channels: input should be 1 or 3"),
        ({"classes": 0}, "classes: input should be greater than or equal to 1"),
        ({"pretrained": 3}, "pretrained: input should be a valid boolean"),
        ({"decoder_widths": [8, 0]}, "decoder_widths.1: input should be greater than or equal to 1"),
        ({"architecture": "fpn"}, "architecture: input should be 'unet' or 'albunet'"),
        ({"architecture": "albunet", "encoder": "densenet121"}, "albunet is built on resnet34, not on densenet121"),
    ],
)
def test_a_wrong_net_is_refused(settings_of_net: dict[str, Any], phrase: str):
    with pytest.raises(ConfigError) as caught:
        parse_model(settings_of_net)
    assert phrase in str(caught.value)


@pytest.mark.parametrize("pretrained", [True, False, "weights/x.safetensors"])
def test_pretrained_is_a_switch_or_a_path(pretrained: bool | str):
    assert parse_model({"pretrained": pretrained}).pretrained == pretrained


@settings(max_examples=30)
@given(seed=st.integers(0, 2**40), lr=st.floats(1e-9, 10), epochs=st.integers(1, 500), rate=st.floats(0.01, 1))
def test_a_recipe_survives_being_written_and_read_again(seed: int, lr: float, epochs: int, rate: float):
    stage = {"name": "a", "lr": lr, "epochs": epochs, "positive_rate": rate}
    recipe = parse_recipe({"seed": seed, "stages": [stage]})
    assert parse_recipe(recipe.model_dump(mode="json")) == recipe


def test_a_document_is_not_changed_by_reading_it():
    document = {"training": {"lr": 0.5}, "stages": [{"name": "a"}]}
    parse_recipe(document)
    assert document == {"training": {"lr": 0.5}, "stages": [{"name": "a"}]}


def test_settings_cannot_be_changed_after_they_were_checked():
    with pytest.raises(ValidationError):
        ModelConfig().classes = -1  # type: ignore[misc]


def test_every_setting_explains_itself():
    stage = parse_recipe({"stages": [{"name": "a"}]}).stages[0]
    tables = [Recipe, ModelConfig, *(type(part) for part in (stage.loss, stage.schedule, stage.augment))]
    fields = [(kind, name, field) for kind in tables for name, field in kind.model_fields.items()]
    assert [name for kind, name, field in fields if not field.description] == ["model"]


def test_the_weight_of_a_source_with_a_dot_is_written_as_a_mapping(tmp_path: Path):
    recipe = loaded(tmp_path, ONE_STAGE, "stages.0.labels.weights={a.b: 0, c: 1000}")
    assert recipe.stages[0].labels.weights == {"a.b": 0, "c": 1000}
    shown = " ".join(settings_in_words(recipe)).split()
    assert shown[shown.index("labels.weights") :][1:3] == ["of", "2"]
