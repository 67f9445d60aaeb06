"""Training on masks of several sources and with a teacher: what is off changes nothing, and what is on survives."""

from __future__ import annotations

import csv
import dataclasses
import shutil

import pytest
from places import sealed
from trainings import low_alone, same, smoke, train_until, weights_of

from pleura.data.dataset import Dataset
from pleura.models.checkpoint import load_checkpoint, save_checkpoint, update_header
from pleura.models.identity import weights_hash
from pleura.models.seen import SeenCases, case_key
from pleura.training.train import train

RATE = "training.positive_rate=0.5"
HEADS = ("model.presence_head=true", "training.loss={presence: 0.5, focal: 1}")


@pytest.fixture(scope="module")
def guessed(dataset, tmp_path_factory):
    """The dataset with every third mask a guess."""
    out = tmp_path_factory.mktemp("guessed") / "dataset"
    shutil.copytree(dataset, out)
    rows = list(csv.DictReader((dataset / "cases.csv").read_text().splitlines()))
    with (out / "cases.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        sources = ("guess", "truth", "truth")
        writer.writerows({**row, "label_source": sources[number % 3]} for number, row in enumerate(rows))
    return Dataset(sealed(out))


def test_settings_that_change_nothing_give_the_weights_of_none(guessed, run, tmp_path):
    def trained(name, *labels):
        return weights_of(train(low_alone(RATE, *HEADS, *labels), guessed, tmp_path / name))

    plain = trained("plain")
    assert same(trained("neutral", "training.labels={weights: {guess: 1}, smoothing: {guess: 0}}"), plain)
    for number, some in enumerate(("weights: {guess: 0.5}", "smoothing: {guess: 0.2}", f"teacher: {run}")):
        assert not same(trained(f"{number}", f"training.labels={{{some}}}"), plain), some


def test_a_run_with_a_teacher_that_was_stopped_goes_on_to_the_same_weights(guessed, run, tmp_path, monkeypatch):
    labels = f"{{weights: {{guess: 0.5}}, teacher: {run}, least_agreement: 0.1, teacher_sources: [guess]}}"
    recipe = smoke(RATE, *HEADS, f"training.labels={labels}", "save_minutes=0", "training.epochs=2")
    whole = train(recipe, guessed, tmp_path / "whole")
    train_until(6, recipe, guessed, tmp_path / "stopped", monkeypatch)
    stopped = train(recipe, guessed, tmp_path / "stopped", resume=True)
    for name in ("low", "high", "best", "last"):
        assert (stopped / f"{name}.safetensors").read_bytes() == (whole / f"{name}.safetensors").read_bytes()
    log = (stopped / "log.txt").read_text()
    assert "stage low learns from" in log
    assert "of guess with weight 0.5" in log
    assert "stage high resumes after epoch 0 and 1 steps" in log


def test_a_checkpoint_has_not_seen_what_it_did_not_learn_from(guessed, tmp_path):
    recipe = low_alone(RATE, "training.labels={weights: {guess: 0}}")
    seen = load_checkpoint(train(recipe, guessed, tmp_path) / "best.safetensors").seen
    truths, guesses = (
        {case_key(case.image_id) for case in guessed.cases if case.label_source == source and case.fold != 0}
        for source in ("truth", "guess")
    )
    assert set(seen.train) == truths
    assert not guesses & {*seen.train, *seen.val}


@pytest.mark.parametrize("step", [2, 4])
def test_a_resumed_run_remembers_what_it_learned_from_before_its_weights_changed(guessed, tmp_path, monkeypatch, step):
    """In the stage that it was stopped in, and in one that was finished."""
    train_until(step, smoke(RATE, "save_minutes=0"), guessed, tmp_path, monkeypatch)
    without = smoke(RATE, "training.labels={weights: {guess: 0}}")
    fold = train(without, guessed, tmp_path, resume=True)
    everything = {case_key(case.image_id) for case in guessed.cases if case.fold != 0}
    for name in ("best", "last"):
        assert set(load_checkpoint(fold / f"{name}.safetensors").seen.train) == everything
    fold = train(without, guessed, tmp_path, stage="high")  # begins again with what the first stage has seen
    assert set(load_checkpoint(fold / "best.safetensors").seen.train) == everything


def test_a_teacher_that_lists_no_cases_or_has_changed_is_logged(guessed, run, tmp_path):
    first, path = load_checkpoint(run / "fold-0" / "best.safetensors"), tmp_path / "teacher.safetensors"
    update_header(run / "fold-0" / "best.safetensors", {"seen": SeenCases()}, path)
    settings = (RATE, f"stages.high.labels={{teacher: {path}}}")
    fold = train(smoke(*settings), guessed, tmp_path / "out")
    log = (fold / "log.txt").read_text()
    assert log.count("teacher.safetensors: the teacher does not list the cases that it has learned from") == 1
    teacher = {"weights_sha256": [weights_hash(first.weights)], "tells_what_it_has_seen": False}
    assert load_checkpoint(fold / "best.safetensors").provenance["teacher"] == teacher
    assert "teacher" not in load_checkpoint(fold / "low.safetensors").provenance
    other = dataclasses.replace(first, weights=weights_of(fold, "low"))
    save_checkpoint(path, other)
    train(smoke(*settings, "stages.high.epochs=2"), guessed, tmp_path / "out", resume=True)
    before, now = (weights_hash(each.weights)[:12] for each in (first, other))
    [line] = [line for line in (fold / "log.txt").read_text().splitlines() if "weights of the teacher" in line]
    assert line.endswith(f"the weights of the teacher {path} were {before}, are {now}")
    hashes = load_checkpoint(fold / "last.safetensors").provenance["teacher"]["weights_sha256"]
    assert [each[:12] for each in hashes] == [before, now]
