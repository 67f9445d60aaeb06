"""The notebook, run top to bottom as it is committed."""

from __future__ import annotations

import csv
import functools
import logging
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from places import ROOT

from pleura.evaluation.evaluate import evaluate

NOTEBOOK = ROOT / "notebooks" / "pneumothorax_segmentation.ipynb"
PLACES = ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "MPLCONFIGDIR")


def stored() -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOK, as_version=nbformat.NO_CONVERT)


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> tuple[nbformat.NotebookNode, Path]:
    """The notebook with its outputs, and the folder in which it ran. Raises on the first cell that fails."""
    folder, settings = tmp_path_factory.mktemp("notebook"), tmp_path_factory.mktemp("jupyter")
    notebook = stored()
    with pytest.MonkeyPatch.context() as patch:
        for place in PLACES:  # a kernel, a start-up file or a style of whoever runs the tests must not change them
            patch.setenv(place, str(settings / place.lower()))
        patch.setenv("OMP_NUM_THREADS", "1")
        NotebookClient(notebook, timeout=170, kernel_name="python3", resources={"metadata": {"path": folder}}).execute()
    return notebook, folder


def outputs(notebook: nbformat.NotebookNode, name: str) -> list[nbformat.NotebookNode]:
    (cell,) = [cell for cell in notebook.cells if cell.id == name]
    return list(cell.outputs)


def said(notebook: nbformat.NotebookNode, name: str) -> str:
    return "".join(output.text for output in outputs(notebook, name) if output.output_type == "stream")


@pytest.mark.slow
def test_every_cell_runs_and_leaves_a_model_a_report_and_overlays(executed: tuple[nbformat.NotebookNode, Path]) -> None:
    _, folder = executed
    model = folder / "pleura-work" / "smoke"
    assert (model / "fold-0" / "best.safetensors").stat().st_size > 0
    assert (model / "report.html").is_file()
    with (model / "found" / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    unseen = {path.stem for path in (folder / "pleura-work" / "unseen" / "dicom").iterdir()}
    assert {row["image_id"] for row in rows} == unseen
    for kind in ("overlays", "masks"):
        assert {path.stem for path in (model / "found" / kind).iterdir()} == unseen


@pytest.mark.slow
@pytest.mark.parametrize("name", ["look", "curves", "samples", "overlays"])
def test_the_pictures_are_shown(executed: tuple[nbformat.NotebookNode, Path], name: str) -> None:
    shown = [output for output in outputs(executed[0], name) if output.output_type == "display_data"]
    (picture,) = shown
    assert {"image/png", "image/jpeg"} & set(picture.data)


@pytest.mark.slow
def test_the_verdict_and_the_floor_are_told(executed: tuple[nbformat.NotebookNode, Path]) -> None:
    words = said(executed[0], "evaluate")
    assert "the empty predictor" in words
    assert "floor, the empty answer: 0." in words
    assert "dice_on_positives" in words


@pytest.mark.slow
def test_no_cell_warns_that_it_is_out_of_date(executed: tuple[nbformat.NotebookNode, Path]) -> None:
    texts = [said(executed[0], cell.id) for cell in executed[0].cells if cell.cell_type == "code"]
    assert [text for text in texts if "DeprecationWarning" in text or "FutureWarning" in text] == []


@pytest.mark.slow
@pytest.mark.parametrize("given", ["IMAGES", "DATASET"])
def test_it_takes_data_of_ones_own_and_then_predicts_what_was_held_out(
    given: str, phantoms: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logging.getLogger("pleura"), "level", logging.WARNING)
    monkeypatch.setattr("pleura.evaluation.evaluate.evaluate", functools.partial(evaluate, resamples=10))
    own: dict[str, Any] = {"RECIPE": "smoke", "OVERRIDES": []}
    if given == "IMAGES":
        own |= {"IMAGES": phantoms / "dicom", "MASKS": phantoms / "masks.csv", "PATIENTS": phantoms / "patients.csv"}
    else:
        own |= {"DATASET": dataset}
    names: dict[str, Any] = {}
    for cell in stored().cells:
        if cell.cell_type == "code":
            exec(compile(cell.source, cell.id, "exec"), names)
            names |= own if cell.id == "settings" else {}
    found = {path.stem for path in (tmp_path / "pleura-work" / "smoke" / "found" / "overlays").iterdir()}
    held_out = {names["dataset"].cases[index].image_id for index in names["dataset"].indices("val", 0)}
    assert len(found) == min(8, len(held_out))
    assert found <= held_out
    assert not (tmp_path / "pleura-work" / "phantoms").exists()


def test_the_notebook_is_valid_and_stores_no_outputs() -> None:
    notebook = stored()
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    assert [cell.id for cell in code if cell.outputs or cell.execution_count is not None] == []


def test_its_first_cell_has_the_badge_that_opens_this_very_file_in_colab() -> None:
    first = stored().cells[0]
    assert first.cell_type == "markdown"
    assert "https://colab.research.google.com/assets/colab-badge.svg" in first.source
    assert f"/blob/main/{NOTEBOOK.relative_to(ROOT).as_posix()})" in first.source


def test_every_code_cell_is_short_and_compiles() -> None:
    for cell in stored().cells:
        if cell.cell_type == "code":
            compile(cell.source, cell.id, "exec")
            assert len(cell.source.splitlines()) <= 20, cell.id
