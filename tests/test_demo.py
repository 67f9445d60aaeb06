"""The demo, made small: both models are on its page, and which is which cannot be mistaken."""

from __future__ import annotations

import re

import pytest

from pleura import demo as module
from pleura.data.mask_csv import read_table
from pleura.demo import DemoSettings, demo
from pleura.errors import CheckpointError, OutputError

SMALL = DemoSettings(
    patients=10, unseen_patients=6, size_px=64, recipe="smoke", overrides=("samples=0", "training.cases_per_epoch=4")
)
OURS, DEFAULT = "net trained by this demo", "default model of pleura"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo")
    return out, demo(out, SMALL).read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_page_shows_both_models_on_the_same_phantoms(made):
    out, page = made
    galleries = re.findall(r"<h2>([^<]*)</h2><p class=soft>[^<]*</p><div class=gallery>(.*?)</div>", page)
    assert [title for title, _ in galleries] == [
        "The net that this demo trained, on unseen phantoms",
        "The default model, which comes with pleura, on the same phantoms",
    ]
    first, second = (re.findall(r"<span>([^<]*)</span>", pictures) for _, pictures in galleries)
    assert first == second
    assert len(first) == len(list((out / "unseen" / "dicom").iterdir()))


@pytest.mark.slow
def test_the_page_says_that_drawings_say_nothing_of_patients(made):
    _, page = made
    assert f"<th>{OURS}<th>{DEFAULT}" in page
    assert "good or bad, its numbers here say nothing of its results on patients" in page


@pytest.mark.slow
def test_the_numbers_of_the_table_are_those_of_the_masks(made):
    out, page = made
    truth = read_table(out / "unseen" / "masks.csv").runs
    positive = {image_id for image_id, runs in truth.items() if runs != ["-1"]}
    row = re.search(r"<th scope=row>finds a pneumothorax on(.*?)<tr>", page)
    assert row
    wanted = []
    for folder in ("predictions", "predictions-default"):
        found = read_table(out / folder / "masks.csv").runs
        predicted_positive = {image_id for image_id, runs in found.items() if runs != ["-1"]}
        wanted.append(f"{len(predicted_positive & positive)} of {len(positive)} phantoms that have one")
    assert row[1].split("<td>")[1:] == wanted


@pytest.mark.slow
def test_every_link_of_the_page_leads_to_a_file(made):
    out, page = made
    links = re.findall(r"href='([^']+)'", page)
    assert len(links) == 5
    assert [link for link in links if not (out / link).is_file()] == []


def test_a_demo_without_the_default_model_ends_before_it_begins(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "default_model", lambda: (_ for _ in ()).throw(CheckpointError("missing")))
    with pytest.raises(CheckpointError):
        demo(tmp_path / "out", SMALL)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_no_demo_made_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="no demo made it"):
        demo(tmp_path, SMALL)
    assert (tmp_path / "mine.txt").read_text() == "mine"
