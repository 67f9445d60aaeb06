"""The folder of a run: what is in the way, what goes on, what is thrown away when."""

from __future__ import annotations

import csv

import pytest
import torch

from pleura.config.parse import parse_recipe
from pleura.errors import CheckpointError, ConfigError, OutputError
from pleura.training.run import METRICS, STATE_KEYS, Progress, Run


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


def test_a_closed_epoch_keeps_its_row_and_ranks_its_score():
    progress = Progress(step=2, losses=[0.5, 0.4])
    best = [progress.close_epoch({"epoch": number}, score, 2) for number, score in enumerate((0.4, 0.6, 0.6, 0.5), 1)]
    assert best == [True, True, False, False]
    assert (progress.epoch, progress.step, progress.losses) == (4, 0, [])
    assert (progress.best, progress.waited) == (0.6, 2)
    assert progress.top == [(0.6, 2), (0.6, 3)]  # the earlier of two alike first
    assert [row["epoch"] for row in progress.history] == [1, 2, 3, 4]


def test_a_stage_is_over_after_its_epochs_or_as_many_as_early_stopping_waits():
    [stage] = parse_recipe({"stages": [{"name": "low", "epochs": 3}]}).stages
    patient = stage.model_copy(update={"early_stopping": 2})
    assert [Progress(epoch=epoch).is_over(stage) for epoch in (2, 3, 4)] == [False, True, True]
    assert [Progress(epoch=2, waited=waited).is_over(patient) for waited in (1, 2)] == [False, True]
    assert not Progress(epoch=2, waited=9).is_over(stage)


def test_a_progress_comes_back_from_the_state_as_it_was(tmp_path):
    run, progress = Run(tmp_path), Progress(1, 2, 3, [0.5], 0.8, 1, [(0.8, 2)], [{"stage": "low", "lr": 0.1}])
    others = {key: {"w": torch.ones(2)} for key in STATE_KEYS - {"progress"}}
    run.save_state({"progress": vars(progress), **others}, "low", [])
    assert Progress(**run.state(True, None)["progress"]) == progress
