"""`pleura compare`: models on cases that neither has learned from, and masks of any tool."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mask_writers import SIDE, some_masks, write_pngs

from pleura.errors import InputError
from pleura.evaluation.compare import compare_masks, compare_models

MASKS = some_masks(60)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of masks: the truth, nearly right, and empty."""
    root = tmp_path_factory.mktemp("masks")
    near = {key: np.roll(mask, 1, axis=0) for key, mask in MASKS.items()}
    nothing = {key: np.zeros((SIDE, SIDE), dtype=np.uint8) for key in MASKS}
    return {name: write_pngs(root / name, masks) for name, masks in (("truth", MASKS), ("near", near), ("no", nothing))}


def test_masks_that_are_better_are_told_from_empty_ones_and_by_what(folders: dict[str, Path], tmp_path: Path) -> None:
    done = compare_masks(folders["near"], folders["no"], folders["truth"], resamples=200, out=tmp_path)
    better = {each.name: each.better for each in done.differences}
    assert (better["siim_dice"], better["dice_on_positives"], better["specificity"]) == ("first", "first", None)
    assert done.summary.startswith("The first is better by SIIM mean Dice")
    assert "cannot tell them apart by Specificity" in done.summary
    document = json.loads((tmp_path / "compare.json").read_text(), parse_constant=pytest.fail)
    assert document["metrics"][0]["better"] == "first"


def test_the_same_masks_cannot_be_told_apart(folders: dict[str, Path]) -> None:
    done = compare_masks(folders["near"], folders["near"], folders["truth"], resamples=50)
    assert "cannot tell them apart" in done.summary
    assert all(each.p == 1 for each in done.differences)


def test_a_model_cannot_be_told_from_itself_and_its_training_cases_are_left_out(
    run: Path, dataset: Path, pleura: Callable[..., object]
) -> None:
    done = compare_models(run, run, dataset, resamples=20)
    assert "same on every case" in done.summary
    assert "auroc" in {each.name for each in done.differences}
    counted = int(done.cases.split()[0])
    assert f"chosen on {counted} of them" in done.cases
    printed = pleura("compare", run, run, "--data", dataset, "--resamples", 10)
    assert "cannot tell them apart" in printed.stdout  # type: ignore[attr-defined]


def test_what_cannot_be_compared_is_a_one_line_error(
    folders: dict[str, Path], dataset: Path, tmp_path: Path, pleura: Callable[..., object]
) -> None:
    with pytest.raises(InputError, match="nowhere"):
        compare_masks(folders["near"], tmp_path / "nowhere", folders["truth"])
    done = pleura("compare", tmp_path / "a", tmp_path / "b", "--data", dataset)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)  # type: ignore[attr-defined]
    assert pleura("compare", "a", "b").returncode == 2  # type: ignore[attr-defined]
    done = pleura(
        "compare", *(folders[name] for name in ("near", "no")), "--truth", folders["truth"], "--device", "cpu"
    )
    assert done.returncode == 2  # type: ignore[attr-defined]
    assert "--device" in done.stderr  # type: ignore[attr-defined]
    assert "does nothing" in done.stderr  # type: ignore[attr-defined]
