"""Whether a stopped run goes on, and with which other settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from pleura.config.parse import parse_recipe
from pleura.config.training import AveragingConfig
from pleura.errors import OutputError
from pleura.training.resuming import changed_settings, nothing_is_left, refuse_other_stages

RECIPE = parse_recipe({"stages": [{"name": "low"}, {"name": "high"}]})
TWO_STAGES = parse_recipe({"stages": [{"name": "low", "epochs": 3}, {"name": "high", "epochs": 3}]})


def state_of(**changes):
    return {"data_sha256": "d", "recipe": RECIPE.model_dump(mode="json"), **changes}


def test_changed_settings_are_listed_and_another_net_or_other_data_refused(tmp_path):
    changed = RECIPE.model_copy(update={"seed": 7})
    assert changed_settings(state_of(), changed, "d", tmp_path) == ["seed was 42, is 7"]
    with pytest.raises(OutputError, match="not the dataset"):
        changed_settings(state_of(), RECIPE, "other", tmp_path)
    other = RECIPE.model_copy(update={"model": RECIPE.model.model_copy(update={"bottleneck": "scse"})})
    with pytest.raises(OutputError, match=r"model\.bottleneck is not what this run began with"):
        changed_settings(state_of(), other, "d", tmp_path)


def resumed(progress, **changes):
    """The sentences about a run of two stages that goes on with other settings of them."""
    state = state_of(progress={"epoch": 0, "closed": False, **progress})
    state["recipe"] = TWO_STAGES.model_dump(mode="json")
    stages = [stage.model_copy(update=changes.get(stage.name, {})) for stage in TWO_STAGES.stages]
    return changed_settings(state, TWO_STAGES.model_copy(update={"stages": stages}), "d", Path("data"))


def test_a_stage_that_runs_or_is_to_come_may_change():
    assert resumed({"stage": 0, "epoch": 1}, low={"lr": 0.5}) == ["stages.0.lr was 0.0001, is 0.5"]
    assert resumed({"stage": 0, "epoch": 1}, high={"size_px": 64}) == ["stages.1.size_px was 512, is 64"]
    assert resumed({"stage": 1, "epoch": 3, "closed": True}, high={"epochs": 4}) == ["stages.1.epochs was 3, is 4"]


def test_a_change_that_comes_too_late_is_refused_with_the_way_out():
    finished = r"stages.0.lr was 0.0001, is 0.5, but that stage is finished \(--stage low begins it again\)"
    with pytest.raises(OutputError, match=finished):
        resumed({"stage": 1}, low={"lr": 0.5})
    with pytest.raises(OutputError, match=r"stages\.1\.batch_size .* is finished"):
        resumed({"stage": 1, "epoch": 3, "closed": True}, high={"batch_size": 2})
    otherwise = r"that stage, or what it starts from, was scored otherwise \(--stage high begins it again\)"
    with pytest.raises(OutputError, match=otherwise):
        resumed({"stage": 1, "epoch": 1}, high={"size_px": 64})
    # Its start has a score at the old size, which the final weights are compared with.
    with pytest.raises(OutputError, match=otherwise):
        resumed({"stage": 1, "incoming": 0.8}, high={"size_px": 64})
    assert resumed({"stage": 1}, high={"size_px": 64}) == ["stages.1.size_px was 512, is 64"]


def test_a_setting_of_a_stage_that_an_older_run_lacks_had_its_default():
    older = state_of(progress={"stage": 1, "epoch": 1, "closed": False}) | {
        "recipe": TWO_STAGES.model_dump(mode="json")
    }
    for stage in older["recipe"]["stages"]:
        del stage["averaging"]["incoming_share"], stage["labels"]["features"]
    assert changed_settings(older, TWO_STAGES, "d", Path("data")) == []
    low, high = (
        stage.model_copy(update={"averaging": AveragingConfig(incoming_share=0.25)}) for stage in TWO_STAGES.stages
    )
    later = TWO_STAGES.model_copy(update={"stages": [TWO_STAGES.stages[0], high]})
    said = ["stages.1.averaging.incoming_share was 0.0, is 0.25"]
    assert changed_settings(older, later, "d", Path("data")) == said
    too_late = TWO_STAGES.model_copy(update={"stages": [low, high]})
    with pytest.raises(OutputError, match=r"stages\.0\.averaging\.incoming_share .* is finished"):
        changed_settings(older, too_late, "d", Path("data"))


def finished(**changes):
    state = state_of(progress={"stage": 1, "epoch": 3, "closed": True} | changes)
    return state | {"recipe": TWO_STAGES.model_dump(mode="json")}


def two_stages(**changes):
    low, high = TWO_STAGES.stages
    return TWO_STAGES.model_copy(update={"stages": [low, high.model_copy(update=changes)]})


def test_nothing_is_left_where_the_last_stage_has_final_weights_and_is_no_longer_than_it_was():
    assert nothing_is_left(finished(), TWO_STAGES)
    assert nothing_is_left(finished(), two_stages(batch_size=2, epochs=2))
    assert not nothing_is_left(finished(), two_stages(epochs=4))
    assert not nothing_is_left(finished(closed=False), TWO_STAGES)
    assert not nothing_is_left(finished(stage=0), TWO_STAGES)
    assert not nothing_is_left(finished(), TWO_STAGES.model_copy(update={"stages": TWO_STAGES.stages[:1]}))
    early = finished(epoch=2, waited=2)
    assert nothing_is_left(early, two_stages(early_stopping=2))
    assert not nothing_is_left(early, two_stages(early_stopping=3))


def test_a_change_of_a_finished_run_is_listed_and_one_of_a_stage_that_stopped_early_comes_too_late():
    changes = changed_settings(finished(), two_stages(batch_size=2), "d", Path("data"), finished=True)
    assert changes == ["stages.1.batch_size was 4, is 2"]
    early = finished(epoch=2, waited=2)
    early["recipe"] = two_stages(early_stopping=2).model_dump(mode="json")
    with pytest.raises(OutputError, match="finished"):
        changed_settings(early, two_stages(early_stopping=2, lr=0.5), "d", Path("data"))


def test_a_run_that_began_before_a_setting_of_the_net_goes_on_with_its_default(tmp_path):
    state = state_of()
    del state["recipe"]["model"]["output_stride"]
    assert changed_settings(state, RECIPE, "d", tmp_path) == []
    other = RECIPE.model_copy(update={"model": RECIPE.model.model_copy(update={"output_stride": 4})})
    with pytest.raises(OutputError, match=r"model\.output_stride is not what this run began with"):
        changed_settings(state, other, "d", tmp_path)


def test_a_run_does_not_go_on_in_other_stages():
    state = state_of(progress={"stage": 1})
    refuse_other_stages(state, RECIPE)
    refuse_other_stages(state, parse_recipe({"stages": [{"name": "low"}, {"name": "high"}, {"name": "more"}]}))
    for names in (["low"], ["low", "other"], ["high", "low"]):
        with pytest.raises(OutputError, match="began with the stages low, high"):
            refuse_other_stages(state, parse_recipe({"stages": [{"name": name} for name in names]}))


def test_a_stage_goes_on_with_the_optimizer_it_began_with():
    state = state_of(progress={"stage": 1})
    other = parse_recipe({"stages": [{"name": "low"}, {"name": "high", "optimizer": "sgd"}]})
    with pytest.raises(OutputError, match="began with adam, and sgd cannot go on"):
        refuse_other_stages(state, other)
