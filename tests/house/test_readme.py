"""The commands and snippets of README, tutorial and how-to, run in order, on phantoms and with a tiny net."""

from __future__ import annotations

import csv
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from places import SMOKE
from typer.testing import CliRunner

from pleura.cli import app
from pleura.config.bundled import recipe_names
from pleura.data import rle
from pleura.data.folds import assign_folds
from pleura.data.geometry import SquareGeometry
from pleura.data.mask_csv import read_table
from pleura.data.radiograph import read_radiograph

ROOT = Path(__file__).resolve().parents[2]
SIDE_PX, MARGIN_PX = 96, 8


@pytest.fixture(scope="module")
def files(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that the pages name."""
    folder = tmp_path_factory.mktemp("files")
    sources = sorted((phantoms / "dicom").iterdir())
    (folder / "dicom-images-train").symlink_to(phantoms / "dicom")
    shutil.copy(phantoms / "masks.csv", folder / "train-rle.csv")
    shutil.copy(sources[0], folder / "patient.dcm")
    (folder / "study").mkdir()
    for source in sources[:2]:
        shutil.copy(source, folder / "study")
    with (phantoms / "patients.csv").open(newline="") as file:
        patients = {row["ImageId"]: row["patient"] for row in csv.DictReader(file)}
    _nih_map(folder / "siim-nih-id.csv", patients)
    runs = read_table(phantoms / "masks.csv").runs
    masks = {image_id: rle.decode_union(texts) for image_id, texts in runs.items()}
    folds = assign_folds([patients[key] for key in masks], [int(mask.sum()) for mask in masks.values()], 3, 0)
    _table(folder / "folds.csv", ("ImageId", "fold"), zip(masks, folds.tolist(), strict=True))
    _data_of_ones_own(folder, sources, masks, patients)
    return folder


def _nih_map(path: Path, patients: dict[str, str]) -> None:
    numbers = {patient: number for number, patient in enumerate(sorted(set(patients.values())))}
    rows = [(key, f"{numbers[patient]:08d}_{row:03d}.png") for row, (key, patient) in enumerate(patients.items())]
    _table(path, ("Kaggle_ID", "NIH_ID"), rows)


def _data_of_ones_own(
    folder: Path, sources: list[Path], masks: dict[str, np.ndarray], patients: dict[str, str]
) -> None:
    """PNG files that are not square; their masks as PNG files, and as runs on the images' own grid; patients, split."""
    (folder / "my-images").mkdir()
    (folder / "my-masks").mkdir()
    runs, rows = [], []
    to_image, middle = SquareGeometry(1024, 1024, SIDE_PX), slice(MARGIN_PX, SIDE_PX - MARGIN_PX)
    val = set(sorted(set(patients.values()))[::3])
    for number, source in enumerate(sources):
        name, image_id = f"a{number:04d}", source.stem
        grey = (read_radiograph(source).image[:, middle] * 255).astype(np.uint8)
        mask = to_image.mask_to_square(masks[image_id])[:, middle]
        Image.fromarray(grey).save(folder / "my-images" / f"{name}.png")
        Image.fromarray(mask * 255).save(folder / "my-masks" / f"{name}.png")
        runs.append((name, rle.encode(mask)))
        rows.append((name, patients[image_id], "val" if patients[image_id] in val else "train"))
    _table(folder / "my-rle.csv", ("ImageId", "EncodedPixels"), runs)
    _table(folder / "index.csv", ("ImageId", "patient", "split"), rows)


def _table(path: Path, header: tuple[str, ...], rows: object) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])  # type: ignore[misc]


def blocks(page: str) -> list[tuple[str, str]]:
    """(language, code) of the fenced blocks of a page, in order."""
    return re.findall(r"```(sh|python)\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)


def run_command(line: str) -> None:
    """Run one `pleura` line in the working folder, with the smoke recipe and no weights from elsewhere."""
    words = shlex.split(line, comments=True)[1:]
    if words[0] == "train":  # elsewhere `default` is the model
        words = [str(SMOKE) if word in recipe_names() else word for word in words]
    if words[:2] == ["evaluate", "default"]:  # takes a second an image, and is tried in tests/models
        words[1] = "run"
    if words[0] == "export":  # of the phantoms' validation part it would say, rightly, that 7 images are too few
        words = [word for word in words if word not in ("--data", "siim")]
    words = [word for word in words if not word.startswith("model.")]
    if words[0] in ("evaluate", "score", "compare", "tune"):
        words += ["--resamples", "10"]  # a thousand take seconds, and print the same lines
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, f"{line}\n{done.output}"


@pytest.mark.slow
@pytest.mark.parametrize("pages", [("README.md",), ("docs/tutorial.md", "docs/how-to.md")], ids=" ".join)
def test_every_command_and_every_snippet_on_a_page_runs(
    pages: tuple[str, ...], files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in files.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    commands, snippets = 0, 0
    for language, code in (block for page in pages for block in blocks(page)):
        if language == "python":
            exec(compile(code, pages[-1], "exec"), {})
            snippets += 1
            continue
        for line in code.replace("\\\n", " ").splitlines():
            if line.startswith("pleura "):
                run_command(line)
                commands += 1
    assert (commands >= 4, snippets >= 1) == (True, True)


def test_the_blocks_of_a_page_hold_nothing_but_commands_that_are_known() -> None:
    lines = [line for page in ("README.md", "docs/tutorial.md", "docs/how-to.md") for kind, code in blocks(page)
             if kind == "sh" for line in code.splitlines()]  # fmt: skip
    known = ("pleura ", "make ", "source .venv/bin/activate")
    assert [line for line in lines if line and not line.startswith(known)] == []
