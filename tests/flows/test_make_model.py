"""`make model`: the commands that make the default model, with the smoke recipe on phantoms."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT, SMOKE

from pleura.config.card import Card
from pleura.decision.triplet import Triplet
from pleura.models.checkpoint import load_checkpoint
from pleura.models.exported import load_exported

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")


def make(*words: object) -> subprocess.CompletedProcess[str]:
    """Run make in this environment: what it would install is there."""
    here = f"BIN={Path(sys.executable).parent}"
    command = ["make", "--silent", "-o", "install", here, *map(str, words)]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "DATA", "OUT"))}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, timeout=580)


def test_without_a_dataset_it_says_how_to_name_one():
    done = make("model")
    assert done.returncode != 0
    assert done.stdout == ""
    assert done.stderr.splitlines()[0] == (
        "make model: name a dataset of pleura prepare: make model DATA=path/to/dataset"
    )


def test_a_folder_that_is_no_dataset_is_refused_in_one_line_of_ours(tmp_path):
    done = make("model", f"DATA={tmp_path}")
    assert done.returncode != 0
    assert done.stderr.splitlines()[0] == f"make model: {tmp_path}: is no dataset of pleura prepare"


def test_the_export_of_the_default_model_alone_asks_for_a_dataset_too():
    assert make("onnx").stderr.splitlines()[0].endswith("make onnx DATA=path/to/dataset")
    (export,) = [
        line for line in make("--just-print", "onnx", "DATA=my data").stdout.splitlines() if " export " in line
    ]
    assert shlex.split(export)[2:] == [
        "src/pleura/models/default.safetensors",
        "--data",
        "my data",
        "--out",
        "build/onnx",
    ]


def test_a_card_is_asked_for_and_never_taken_for_granted():
    assert "--card" not in make("--just-print", "model", "DATA=siim").stdout
    assert '--card "mine.yaml"' in make("--just-print", "model", "DATA=siim", "CARD=mine.yaml").stdout


def test_it_trains_in_two_processes_of_one_thread_and_goes_on_where_it_was():
    done = make("--just-print", "model", "DATA=siim")
    first = " ".join(line for line in done.stdout.splitlines() if not line.startswith("test ")).split("rm -f")[0]
    assert "OMP_NUM_THREADS=1" in first
    assert "--nproc-per-node 2" in first
    assert 'train "recipes/default.yaml"' in first
    assert '--data "siim" --out "model" --resume' in first


def test_names_with_blanks_stay_whole():
    given = {"DATA": "my data", "OUT": "my model", "CARD": "my card.yaml", "RECIPE": "my recipe.yaml"}
    done = make("--just-print", "model", *(f"{name}={value}" for name, value in given.items()))
    assert done.returncode == 0, done.stderr
    words = shlex.split(done.stdout, comments=False)
    assert set(given.values()) - {"my model"} <= set(words)
    assert {"my model", "my model/fold-0", "my model/default.safetensors", "my model/evaluation"} <= set(words)
    assert "my" not in words


@pytest.fixture(scope="module")
def data(phantoms, tmp_path_factory):
    """Twelve validation patients: with fewer than ten nothing can be tuned."""
    from pleura.data.prepare import PrepareSettings, prepare

    out = tmp_path_factory.mktemp("two-folds") / "dataset"
    masks = (phantoms / "masks.csv",)
    prepare(PrepareSettings(phantoms / "dicom", masks, out, size_px=64, folds=2, workers=1))
    return out


@pytest.mark.slow
def test_a_dataset_becomes_a_packed_tuned_and_scored_model(data, tmp_path):
    card, out = tmp_path / "the card.yaml", tmp_path / "the model"
    card.write_text("\n".join(f"{name}: some words" for name in Card.model_fields))
    words = ("model", f"DATA={data}", f"OUT={out}", f"RECIPE={SMOKE}", f"CARD={card}", "PROCESSES=2")
    tune = "TUNE=--objective dice_on_positives --specificity 0.9 --resamples 10"
    certify = f'CERTIFY=--data "{data}" --split all'  # the validation part has too few cases
    done = make(*words, tune, certify, "SETTINGS=samples=0 training.cases_per_epoch=8")
    assert done.returncode == 0, done.stdout + done.stderr
    file = out / "default.safetensors"
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    assert f"sha256 {sha256} {file}" in done.stdout
    made, trained = (load_checkpoint(path) for path in (file, out / "fold-0" / "best.safetensors"))
    assert made.calibration
    assert made.scores["tuned"]["split"] == "val"
    assert made.card["title"] == "some words"
    assert made.seen == trained.seen
    assert (
        made.provenance["packed_from"] == hashlib.sha256((out / "fold-0" / "best.safetensors").read_bytes()).hexdigest()
    )
    exported = load_exported(out / "exported" / "default.onnx")
    assert exported.header == made.header
    assert (exported.checkpoint_sha256, exported.certificate["images"]["kind"]) == (sha256, "dataset")
    report = json.loads((out / "evaluation" / "report.json").read_text())
    assert report["split"].endswith("(val)")
    assert Triplet.of(report["triplet"]) == made.triplet
