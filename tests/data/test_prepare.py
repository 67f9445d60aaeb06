"""Mistakes cost nothing, changes are noticed, and nothing is dropped in silence."""

from __future__ import annotations

import os

import numpy as np
import pytest
from dicom_files import RAMP_8, save_dicom
from PIL import Image

from pleura.cli.prepare import messages
from pleura.data.dataset import Dataset
from pleura.data.prepare import PrepareSettings, prepare
from pleura.errors import InputError, OutputError
from pleura.files import held


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
def test_impossible_number_of_folds_is_refused_before_anything_is_read(folder, folds):
    with pytest.raises(InputError, match="folds"):
        prepare(settings(folder, folds=folds))
    assert not (folder / "out").exists()


@pytest.mark.parametrize("table", ["folds", "patients"])
def test_missing_csv_is_refused_before_anything_is_read(folder, table):
    with pytest.raises(InputError, match=r"nowhere\.csv"):
        prepare(settings(folder, **{table: folder / "nowhere.csv"}))
    assert not (folder / "out").exists()


def test_fold_csv_that_lacks_a_case_is_refused_before_anything_is_read(folder):
    (folder / "folds.csv").write_text("ImageId,fold\n0,0\n")
    with pytest.raises(InputError, match="7 of 8 cases have no fold"):
        prepare(settings(folder, folds=folder / "folds.csv"))
    assert not (folder / "out").exists()


def test_mask_that_was_edited_in_place_is_noticed(folder):
    prepare(settings(folder))
    Image.fromarray(np.full((40, 50), 255, dtype=np.uint8)).save(folder / "masks/0.png")
    os.utime(folder / "masks/0.png", (1, 1))
    with pytest.raises(Exception, match="other inputs"):
        prepare(settings(folder))


def test_two_masks_of_one_image_are_refused(folder):
    (folder / "masks/more").mkdir()
    (folder / "masks/more/1.png").write_bytes((folder / "masks/0.png").read_bytes())
    with pytest.raises(InputError, match="1 and more/1 are the same image"):
        prepare(settings(folder))


def test_file_that_cannot_be_reached_does_not_stop_the_batch(folder):
    (folder / "images/7.png").unlink()
    (folder / "images/7.png").symlink_to(folder / "gone.png")
    made = prepare(settings(folder))
    assert (len(made.dataset), made.count("quarantined")) == (7, 1)


def test_file_name_that_is_not_utf_8_goes_through(folder):
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


def test_two_files_of_one_name_in_two_folders_have_labels_of_their_own(folder):
    for kind, number in (("images", 2), ("masks", 4)):
        (folder / kind / "again").mkdir()
        (folder / kind / "again" / "1.png").write_bytes((folder / kind / f"{number}.png").read_bytes())
    made = prepare(settings(folder))
    positive = {case.image_id: case.has_pneumothorax for case in made.dataset.cases}
    assert (positive["1"], positive["again/1"], len(positive)) == (True, False, 9)


def test_row_that_can_be_two_files_is_refused_with_both_named(folder):
    for number in "12":
        (folder / "images" / number).mkdir()
        (folder / "images" / number / "x.png").write_bytes((folder / f"images/{number}.png").read_bytes())
    (folder / "masks/x.png").write_bytes((folder / "masks/0.png").read_bytes())
    with pytest.raises(InputError, match=r"x can be 1/x\.png and 2/x\.png"):
        prepare(settings(folder))


def test_tables_of_patients_and_folds_name_cases_by_file_too(folder):
    (folder / "images/deep").mkdir()
    (folder / "images/0.png").rename(folder / "images/deep/0.png")
    rows = [f"{number}.png" if number else "images/deep/0.png" for number in range(8)]
    (folder / "folds.csv").write_text("ImageId,fold\n" + "".join(f"{row},{int(row[0] in '13')}\n" for row in rows))
    (folder / "patients.csv").write_text("ImageId,patient\n0,p\n")
    made = prepare(settings(folder, folds=folder / "folds.csv", patients=folder / "patients.csv"))
    case = next(case for case in made.dataset.cases if case.image_id == "deep/0")
    assert (case.patient, case.fold, case.source) == ("p", 0, "deep/0.png")


def test_images_of_one_uid_go_by_their_paths_and_a_copy_is_left_out(folder):
    for number, pixels in enumerate((RAMP_8, RAMP_8, RAMP_8[::-1].copy())):
        save_dicom(folder / f"images/d{number}.dcm", pixels)
        Image.fromarray(np.zeros(RAMP_8.shape, np.uint8)).save(folder / f"masks/d{number}.png")
    made = prepare(settings(folder))
    assert {"d0", "d2"} < {case.image_id for case in made.dataset.cases}
    assert (len(made.dataset), made.count("same id"), made.count("copy"), made.count("no image")) == (10, 2, 1, 0)


def test_hidden_files_are_neither_images_nor_masks(folder):
    for kind in ("images", "masks"):
        (folder / kind / "._1.png").write_bytes(b"no picture")
        (folder / kind / ".cache").mkdir()
        (folder / kind / ".cache" / "1.png").write_bytes((folder / kind / "2.png").read_bytes())
    made = prepare(settings(folder))
    assert (len(made.dataset), made.problems) == (8, [])


def test_masks_that_lie_among_the_images_are_no_radiographs(folder):
    (folder / "all").mkdir()
    for kind in ("images", "masks"):
        (folder / kind).rename(folder / "all" / kind)
    made = prepare(PrepareSettings(folder / "all", (folder / "all/masks",), folder / "out", size_px=64, folds=2))
    assert (len(made.dataset), made.problems) == (8, [])


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


@pytest.mark.parametrize(
    "damage", [b"garbage\n", b"\0" * 50, b"\xff\n", b'{"row": "0"}\n', b'{"row": 99, "problem": "x"}\n']
)
def test_damaged_journal_of_an_unfinished_run_is_refused_with_the_way_out(folder, damage, monkeypatch):
    import pleura.data.prepare as module

    with monkeypatch.context() as patch:
        patch.setattr(module, "_finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            prepare(settings(folder))
    journal = folder / "out/.partial/journal.jsonl"
    whole = journal.read_bytes()
    journal.write_bytes(whole + damage)
    with pytest.raises(OutputError, match=r"journal\.jsonl: .*; remove the folder .*\.partial"):
        prepare(settings(folder))
    journal.write_bytes(whole[:-30])  # what a killed run leaves
    assert len(prepare(settings(folder)).dataset) == 8


def test_second_process_on_the_same_folder_is_refused(folder):
    with held(folder / "out", "prepares"), pytest.raises(OutputError, match="another process prepares a dataset in it"):
        prepare(settings(folder))


def test_dataset_is_made_where_the_system_cannot_reserve_space(folder, monkeypatch):
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    assert len(prepare(settings(folder)).dataset) == 8


@pytest.mark.parametrize("grid", ["siim", "image"])
def test_grid_of_runs_is_refused_where_no_masks_are_runs(folder, grid):
    with pytest.raises(InputError, match="--rle-grid: does nothing"):
        prepare(settings(folder, rle_grid=grid))
    assert not (folder / "out").exists()


def test_header_that_contradicts_an_image_is_noted_in_problems_csv(folder):
    from pydicom import dcmread

    from pleura.data.phantoms.dicom_files import write_phantom_dataset

    write_phantom_dataset(folder / "phantoms", n_patients=4, seed=3, size_px=64)
    files = sorted((folder / "phantoms" / "dicom").rglob("*.dcm"))
    header = dcmread(files[0])
    header.ViewPosition = "LL"
    header.save_as(files[0])
    masks = (folder / "phantoms" / "masks.csv",)
    made = prepare(PrepareSettings(folder / "phantoms" / "dicom", masks, folder / "out", size_px=64, folds=2))
    notes = [problem for problem in made.problems if problem.kind == "note"]
    assert [note.image_id for note in notes] == [header.SOPInstanceUID]
    assert "LL" in notes[0].reason
    assert notes[0].reason.startswith("kept: ")
    assert made.dataset.card["problems"]["note"] == 1
    assert any(line.startswith("  1 note: ") for line in messages(made, folder / "out"))
    assert len(made.dataset) == len(files)
