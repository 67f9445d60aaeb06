"""Settings that do nothing: refused where the command line gives them, listed where a file has them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pleura.config.bundled import load_experiment, recipe_names
from pleura.config.idle import idle_settings
from pleura.config.parse import load_recipe, parse_recipe
from pleura.config.recipe import Ensemble
from pleura.errors import ConfigError

TWO_STAGES = "stages: [{name: low, schedule: {name: plateau}}, {name: high}]"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("stages.high.schedule.patience=5", "it is of plateau, and schedule.name is cosine"),
        ("stages.low.schedule.warmup_epochs=1", "it is of cosine, and schedule.name is plateau"),
        (
            "training.schedule.name=constant training.schedule.min_lr=0",
            "it is of cosine and plateau, and schedule.name",
        ),
        ("training.lr=1e-7 training.schedule.min_lr=1e-6", "lr (1e-07) is not above schedule.min_lr (1e-06)"),
        ("training.momentum=0.9", "it is of sgd, and optimizer is adam"),
        ("training.early_stopping=10", "the stage has only 10 epochs"),
        ("training.freeze_encoder_epochs=10 training.freeze_encoder_stride=4", "freezes all of the encoder"),
        ("training.loss.focal_gamma=3", "loss.focal is 0; give it a weight"),
        ("training.loss={tversky_alpha: 0.5}", "loss.tversky is 0; give it a weight"),
        ("training.loss.dice=0 training.loss.smooth=2", "loss.dice, loss.jaccard and loss.tversky are 0"),
        ("training.averaging.refresh_cases=8", "nothing is averaged"),
        ("training.labels.teacher_share=0.3", "there is no teacher; set labels.teacher"),
        ("training.augment.blur_sigma_px=[1,2]", "augment.blur_probability is 0; give it a value above 0"),
        ("training.augment.jpeg_quality=[10,20]", "augment.jpeg_probability is 0"),
        ("training.augment={affine_probability: 0, shift: 0.2}", "augment.affine_probability is 0"),
        ("training.augment.strength=0 training.augment.contrast=0.1", "augment.strength is 0"),
        ("model.presence_head=true", "no stage trains it; give training.loss.presence a weight"),
        ("model.deep_supervision=true", "no stage trains it; give training.loss.deep a weight"),
        ("model.architecture=albunet model.encoder=resnet34 model.bottleneck=scse", "albunet has one decoder"),
        ("model.output_stride=4 model.last_width=8", "nothing is decoded at full resolution"),
    ],
)
def test_an_override_that_would_do_nothing_is_refused_with_the_reason(tmp_path: Path, words: str, reason: str):
    (tmp_path / "recipe.yaml").write_text(TWO_STAGES)
    with pytest.raises(ConfigError) as caught:
        load_recipe(tmp_path / "recipe.yaml", split(words), strict=True)
    assert ": would do nothing, " in str(caught.value)
    assert reason in str(caught.value)


def split(words: str) -> list[str]:
    """Overrides with a space in their value are the last of a line."""
    return [words] if "{" in words else words.split()


@pytest.mark.parametrize(
    "words",
    [
        "training.schedule.patience=5",  # of the stage whose schedule is plateau
        "training.optimizer=sgd training.momentum=0.5",
        "training.loss.focal=1 training.loss.focal_gamma=3",
        "training.augment.blur_probability=0.1 training.augment.blur_sigma_px=[1,2]",
        "model.presence_head=true stages.low.loss.presence=0.1",
        "stages.high.averaging.incoming_share=0.5 stages.high.averaging.refresh_cases=8",
    ],
)
def test_an_override_that_any_stage_uses_is_taken(tmp_path: Path, words: str):
    (tmp_path / "recipe.yaml").write_text(TWO_STAGES)
    load_recipe(tmp_path / "recipe.yaml", words.split(), strict=True)


def test_settings_without_effect_are_listed_where_they_stand():
    training = {"loss": {"focal_gamma": 3.0}, "schedule": {"patience": 7}, "augment": {"noise_sigma": 0.1}}
    stages = [
        {"name": "low", "schedule": {"name": "plateau"}, "momentum": 0.5},
        {"name": "high", "augment": {"noise_probability": 0.1}},
    ]
    found = idle_settings(parse_recipe({"training": training, "stages": stages, "model": {"presence_head": True}}))
    assert [each.path for each in found] == ["model.presence_head", "stages.low.momentum", "training.loss.focal_gamma"]
    assert str(found[2]) == "training.loss.focal_gamma (3.0) does nothing: loss.focal is 0; give it a weight"


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_that_comes_with_pleura_sets_nothing_without_effect(name: str):
    recipe = load_experiment(name)
    assert isinstance(recipe, Ensemble) or idle_settings(recipe) == []
