"""The journal of a folder of predictions: masks come back as they were added, from the file and not from memory."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pleura.errors import OutputError
from pleura.inference.journal import JOURNAL, Journal, open_journal

ASKED = {"model": "a model"}
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from("abcé"), st.text("0123456789 ", max_size=30)),
        st.tuples(st.just("forget"), st.sampled_from("abcé"), st.none()),
        st.tuples(st.just("reopen"), st.none(), st.none()),
    ),
    max_size=25,
)


def entry_of(image_id: str, runs: str) -> dict[str, Any]:
    numbers = {"is_positive": 1, "score": 0.5, "area_px": 3, "rows": 4, "columns": 4}
    return {"image_id": image_id, "source": f"/s/{image_id}", **numbers, "runs": runs}


@given(STEPS)
def test_masks_come_back_by_id_after_any_additions_and_reopenings(steps):
    """What is forgotten comes back with its line at the next opening: only a file that changed is forgotten."""
    written: dict[str, str] = {}
    live: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        journal = open_journal(Path(folder), ASKED)
        for step, image_id, runs in steps:
            if step == "add":
                with journal:
                    journal.add(entry_of(image_id, runs))
                written[image_id] = live[image_id] = runs
            elif step == "forget":
                assert journal.forget(image_id) == (live.pop(image_id, None) is not None)
            else:
                journal, live = open_journal(Path(folder), ASKED), dict(written)
            assert list(journal.runs()) == sorted(live.items())
            assert journal.entries.keys() == live.keys()
        assert not any("runs" in entry for entry in journal.entries.values())


def filled(out: Path) -> Journal:
    journal = open_journal(out, ASKED)
    with journal:
        for image_id in "ab":
            journal.add(entry_of(image_id, "1 2"))
    return journal


def test_line_that_was_predicted_again_or_cut_is_dropped_at_the_next_opening(tmp_path):
    with filled(tmp_path) as journal:
        journal.add(entry_of("a", "3 4"))
        journal.add({**entry_of("c", "5 6"), "source": "/s/b"})  # the file of b, by another id
    path = tmp_path / JOURNAL
    path.write_bytes(path.read_bytes() + b'{"image_id": "d", "sou')
    assert dict(open_journal(tmp_path, ASKED).runs()) == {"a": "3 4", "c": "5 6"}
    assert path.read_bytes().count(b"\n") == 3
    assert dict(open_journal(tmp_path, ASKED).runs()) == {"a": "3 4", "c": "5 6"}


@pytest.mark.parametrize("change", [lambda old: old.replace(b'"1 2"', b'"9 2"'), lambda old: old[:-30] + b"\n"])
def test_mask_that_is_damaged_while_it_is_needed_is_refused(tmp_path, change):
    journal = filled(tmp_path)
    path = tmp_path / JOURNAL
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(OutputError, match=r"is damaged in the line of .*; remove .* or choose another --out"):
        list(journal.runs())


def test_nothing_is_added_to_a_journal_that_is_not_open(tmp_path):
    with pytest.raises(ValueError, match="not open"):
        open_journal(tmp_path, ASKED).add(entry_of("a", ""))
