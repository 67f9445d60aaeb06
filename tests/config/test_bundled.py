"""The recipes that come with pleura: what they say, that they are what was published, and that they train."""

from __future__ import annotations

import csv
import math
import subprocess
import sys

import pytest
from places import ROOT

from pleura.config.bundled import describe_recipe, find_recipe, list_recipes, load_experiment, recipe_names, recipe_path
from pleura.config.parse import load_recipe
from pleura.config.recipe import Ensemble, Recipe
from pleura.data.dataset import Dataset
from pleura.errors import ConfigError
from pleura.models.checkpoint import load_checkpoint
from pleura.training.losses import total_loss
from pleura.training.train import train

OURS = {"2st_unet_taught", "default", "demo", "densenet121_taught", "lite0_cpu", "lite0_gpu", "smoke"}
EXPERIMENTS = {name: load_experiment(name) for name in recipe_names()}
RECIPES = {name: recipe for name, recipe in EXPERIMENTS.items() if isinstance(recipe, Recipe)}

# Published facts. Net, weights of BCE, Dice and focal, share of positives in each part, validation score.
WINNER = {
    "albunet_valid": ("resnet34", (3, 1, 4), (0.8, 0.6, 0.4, 0.4), "0.8578"),
    "albunet_public": ("resnet34", (1, 1, 1), (0.8, 0.4, 0.6, 0.4), "0.8558"),
    "resnet50_winner": ("resnet50", (2, 1, 2), (0.8, 0.6, 0.4, 0.5), "0.8582"),
    "seunet": ("legacy_seresnext50_32x4d", (3, 1, 4), (0.8, 0.6, 0.4, 0.5), "0.8604"),
}
# Encoder, optimizer, learning rate and its lowest, epochs, batches at 256 and 512 px.
ENS4B = {
    "2st_unet": ("resnet34", "adam", 1e-4, 1e-6, 80, (6, 4)),
    "densenet169": ("densenet169", "adam", 1e-4, 1e-6, 80, (6, 4)),
    "efficientnet_b4": ("efficientnet_b4", "adam", 1e-4, 1e-6, 80, (6, 4)),
    "seresnext50": ("seresnext50_32x4d", "adam", 1e-4, 1e-6, 80, (6, 4)),
    "resnet50": ("resnet50", "sgd", 1e-3, 1e-5, 60, (10, 10)),
}


def test_every_published_recipe_is_there():
    wanted = {*WINNER, *ENS4B, *OURS, "densenet121", "ens4b_unet", "positives_third", "empty_head"}
    assert set(recipe_names()) == wanted == {path.stem for path in (ROOT / "recipes").glob("*.yaml")}


@pytest.mark.parametrize("name", sorted(EXPERIMENTS.keys() - OURS))
def test_a_published_recipe_cites_its_source_its_score_what_is_unknown_and_its_cost(name):
    told = [EXPERIMENTS[name].source, EXPERIMENTS[name].anchor, EXPERIMENTS[name].unknown, EXPERIMENTS[name].cost]
    assert all(len(text) > 20 for text in told)
    assert "estimate" in EXPERIMENTS[name].cost.lower()  # nobody has run it here


@pytest.mark.parametrize("name", WINNER)
def test_the_winners_experiments_are_as_published(name):
    encoder, weights, rates, score = WINNER[name]
    recipe = RECIPES[name]
    assert (recipe.model.encoder, recipe.seed, recipe.tta) == (encoder, 42, "flip")
    assert score in recipe.anchor
    assert [stage.name for stage in recipe.stages] == ["part0", "part1", "part2", "second_stage"]
    assert tuple(stage.positive_rate for stage in recipe.stages) == rates
    assert [stage.lr for stage in recipe.stages] == [1e-4, 1e-5, 1e-5, 1e-5]
    assert [stage.epochs for stage in recipe.stages] == [50, 50, 50, 40]
    assert [stage.early_stopping for stage in recipe.stages] == [10, 12, 12, 12]
    assert [stage.averaging.top_k for stage in recipe.stages] == [5, 3, 3, 3]
    for stage in recipe.stages:
        assert (stage.loss.bce, stage.loss.dice, stage.loss.focal) == weights
        assert (stage.loss.smooth, stage.loss.focal_gamma, stage.loss.per_image) == (1e-6, 2, False)
        assert (stage.size_px, stage.batch_size, stage.accumulate_steps, stage.gradient_clip) == (1024, 2, 1, 0.1)
        assert (stage.optimizer, stage.augment.rotate_degrees, stage.augment.border) == ("adam", 45, "reflect")
    decays, schedules = [stage.weight_decay for stage in recipe.stages], [stage.schedule for stage in recipe.stages]
    last = (5e-7, 1e-8) if name == "seunet" else (5e-6, 1e-7)
    assert decays == [5e-6] * 3 + [last[0]]
    assert [schedule.min_lr for schedule in schedules] == [1e-7] * 3 + [last[1]]
    assert (schedules[0].name, schedules[0].factor, schedules[0].patience) == ("plateau", 0.1, 2)
    assert [(schedule.name, schedule.period_epochs) for schedule in schedules[1:]] == [("cosine", 8)] * 3


def test_the_winners_nets_are_as_published():
    albunet, seunet, resnet50 = (RECIPES[name].model for name in ("albunet_valid", "seunet", "resnet50_winner"))
    assert (albunet.architecture, albunet.input_scaling) == ("albunet", "none")
    assert (seunet.decoder_widths, seunet.last_width) == ([384, 256, 128, 64], 32)
    assert (seunet.bottleneck, seunet.input_scaling) == ("scse", "none")
    assert (resnet50.decoder_widths, resnet50.last_width) == ([256, 256, 128, 64], 64)
    assert (resnet50.bottleneck, resnet50.input_scaling) == ("plain", "encoder")
    assert {model.normalisation for model in (seunet, resnet50)} == {"none"}


@pytest.mark.parametrize("name", ENS4B)
def test_the_nets_of_the_two_stage_papers_are_as_published(name):
    encoder, optimizer, lr, min_lr, epochs, batches = ENS4B[name]
    recipe = RECIPES[name]
    assert (recipe.model.encoder, recipe.model.normalisation, recipe.tta) == (encoder, "batch", "flip")
    assert [*recipe.model.decoder_widths, recipe.model.last_width] == [256, 128, 64, 32, 16]
    assert (recipe.model.upsampling, recipe.model.bottleneck) == ("nearest", "plain")
    assert tuple(stage.size_px for stage in recipe.stages) == (256, 512)
    assert tuple(stage.batch_size for stage in recipe.stages) == batches
    for stage in recipe.stages:
        assert (stage.optimizer, stage.lr, stage.schedule.min_lr, stage.epochs) == (optimizer, lr, min_lr, epochs)
        assert (stage.momentum, stage.schedule.name, stage.schedule.period_epochs) == (0.9, "cosine", None)
        assert (stage.loss.bce, stage.loss.dice, stage.loss.focal, stage.loss.smooth) == (1, 1, 0, 1)
        assert (stage.averaging.swa_epochs, stage.averaging.hand_on) == (5, "swa")
        assert stage.averaging.refresh_cases > 0
        assert (stage.augment.rotate_degrees, stage.augment.shift, stage.augment.scale) == (20, 0.2, 0.2)
        assert stage.augment.border == "zeros"


def test_the_ensemble_has_the_published_weights_and_rule():
    ensemble = EXPERIMENTS["ens4b_unet"]
    assert isinstance(ensemble, Ensemble)
    weights = {member.name: member.weight for member in ensemble.members}
    assert weights == {"densenet169": 0.1, "resnet50": 0.1, "efficientnet_b4": 0.4, "seresnext50": 0.4}
    assert ensemble.triplet.model_dump() == {"top_threshold": 0.5, "min_pixels": 2048, "bottom_threshold": 0.5}


def test_the_third_stage_of_the_34th_place_shows_positives_alone():
    stages = RECIPES["positives_third"].stages
    assert [stage.positive_rate for stage in stages] == [None, None, 1.0]
    assert [stage.size_px for stage in stages] == [768, 1024, 1024]


def test_the_4th_place_slides_to_siims_own_mixture_and_has_a_presence_head():
    (stage,) = RECIPES["empty_head"].stages
    assert (stage.positive_rate, stage.epochs, stage.size_px) == ((0.8, 0.22), 60, 768)
    assert (stage.loss.bce, stage.loss.dice, stage.loss.presence) == (2.7, 0.9, 0.1)
    assert RECIPES["empty_head"].model.presence_head
    assert "not built" in RECIPES["empty_head"].unknown


def small(name, *overrides):
    """A recipe at 64 px without ImageNet's weights, two steps in each stage."""
    changes = {"size_px": 64, "epochs": 1, "batch_size": 2, "cases_per_epoch": 4}
    stages = [f"stages.{stage.name}.{key}={value}" for stage in RECIPES[name].stages for key, value in changes.items()]
    return load_recipe(find_recipe(name), ["model.pretrained=false", "samples=0", *stages, *overrides])


class TwoStepsTakenError(Exception):
    """Ends a training before it validates and writes a net of 100 MB."""


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_recipe_takes_two_steps(name, dataset, tmp_path, monkeypatch):
    losses, nets = [], []

    def noted(*arguments):
        loss = total_loss(*arguments)
        losses.append(float(loss.detach()))
        return loss

    def stop(validator, net, *arguments):
        nets.append(net)
        raise TwoStepsTakenError

    monkeypatch.setattr("pleura.training.stage.total_loss", noted)
    monkeypatch.setattr("pleura.training.stage.Validator.__call__", stop)
    monkeypatch.setattr("pleura.training.run.Run.save_state", lambda *_: None)
    with pytest.raises(TwoStepsTakenError):
        train(small(name), Dataset(dataset), tmp_path)
    assert len(losses) == 2
    assert all(math.isfinite(loss) for loss in losses)
    assert all(bool(parameter.isfinite().all()) for parameter in nets[0].parameters())


@pytest.mark.parametrize("name", ["2st_unet", "resnet50_winner"])
def test_all_stages_of_a_recipe_follow_on_one_another(name, dataset, tmp_path):
    # The recipe's stages, on a net of the tests: theirs are 100 MB in each of the many files.
    net = ("model.encoder=test_efficientnet", "model.decoder_widths=[16, 16, 8, 8]", "model.last_width=8")
    recipe = small(name, *net)
    run = train(recipe, Dataset(dataset), tmp_path)
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["stage"] for row in rows] == [stage.name for stage in recipe.stages]
    assert all(math.isfinite(float(row["loss"])) for row in rows)
    assert load_checkpoint(run / "best.safetensors").provenance["stage"] == recipe.stages[-1].name
    with (run / "averages.csv").open(newline="") as file:
        handed_on = {row["stage"]: row["kind"] for row in csv.DictReader(file) if row["handed_on"] == "1"}
    assert list(handed_on) == [stage.name for stage in recipe.stages]
    # In two steps a stage may well do harm, and then ends with what it started from.
    assert all(handed_on[stage.name] in (stage.averaging.hand_on, "incoming") for stage in recipe.stages)


def test_the_list_names_every_recipe_with_its_score_cost_and_source_in_100_columns():
    listed = list_recipes()
    assert max(map(len, listed.splitlines())) <= 100
    for name, experiment in EXPERIMENTS.items():
        part = listed.split(f"{name}: ", 1)[1].split("\n\n")[0]
        flat = " ".join(part.split())
        assert all(text in flat for text in (experiment.source, experiment.anchor, experiment.cost)), name


def test_a_recipe_is_described_with_its_file_and_its_settings():
    told = describe_recipe("seunet")
    assert str(find_recipe("seunet")) in told
    assert " ".join(EXPERIMENTS["seunet"].unknown.split()) in " ".join(told.split())
    assert all(word in told for word in ("scse", "weight_decay", "second_stage"))
    assert "0.4 efficientnet_b4" in describe_recipe("ens4b_unet")


def test_a_bare_name_is_one_of_ours_unless_there_is_a_file_of_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()  # as pleura demo leaves it
    assert recipe_path("demo") == find_recipe("demo")
    (tmp_path / "seunet").write_text("mine")
    assert recipe_path("seunet").read_text() == "mine"
    assert recipe_path("some/where.yaml").as_posix() == "some/where.yaml"
    with pytest.raises(ConfigError, match="no recipe 'albunet'; those that come with pleura are 2st_unet"):
        recipe_path("albunet")


def test_the_list_needs_no_torch():
    code = "import sys, pleura.config.bundled as r; r.list_recipes(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT).returncode == 0


def test_the_command_lists_describes_and_refuses(pleura):
    assert "ens4b_unet: ensemble of 0.1 densenet169" in pleura("recipes").stdout
    assert pleura("recipes", "seunet").stdout.startswith("seunet: unet legacy_seresnext50_32x4d")
    refused = pleura("recipes", "sunet")
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
