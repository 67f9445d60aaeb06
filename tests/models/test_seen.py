"""Which cases a model has seen, by their ids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pleura.errors import InputError
from pleura.models.seen import SeenCases, SeenRows, case_key

IDS = ["a", "b", "c", "d"]


def seen_rows(train: str, val: str) -> SeenRows:
    return SeenRows.of([SeenCases(tuple(map(case_key, train)), tuple(map(case_key, val)))], IDS)


def test_cases_are_recognised_by_their_ids_and_val_is_the_default_where_there_is_any():
    found = seen_rows("ab", "c")
    split, indices = found.choose(None, Path())
    assert (split, indices.tolist()) == ("val", [2])
    assert found.choose("train", Path())[1].tolist() == [0, 1]


def test_dataset_of_strangers_is_taken_whole_and_asking_for_val_is_refused():
    found = seen_rows("xy", "z")
    assert found.choose(None, Path())[0] == "all"
    assert found.in_words("all", np.arange(4)) == "4 cases that are new to the model"
    with pytest.raises(InputError, match="--split all"):
        found.choose("val", Path())


def test_cases_that_were_learned_from_are_named_first():
    assert "2 of which the model has learned from" in seen_rows("ab", "c").in_words("all", np.arange(4))
    assert seen_rows("x", "c").in_words("val", np.array([2, 3])).endswith("chosen on (val), 1 of them new to it")


@pytest.mark.parametrize(
    "seen",
    [
        SeenCases(),
        SeenCases(val=(case_key("a"),)),  # as imported weights that were tuned on the cases of a site
        SeenCases(train=(case_key("x"),), unknown=("its teacher",)),
        SeenCases(train=(case_key("x"),), val=(case_key("a"),), unknown=("its teacher",)),
    ],
)
def test_cases_are_new_only_to_a_model_that_lists_all_that_it_has_seen(seen: SeenCases):
    words = SeenRows.of([SeenCases(train=(case_key("y"),)), seen], IDS).in_words("all", np.arange(4))
    assert "not known" in words
    assert "are new to the model:" in words or "new to" not in words


def test_keys_of_128_bits_do_not_take_strangers_for_training_cases():
    ids = [f"1.2.3.{number}" for number in range(200_000)]  # of so many, two at least share their first 8 digits
    keys = [case_key(each) for each in ids]
    assert len({key[:8] for key in keys}) < len(set(keys)) == len(ids)
    assert len(keys[0]) == 32
    beginnings: dict[str, str] = {}
    one, other = next(
        (beginnings[key[:8]], each)
        for key, each in zip(keys, ids, strict=True)
        if beginnings.setdefault(key[:8], each) != each
    )
    assert not SeenRows.of([SeenCases(train=(case_key(one),))], [other]).train.any()
    assert SeenRows.of([SeenCases(train=(case_key(one)[:8],))], [one, other]).train.all()


def test_keys_of_an_older_header_still_match_and_it_is_said_where_chance_alone_would():
    old = SeenCases(train=tuple(case_key(each)[:8] for each in "ab"), val=(case_key("c"),))
    found = SeenRows.of([old], IDS)
    assert (found.train.tolist(), found.val.tolist()) == ([True, True, False, False], [False, False, True, False])
    assert "chance" not in found.in_words("all", np.arange(4))
    many = SeenCases(train=tuple(f"{number:08x}" for number in range(12_000)))
    assert "0.028 of so many cases share with another by chance" in many.by_chance("train", 10_000)
    assert "23 of so many" in many.by_chance("train", 8_232_000)
    assert SeenCases(train=tuple(f"{number:032x}" for number in range(12_000))).by_chance("train", 10**9) == ""


UID = "1.2.276.0.7230010.3.1.4.8323329.1000.1517875201.850819"


@pytest.mark.parametrize("digits", [32, 8])
@pytest.mark.parametrize(("then", "now"), [(UID, f"images/{UID}"), (f"images/{UID}", UID), (f"a/{UID}", f"b/c/{UID}")])
def test_uid_is_the_same_case_from_whatever_folder_it_was_prepared(digits: int, then: str, now: str):
    found = SeenRows.of([SeenCases(train=(case_key(then)[:digits],))], [now, "other"])
    assert found.train.tolist() == [True, False]
    assert found.in_words("all", np.arange(2)).startswith("2 cases, 1 of which the model has learned from")


@pytest.mark.parametrize(("then", "now"), [("0001", "images/0001"), ("images/0001", "0001"), ("a/0001", "b/0001")])
@pytest.mark.parametrize("part", ["train", "val"])
def test_name_that_many_files_bear_is_no_proof_but_such_a_case_is_not_said_to_be_new(then: str, now: str, part: str):
    seen = SeenCases(train=(case_key("x"),)) | SeenCases(**{part: (case_key(then),)})
    found = SeenRows.of([seen], [now, "other"])
    assert not (found.train | found.val).any()
    words = found.in_words("all", np.arange(2))
    assert words.startswith("2 cases, of which it is not known whether they are new to the model: 1 of them may be")
    assert (
        SeenRows.of([seen], ["images/0002", "other"]).in_words("all", np.arange(2))
        == "2 cases that are new to the model"
    )


def test_dates_and_versions_are_no_uids():
    assert not SeenRows.of([SeenCases(train=(case_key("a/2.0.1"),))], ["b/2.0.1"]).train.any()


def test_older_header_has_the_names_of_files_also_where_the_id_is_a_uid_now():
    old = SeenCases(train=(case_key("0001")[:8],))
    assert SeenRows.of([old], ["images/0001"]).train.all()  # the ids of that version had no folder
    words = SeenRows.of([old], [UID, "x"], ["dicom/0001.dcm", "x.png"]).in_words("all", np.arange(2))
    assert "1 of them may be" in words
    assert SeenRows.of([old], [UID], ["dicom/0002.dcm"]).doubt == ""


def test_split_that_chance_alone_may_have_chosen_says_so():
    ids = [f"1.2.3.{number}" for number in range(10_000)]
    strangers = tuple(f"{number:08x}" for number in range(12_000))
    found = SeenRows.of([SeenCases(train=("0" * 32,), val=(case_key(ids[7])[:8], *strangers))], ids)
    split, indices = found.choose(None, Path())
    assert (split, indices.tolist()) == ("val", [7])
    assert "0.028 of so many cases share with another by chance" in found.in_words(split, indices)


def test_several_folds_together_are_refused():
    a, b = (case_key("a"),), (case_key("b"),)
    turned = [SeenCases(a, b), SeenCases(b, a)]
    with pytest.raises(InputError, match="one at a time"):
        SeenRows.of(turned, IDS).choose(None, Path())
