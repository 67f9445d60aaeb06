"""Packing halves a checkpoint, keeps all that it says, and measures what rounding costs."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pleura import __version__
from pleura.config.card import Card
from pleura.config.parse import load_card
from pleura.errors import CheckpointError, ConfigError, OutputError
from pleura.export.pack import pack
from pleura.inference.predictor import Predictor
from pleura.models.checkpoint import load_checkpoint, save_checkpoint, update_header

CARD = "\n".join(f"{name}: some words" for name in Card.model_fields) + "\nsaw: [frontal films, one centre]"
CARD = CARD.replace("saw: some words\n", "", 1)


@pytest.fixture(scope="module")
def packed(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed")
    (folder / "card.yaml").write_text(CARD)
    return pack(run, folder / "small.safetensors", folder / "card.yaml")


@pytest.fixture
def checkpoint(run):
    return load_checkpoint(run / "fold-0" / "best.safetensors")


def test_large_tensors_become_float16_and_the_rest_stays_float32(packed):
    for key, tensor in load_checkpoint(packed.out).weights.items():
        if tensor.is_floating_point():
            assert tensor.dtype == (torch.float16 if tensor.ndim >= 2 else torch.float32), key
        else:
            assert key.endswith("num_batches_tracked")
    assert packed.out_bytes == packed.out.stat().st_size < 0.75 * packed.source_bytes


def test_the_header_says_what_it_said_and_where_the_file_is_from(packed, checkpoint):
    made, source = load_checkpoint(packed.out), packed.source.read_bytes()
    with (packed.source.parent / "metrics.csv").open(encoding="utf-8", newline="") as table:
        seconds = round(sum(float(row["seconds"]) for row in csv.DictReader(table)))
    sha256 = hashlib.sha256(source).hexdigest()
    more = {"training_seconds": seconds, "packed": __version__, "packed_from": sha256}
    assert made.provenance == {**checkpoint.provenance, **more}
    for name in ("model", "recipe", "preprocessing", "triplet", "calibration", "scores", "seen"):
        assert getattr(made, name) == getattr(checkpoint, name)
    assert made.card["saw"] == ["frontal films", "one centre"]


def test_an_earlier_stage_is_said_to_have_taken_its_own_seconds_and_a_lone_file_none(run, tmp_path):
    first, *others = csv.DictReader((run / "fold-0" / "metrics.csv").read_text(encoding="utf-8").splitlines())
    early = pack(run / "fold-0" / f"{first['stage']}.safetensors", tmp_path / "early.safetensors").out
    told = [first, *(row for row in others if row["stage"] == first["stage"])]
    seconds = round(sum(float(row["seconds"]) for row in told))
    assert load_checkpoint(early).provenance["training_seconds"] == seconds
    shutil.copy(run / "fold-0" / "best.safetensors", tmp_path / "lone.safetensors")
    lone = pack(tmp_path / "lone.safetensors", tmp_path / "packed.safetensors").out
    assert "training_seconds" not in load_checkpoint(lone).provenance


def test_the_difference_told_is_the_one_that_a_user_would_see(packed):
    from pleura.data.phantoms.radiographs import make_phantom

    squares = [make_phantom(seed, 64, positive).image for seed, positive in ((11, True), (12, False))]
    squares = np.rint(np.stack(squares) * 255).astype(np.uint8)
    one, two = (Predictor.load(path, tta="none").probabilities(squares) for path in (packed.source, packed.out))
    assert packed.difference == pytest.approx(abs(one - two).max(), abs=1e-6)
    assert 0 < packed.difference < 0.05


def test_equal_files_are_packed_into_equal_bytes(packed, run, tmp_path):
    card = packed.out.with_name("card.yaml")
    again = pack(run / "fold-0", tmp_path / "again.safetensors", card)
    assert again.out.read_bytes() == packed.out.read_bytes()
    assert again.sha256 == hashlib.sha256(packed.out.read_bytes()).hexdigest()


def test_packing_twice_changes_no_number(packed, tmp_path):
    again = pack(packed.out, tmp_path / "again.safetensors")
    first, second = (load_checkpoint(path) for path in (packed.out, again.out))
    assert all(torch.equal(first.weights[key], second.weights[key]) for key in first.weights)
    assert (again.difference, second.card) == (0, first.card)


def test_a_header_written_anew_keeps_the_packed_tensors(packed, tmp_path):
    shutil.copy(packed.out, tmp_path / "c.safetensors")
    update_header(tmp_path / "c.safetensors", {"calibration": None, "card": {"title": "another"}})
    before, after = (load_checkpoint(path) for path in (packed.out, tmp_path / "c.safetensors"))
    assert [tensor.dtype for tensor in after.weights.values()] == [tensor.dtype for tensor in before.weights.values()]
    assert all(torch.equal(before.weights[key], after.weights[key]) for key in before.weights)
    assert after.card == {"title": "another"}


@given(st.floats(65520, 1e38), st.booleans())
@settings(max_examples=10)
def test_a_number_beyond_float16_is_refused(run, number, negative):
    whole = load_checkpoint(run / "fold-0" / "best.safetensors")
    file = run / "fold-0" / "large.safetensors"
    try:
        weights = {**whole.weights, "head.weight": torch.full_like(whole.weights["head.weight"], number)}
        weights["head.weight"] *= -1 if negative else 1
        save_checkpoint(file, replace(whole, weights=weights))
        with pytest.raises(CheckpointError, match=r"head\.weight reaches .* cannot be packed"):
            pack(file, file.with_name("never.safetensors"))
        assert not file.with_name("never.safetensors").exists()
    finally:
        file.unlink()


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize("key", ["head.weight", "head.bias"])
def test_what_is_not_finite_is_refused(checkpoint, tmp_path, key, number):
    weights = {**checkpoint.weights, key: torch.full_like(checkpoint.weights[key], number)}
    save_checkpoint(tmp_path / "c.safetensors", replace(checkpoint, weights=weights))
    with pytest.raises(CheckpointError, match=rf"hold NaN or infinity, {key} first"):
        pack(tmp_path / "c.safetensors", tmp_path / "p.safetensors")


def test_the_folders_of_the_machine_that_trained_are_left_out(checkpoint, tmp_path):
    model = {**checkpoint.recipe["model"], "pretrained": str(tmp_path / "imagenet.safetensors")}
    stages = [{**stage, "labels": {"teacher": str(tmp_path / "teacher")}} for stage in checkpoint.recipe["stages"]]
    recipe = {**checkpoint.recipe, "model": model, "stages": stages}
    save_checkpoint(tmp_path / "c.safetensors", replace(checkpoint, recipe=recipe))
    made = pack(tmp_path / "c.safetensors", tmp_path / "p.safetensors").out
    told = load_checkpoint(made).recipe
    assert told["model"]["pretrained"] == "imagenet.safetensors"
    assert {stage["labels"]["teacher"] for stage in told["stages"]} == {"teacher"}
    assert str(tmp_path).encode() not in made.read_bytes()


def test_several_checkpoints_and_a_file_that_is_there_are_refused(run, tmp_path):
    for fold in (0, 1):
        (tmp_path / "run" / f"fold-{fold}").mkdir(parents=True)
        shutil.copy(run / "fold-0" / "best.safetensors", tmp_path / "run" / f"fold-{fold}")
    with pytest.raises(CheckpointError, match="is several checkpoints, or an ensemble; name one checkpoint"):
        pack(tmp_path / "run", tmp_path / "p.safetensors")
    (tmp_path / "p.safetensors").write_bytes(b"mine")
    with pytest.raises(OutputError, match="is there already"):
        pack(run, tmp_path / "p.safetensors")
    assert (tmp_path / "p.safetensors").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("title: ", "titel: "),
            "title: is missing; titel: unknown key; did you mean title?; its keys",
        ),
        (("licence: some words", "licence: ''"), "licence: must be a text or a list of texts"),
        (("licence: some words", "licence: []"), "licence: must be a text or a list of texts"),
        (("data: some words", "data: {a: b}"), "data: must be a text or a list of texts"),
        (("title: some words", "title: [a, b]"), "title: must be a text"),
        (("title: some words", "title: ["), "is not plain YAML"),
        ((CARD, "words"), "a card is a mapping with the keys title"),
        ((CARD, ""), "a card is a mapping"),
    ],
)
def test_a_card_with_faults_is_refused_in_one_line(tmp_path, change, message):
    file = tmp_path / "card.yaml"
    file.write_text(CARD.replace(*change) if change[0] != CARD else change[1])
    with pytest.raises(ConfigError) as caught:
        load_card(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_card_that_is_not_there_is_refused_before_anything_is_written(run, tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        pack(run, tmp_path / "p.safetensors", tmp_path / "no.yaml")
    assert list(tmp_path.iterdir()) == []


def test_the_command_tells_sizes_and_the_difference(pleura, run, tmp_path):
    done = pleura("pack", run, "--out", tmp_path / "p.safetensors")
    assert done.returncode == 0, done.stderr
    assert "MB, packed " in done.stdout
    assert "largest difference of a probability on two phantoms: " in done.stdout
    assert hashlib.sha256((tmp_path / "p.safetensors").read_bytes()).hexdigest() in done.stdout
    (tmp_path / "mine").mkdir()
    (tmp_path / "card.yaml").write_text("mine")
    for out in ("mine", "card.yaml", "new"):
        done = pleura("pack", run, "--out", tmp_path / out)
        assert (done.returncode, "remove" in done.stderr) == (2, False)
    assert (tmp_path / "card.yaml").read_text() == "mine"
    done = pleura("pack", tmp_path / "nothing", "--out", tmp_path / "q.safetensors")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)


def test_checkpoints_of_before_there_were_cards_still_load(packed, tmp_path):
    content = packed.out.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    del header["__metadata__"]["card"]
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    old = tmp_path / "old.safetensors"
    old.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
    assert load_checkpoint(old).card is None
    update_header(old, {"card": {"title": "new"}})
    assert load_checkpoint(Path(old)).card == {"title": "new"}
