"""Which cases a model has met, by their ids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pleura.errors import InputError
from pleura.learn.checkpoint import case_key
from pleura.learn.known import Known, by_source

IDS = ["a", "b", "c", "d"]


def known(train: str, val: str) -> Known:
    return Known.of([{"train": [case_key(each) for each in train], "val": [case_key(each) for each in val]}], IDS)


def test_cases_are_known_by_their_ids_and_val_is_the_default_where_there_is_any():
    found = known("ab", "c")
    split, positions = found.choose(None, Path())
    assert (split, positions.tolist()) == ("val", [2])
    assert found.choose("train", Path())[1].tolist() == [0, 1]


def test_a_dataset_of_strangers_is_taken_whole_and_asking_for_val_is_refused():
    found = known("xy", "z")
    assert found.choose(None, Path())[0] == "all"
    assert found.in_words("all", np.arange(4)) == "4 cases that are new to the model"
    with pytest.raises(InputError, match="--split all"):
        found.choose("val", Path())


def test_cases_that_were_learned_from_are_named_first():
    assert "2 of which the model has learned from" in known("ab", "c").in_words("all", np.arange(4))
    assert known("", "c").in_words("val", np.array([2, 3])).endswith("chosen on (val), 1 of them new to it")


def test_a_model_that_tells_nothing_is_not_believed_to_have_met_nothing():
    assert "does not tell" in Known.of([{}], IDS).in_words("all", np.arange(4))


def test_several_folds_together_are_refused():
    turned = [{"train": [case_key("a")], "val": [case_key("b")]}, {"train": [case_key("b")], "val": [case_key("a")]}]
    with pytest.raises(InputError, match="one at a time"):
        Known.of(turned, IDS).choose(None, Path())


def test_masks_are_counted_by_their_source_with_the_patients_that_nobody_knows():
    rows = by_source(["b", "a", "b"], np.array([True, False, False]), ["p", None, ""])
    assert rows == [
        {"label_source": "a", "positives": 0, "negatives": 1, "without_patient": 1},
        {"label_source": "b", "positives": 1, "negatives": 1, "without_patient": 1},
    ]
    assert by_source([], np.zeros(0, dtype=bool), []) == []
