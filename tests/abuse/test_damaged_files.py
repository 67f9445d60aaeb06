"""Damaged datasets, checkpoints and journals: refused with a PleuraError, or what is read is what was written."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from mutants import damaged

from pleura.data.dataset import CARD, CASES, IMAGES, Dataset
from pleura.errors import OutputError, PleuraError
from pleura.inference.batch import RUNS, TABLE, BatchSettings, predict_batch
from pleura.inference.journal import JOURNAL
from pleura.inference.predictor import Predictor
from pleura.models.checkpoint import load_checkpoint

# Of ten mutants of radiographs one of each of these files.
COUNT = max(30, int(os.environ.get("PLEURA_MUTANTS", "300")) // 10)
HEADER_VALUES = (None, 0, -1, 1e308, "NaN", "", "x" * 300, [], [None], {}, {"a": {"b": []}}, True, [[1, 2], 3])

pytestmark = pytest.mark.filterwarnings("ignore:.*")  # of numpy and safetensors, about what is refused next


def test_a_damaged_dataset_is_refused_or_is_the_one_that_was_written(dataset: Path, tmp_path: Path) -> None:
    whole = Dataset(dataset)
    images = np.array(whole.images)
    folder = tmp_path / "dataset"
    for number in range(COUNT):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(dataset, folder)
        rng = random.Random(number)
        file = folder / rng.choice((CASES, IMAGES, CARD))
        content = damaged(file.read_bytes(), rng)
        file.write_bytes(content)
        try:
            opened = Dataset(folder)
            opened.masks(np.arange(len(opened)))
        except PleuraError:
            continue
        assert opened.cases == whole.cases, number
        assert np.array_equal(opened.images, images), number


def test_a_damaged_header_of_a_checkpoint_is_refused_or_is_what_was_written(run: Path, tmp_path: Path) -> None:
    content = next(run.glob("fold-*/best.safetensors")).read_bytes()
    length = int.from_bytes(content[:8], "little")
    path = tmp_path / "mutant.safetensors"
    for number in range(COUNT):
        rng = random.Random(number)
        path.write_bytes(_with_damaged_header(content, length, rng))
        try:
            checkpoint = load_checkpoint(path)
        except PleuraError:
            continue
        assert all(bool(tensor.isfinite().all()) for tensor in checkpoint.weights.values()), number
        assert 0 <= checkpoint.triplet.bottom_threshold <= checkpoint.triplet.top_threshold <= 2, number


def _with_damaged_header(content: bytes, length: int, rng: random.Random) -> bytes:
    """Half of the time a value of the header is another one, half of the time its bytes are damaged."""
    if rng.random() < 0.5:
        header = damaged(content[8 : 8 + length], rng)
    else:
        document = json.loads(content[8 : 8 + length])
        key = rng.choice(sorted(document["__metadata__"]))
        value = json.loads(document["__metadata__"][key])
        document["__metadata__"][key] = json.dumps(_changed(value, rng))
        header = json.dumps(document).encode()
    return len(header).to_bytes(8, "little") + header + content[8 + length :]


def _changed(value: object, rng: random.Random) -> object:
    """`value` with one thing in it, at any depth, replaced or left out."""
    if isinstance(value, dict) and value and rng.random() < 0.8:
        key = rng.choice(sorted(value))
        if rng.random() < 0.2:
            return {name: each for name, each in value.items() if name != key}
        return {**value, key: _changed(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.8:
        at = rng.randrange(len(value))
        return [*value[:at], _changed(value[at], rng), *value[at + 1 :]]
    return rng.choice(HEADER_VALUES)


def test_a_damaged_journal_is_refused_or_the_table_is_the_same(run: Path, phantoms: Path, tmp_path: Path) -> None:
    predictor = Predictor.load(run)
    inputs = tuple(map(str, sorted((phantoms / "dicom").iterdir())[:2]))
    whole, folder = tmp_path / "whole", tmp_path / "mutant"
    predict_batch(predictor, BatchSettings(inputs, whole, "model", write=("rle",)))
    for number in range(COUNT):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        journal = folder / JOURNAL
        journal.write_bytes(damaged(journal.read_bytes(), random.Random(number)))
        try:
            predict_batch(predictor, BatchSettings(inputs, folder, "model", write=("rle",)))
        except OutputError:
            continue
        for name in (TABLE, RUNS):
            assert (folder / name).read_bytes() == (whole / name).read_bytes(), number
