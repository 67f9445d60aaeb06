"""`pip install pleura` predicts, scores and looks for faults without PyTorch, and names the extra of what it lacks."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from base_install import base_distributions
from exports import OF_64, tiny_export, tiny_graph, tiny_openvino
from places import ROOT

from pleura.data import rle
from pleura.data.folds import assign_folds
from pleura.data.mask_csv import read_table

SCRIPT = ROOT / "tests" / "base_install.py"
NOT_IN_THE_BASE = {"torch", "torchvision", "timm", "accelerate", "scipy", "scikit-learn", "matplotlib", "safetensors"}


@pytest.fixture(scope="module")
def files(phantoms: Path, dataset: Path, run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that the commands name."""
    folder = tmp_path_factory.mktemp("base")
    tiny_export(folder / "model.onnx", tiny_graph(64), **OF_64)
    tiny_openvino(folder / "model.xml", tiny_graph(64), **OF_64)
    shutil.copy(run / "fold-0" / "best.safetensors", folder / "model.safetensors")
    shutil.copytree(phantoms / "dicom", folder / "dicom")
    shutil.copytree(dataset, folder / "data")
    for name in ("masks.csv", "patients.csv"):
        shutil.copy(phantoms / name, folder)
    with (folder / "patients.csv").open(newline="") as file:
        patients = {row["ImageId"]: row["patient"] for row in csv.DictReader(file)}
    runs = read_table(folder / "masks.csv").runs
    areas = [int(rle.decode_union(runs[key]).sum()) for key in patients]
    folds = zip(patients, assign_folds(list(patients.values()), areas, 2, 0), strict=True)
    (folder / "folds.csv").write_text("ImageId,fold\n" + "".join(f"{key},{fold}\n" for key, fold in folds))
    (folder / "recipe.yaml").write_text((ROOT / "recipes" / "smoke.yaml").read_text().replace("name: smoke", "name: a"))
    (folder / "state.pth").write_bytes(b"PK\x03\x04")
    return folder


def pleura(files: Path, words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, str(SCRIPT), *words.split()]
    return subprocess.run(command, cwd=files, env=environment, capture_output=True, text=True, timeout=300)


def test_the_base_has_none_of_the_large_packages():
    assert base_distributions() & NOT_IN_THE_BASE == set()
    assert {"numpy", "onnxruntime", "pydicom"} <= base_distributions()


@pytest.mark.parametrize(
    "words",
    [
        "--help",
        "predict dicom --model model.onnx --out found --write mask,rle,overlay,probabilities,seg,sc,gsps,sr",
        "score --truth masks.csv --pred masks.csv --patients patients.csv --resamples 10",
        "evaluate model.onnx --data data --out report --resamples 10",
        "compare model.onnx model.onnx --data data --resamples 10",
        "compare masks.csv masks.csv --truth masks.csv --resamples 10",
        "prepare --images dicom --masks masks.csv --size 64 --folds 3 --workers 1 --out prepared",
        "doctor data",
        "doctor masks.csv --images dicom",
        "doctor folds.csv --patients patients.csv --masks masks.csv",
        "doctor recipe.yaml",
        "doctor model.onnx --data data",
        "recipes",
        "recipes densenet121",
        "import-recipe recipe.yaml --out imported.yaml",
    ],
)
def test_a_verb_that_trains_nothing_needs_no_extra(files: Path, words: str):
    done = pleura(files, words)
    refused = words.startswith("import-recipe")  # of pleura's own recipes: it has to be read to be refused
    assert (done.returncode, "Traceback" in done.stderr) == (int(refused), False), done.stderr
    assert "pip install" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("words", "extra"),
    [
        ("train recipe.yaml --data data --out run", "train"),
        ("tune model.safetensors --data data --out tuned.safetensors", "train"),
        ("recalibrate model.safetensors --data data --out site.safetensors", "train"),
        ("pack model.safetensors --out packed.safetensors", "train"),
        ("card model.safetensors", "train"),
        ("import-weights state.pth --architecture albunet --out a.safetensors", "train"),
        ("demo --out demo", "train"),
        ("predict dicom --model model.safetensors --out never", "train"),
        ("evaluate model.safetensors --data data --out never", "train"),
        ("predict dicom --model model.onnx --device cuda --out never", "train"),
        ("doctor model.safetensors", "train"),
        ("predict dicom --model model.xml --out never", "openvino"),
        ("predict dicom --model model.onnx --engine openvino --out never", "openvino"),
        ("export model.safetensors --out exported", "export"),
        ("doctor model.xml", "openvino"),
        ("serve --model model.onnx", "serve"),
        ("listen --ae-title A --inbox inbox --send-to 127.0.0.1:4242:ARCHIVE --model model.onnx", "pacs"),
    ],
)
def test_a_verb_that_needs_an_extra_says_in_one_line_how_it_is_installed(files: Path, words: str, extra: str):
    before = sorted(path.name for path in files.iterdir())
    done = pleura(files, f"{words} --quiet")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("pleura: ")
    assert done.stderr.endswith(f', which is not installed: pip install "pleura[{extra}]"\n'), done.stderr
    assert done.stderr.count("\n") == 1
    assert sorted(path.name for path in files.iterdir()) == before


def test_a_checkpoint_from_python_is_refused_with_its_name_and_the_way_out(files: Path):
    code = (
        "import base_install; base_install.without_extras()\n"
        "import pleura\n"
        "try: pleura.load('model.safetensors')\n"
        "except pleura.MissingExtraError as error: print(error)"
    )
    places = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=files, env=os.environ | {"PYTHONPATH": places}, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == (
        "model.safetensors: is a checkpoint, and running it needs torch, which is not installed: pip install "
        '"pleura[train]"\n',
        "",
    )


def test_masks_without_torch_are_those_with_it(files: Path):
    assert pleura(files, "predict dicom --model model.onnx --out without").returncode == 0
    words = ["predict", "dicom", "--model", "model.onnx", "--out", "with"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    code = "import torch, sys; from pleura.cli import main; sys.exit(main())"
    subprocess.run([sys.executable, "-c", code, *words], cwd=files, env=environment, check=True, capture_output=True)
    for name in ("masks.csv", "predictions.csv"):
        assert (files / "without" / name).read_text() == (files / "with" / name).read_text()
    assert json.loads((files / "without" / "journal.jsonl").read_text().splitlines()[0])["engine"] == "onnxruntime"
