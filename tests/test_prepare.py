"""Mistakes cost nothing, changes are noticed, and nothing is dropped in silence."""

from __future__ import annotations

import os

import numpy as np
import pytest
from PIL import Image

from pleura.data.dataset import Dataset
from pleura.errors import InputError
from pleura.prepare import PrepareSettings, prepare


@pytest.fixture
def folder(tmp_path):
    """Eight PNG radiographs of noise and mask PNGs, every second one not empty."""
    generator = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    for number in range(8):
        Image.fromarray(generator.integers(0, 256, (40, 50), dtype=np.uint8)).save(tmp_path / f"images/{number}.png")
        mask = np.zeros((40, 50), dtype=np.uint8)
        mask[10:20, 5:15] = 255 * (number % 2)
        Image.fromarray(mask).save(tmp_path / f"masks/{number}.png")
    return tmp_path


def settings(folder, **more):
    return PrepareSettings(
        folder / "images", (folder / "masks",), folder / "out", **{"size_px": 64, "folds": 2, **more}
    )


@pytest.mark.parametrize("folds", [0, 1, 9, -1])
def test_an_impossible_number_of_folds_is_refused_before_anything_is_read(folder, folds):
    with pytest.raises(InputError, match="folds"):
        prepare(settings(folder, folds=folds))
    assert not (folder / "out").exists()


@pytest.mark.parametrize("table", ["folds", "patients"])
def test_a_missing_csv_is_refused_before_anything_is_read(folder, table):
    with pytest.raises(InputError, match=r"nowhere\.csv"):
        prepare(settings(folder, **{table: folder / "nowhere.csv"}))
    assert not (folder / "out").exists()


def test_a_fold_csv_that_lacks_a_case_is_refused_before_anything_is_read(folder):
    (folder / "folds.csv").write_text("ImageId,fold\n0,0\n")
    with pytest.raises(InputError, match="7 of 8 cases have no fold"):
        prepare(settings(folder, folds=folder / "folds.csv"))
    assert not (folder / "out").exists()


def test_a_mask_that_was_edited_in_place_is_noticed(folder):
    prepare(settings(folder))
    Image.fromarray(np.full((40, 50), 255, dtype=np.uint8)).save(folder / "masks/0.png")
    os.utime(folder / "masks/0.png", (1, 1))
    with pytest.raises(Exception, match="other inputs"):
        prepare(settings(folder))


def test_two_masks_of_one_image_are_refused(folder):
    (folder / "masks/more").mkdir()
    (folder / "masks/more/1.png").write_bytes((folder / "masks/0.png").read_bytes())
    with pytest.raises(InputError, match="keep one"):
        prepare(settings(folder))


def test_a_file_that_cannot_be_reached_does_not_stop_the_batch(folder):
    (folder / "images/7.png").unlink()
    (folder / "images/7.png").symlink_to(folder / "gone.png")
    made = prepare(settings(folder))
    assert (len(made.dataset), made.count("quarantined")) == (7, 1)


def test_a_file_name_that_is_not_utf_8_goes_through(folder):
    strange = os.fsdecode(b"caf\xe9")
    for kind in ("images", "masks"):
        (folder / kind / "1.png").rename(folder / kind / f"{strange}.png")
    made = prepare(settings(folder))
    assert strange in {case.image_id for case in made.dataset.cases}


def test_equal_pixels_are_reported_with_their_folds(folder):
    (folder / "images/0.png").write_bytes((folder / "images/1.png").read_bytes())
    made = prepare(settings(folder))
    assert made.count("equal pixels") == 1
    assert "fold" in next(problem.reason for problem in made.problems if problem.kind == "equal pixels")


def test_two_files_of_one_id_are_reported_and_the_first_is_kept(folder):
    (folder / "images/again").mkdir()
    (folder / "images/again/1.png").write_bytes((folder / "images/2.png").read_bytes())
    made = prepare(settings(folder))
    assert (len(made.dataset), made.count("same id")) == (8, 1)


def test_where_too_few_are_left_the_quarantine_is_named(folder):
    for number in range(1, 8):
        (folder / f"images/{number}.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(InputError, match="7 files were quarantined"):
        prepare(settings(folder))


def test_masks_keep_their_place_and_aspect(folder):
    prepare(settings(folder))
    dataset = Dataset(folder / "out")
    mask = dataset.masks([next(row for row, case in enumerate(dataset.cases) if case.has_pneumothorax)])[0]
    rows, columns = np.nonzero(mask)
    # 50 columns become 64; 40 rows become 51, between 6 rows of black and 7.
    assert (columns.min(), columns.max()) == (6, 18)
    assert (rows.min(), rows.max()) == (6 + 13, 6 + 24)
