"""The folder of a run: what is in the way, what goes on, what is thrown away when."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from pleura.config.parse import parse_recipe
from pleura.config.training import AveragingConfig
from pleura.errors import CheckpointError, ConfigError, OutputError
from pleura.training.resuming import changed_settings, nothing_is_left, refuse_other_stages
from pleura.training.run import METRICS, STATE_KEYS, Progress, Run

RECIPE = parse_recipe({"stages": [{"name": "low"}, {"name": "high"}]})


def state_of(**changes):
    return {"data_sha256": "d", "recipe": RECIPE.model_dump(mode="json"), **changes}


def test_a_folder_without_a_state_begins_anew(tmp_path):
    assert Run(tmp_path).state(resume=True, stage=None) is None


def test_a_run_in_the_way_is_refused_unless_it_is_to_go_on_or_to_repeat_a_stage(tmp_path):
    run = Run(tmp_path)
    state = dict.fromkeys(STATE_KEYS, 3)
    run.save_state(state, "low", [])
    with pytest.raises(OutputError, match="--resume"):
        run.state(resume=False, stage=None)
    assert run.state(resume=True, stage=None) == run.state(resume=False, stage="high") == state


def test_a_torch_file_that_is_no_state_is_refused(tmp_path):
    Run(tmp_path).save_state({"a": 1}, "low", [])
    with pytest.raises(CheckpointError, match="is no state of this version"):
        Run(tmp_path).state(resume=True, stage=None)


def test_two_processes_cannot_train_in_one_folder(tmp_path):
    with Run(tmp_path).held(), pytest.raises(OutputError, match="another process trains in it"), Run(tmp_path).held():
        pass
    with Run(tmp_path).held():
        pass  # and once it has ended, the next one can


def test_epochs_that_fell_out_of_the_best_are_removed_after_the_state_is_written(tmp_path, monkeypatch):
    run, kept = Run(tmp_path), tmp_path / "state" / "top-low-0002.safetensors"
    for name in ("top-low-0001.safetensors", "top-low-0002.safetensors"):
        (tmp_path / "state").mkdir(exist_ok=True)
        (tmp_path / "state" / name).write_bytes(b"x")
    run.save_state({}, "low", [(0.9, 2)])
    assert list((tmp_path / "state").glob("top-*")) == [kept]


def test_the_next_stage_keeps_the_history_and_begins_at_its_start():
    done = Progress(stage=0, epoch=4, step=2, best=0.7, top=[(0.7, 1)], history=[{"stage": "low"}], closed=True)
    assert done.next_stage() == Progress(stage=1, history=[{"stage": "low"}])


def test_a_repeated_stage_forgets_itself_and_what_came_after():
    rows = [{"stage": "low"}, {"stage": "high"}]
    done = Progress(stage=1, epoch=9, history=rows, averages=rows, closed=True)
    assert done.rewound(["low"]) == Progress(stage=1, history=rows[:1], averages=rows[:1])


def test_a_stage_whose_stage_before_has_left_nothing_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="the stage before it, low"):
        Run(tmp_path).final_weights_of("low")


def test_rows_with_other_columns_go_into_one_table(tmp_path):
    Run(tmp_path).write_table(METRICS, [{"a": 1}, {"a": 2, "b": 3}])
    rows = list(csv.DictReader((tmp_path / METRICS).read_text().splitlines()))
    assert rows == [{"a": "1", "b": ""}, {"a": "2", "b": "3"}]


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


TWO_STAGES = parse_recipe({"stages": [{"name": "low", "epochs": 3}, {"name": "high", "epochs": 3}]})


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


def test_a_closed_epoch_keeps_its_row_and_ranks_its_score():
    progress = Progress(step=2, losses=[0.5, 0.4])
    best = [progress.close_epoch({"epoch": number}, score, 2) for number, score in enumerate((0.4, 0.6, 0.6, 0.5), 1)]
    assert best == [True, True, False, False]
    assert (progress.epoch, progress.step, progress.losses) == (4, 0, [])
    assert (progress.best, progress.waited) == (0.6, 2)
    assert progress.top == [(0.6, 2), (0.6, 3)]  # the earlier of two alike first
    assert [row["epoch"] for row in progress.history] == [1, 2, 3, 4]


def test_a_stage_is_over_after_its_epochs_or_as_many_as_early_stopping_waits():
    stage = TWO_STAGES.stages[0]
    patient = stage.model_copy(update={"early_stopping": 2})
    assert [Progress(epoch=epoch).is_over(stage) for epoch in (2, 3, 4)] == [False, True, True]
    assert [Progress(epoch=2, waited=waited).is_over(patient) for waited in (1, 2)] == [False, True]
    assert not Progress(epoch=2, waited=9).is_over(stage)


def test_a_progress_comes_back_from_the_state_as_it_was(tmp_path):
    run, progress = Run(tmp_path), Progress(1, 2, 3, [0.5], 0.8, 1, [(0.8, 2)], [{"stage": "low", "lr": 0.1}])
    others = {key: {"w": torch.ones(2)} for key in STATE_KEYS - {"progress"}}
    run.save_state({"progress": vars(progress), **others}, "low", [])
    assert Progress(**run.state(True, None)["progress"]) == progress
