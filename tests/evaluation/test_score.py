"""Scores of any tool's masks: equal in every form, with the floor, and with the faults that numbers hide."""

from __future__ import annotations

import csv
import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mask_writers import SIDE, some_masks, write_csv, write_pngs, write_seg
from PIL import Image
from places import ROOT

from pleura.data import rle
from pleura.data.mask_csv import read_table
from pleura.errors import InputError, OutputError
from pleura.evaluation.metrics.siim import siim_dice
from pleura.evaluation.score import Score, ScoreSettings, score

MASKS = some_masks(30)
WORSE = {key: np.roll(mask, 2, axis=0) if number % 4 else 0 * mask for number, (key, mask) in enumerate(MASKS.items())}
REAL = ROOT.parent / "shared/data/labels/siim-train-rle.csv"


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    return write_csv(tmp_path / "truth.csv", MASKS)


def scored(truth: Path, predicted: Path, **options: object) -> Score:
    grid = {"grid": (SIDE, SIDE)} if ".csv" in (truth.suffix, predicted.suffix) else {}
    settings = {**grid, "resamples": 30, **options}
    return score(ScoreSettings(truth, predicted, **settings))  # type: ignore[arg-type]


def told(done: Score) -> str:
    return "\n".join(map(str, done.read.findings))


def test_the_scores_are_those_of_the_plain_definitions(truth: Path, tmp_path: Path) -> None:
    done = scored(truth, write_csv(tmp_path / "p.csv", WORSE))
    ids = sorted(MASKS)
    dice = siim_dice(np.stack([MASKS[key] for key in ids]), np.stack([WORSE[key] for key in ids]))
    positive = np.array([MASKS[key].any() for key in ids])
    predicted_positive = np.array([WORSE[key].any() for key in ids])
    assert done.read.ids == ids
    np.testing.assert_allclose(done.read.results.dice, dice)
    assert done.report.metrics["siim_dice"].value == pytest.approx(dice.mean())
    assert done.report.metrics["dice_on_positives"].value == pytest.approx(dice[positive].mean())
    assert done.report.metrics["sensitivity"].value == pytest.approx(predicted_positive[positive].mean())
    assert done.report.metrics["ppv"].value == pytest.approx(positive[predicted_positive].mean())
    assert done.report.floor == pytest.approx(1 - positive.mean())
    shifted = [numbers.hd95 * SIDE / 1024 for numbers in done.read.numbers if np.isfinite(numbers.hd95)]
    assert shifted == pytest.approx([2.0] * len(shifted))
    assert done.report.surface.hd95_left_out == int((positive & ~predicted_positive).sum())


@pytest.mark.parametrize("form", ["csv", "png", "png of 0 and 1", "seg", "segs"])
def test_every_form_of_masks_gets_the_same_score(truth: Path, tmp_path: Path, form: str) -> None:
    wanted = scored(truth, write_csv(tmp_path / "p.csv", WORSE)).report.metrics
    folder = tmp_path / "pred"
    if form == "seg":
        write_seg(folder := tmp_path / "pred.dcm", WORSE)
    elif form == "segs":
        folder.mkdir()
        for number, (key, mask) in enumerate(WORSE.items()):
            write_seg(folder / f"{number}.dcm", {key: mask})
    elif form != "csv":
        write_pngs(folder, WORSE, 1 if "1" in form else 255)
    else:
        write_csv(folder, WORSE, "fname,rle")
    assert scored(truth, folder).report.metrics == wanted
    assert scored(folder, folder).report.metrics["siim_dice"].value == 1


def test_the_empty_predictor_is_called_by_its_name(truth: Path, tmp_path: Path, pleura: Callable[..., object]) -> None:
    path = tmp_path / "p.csv"
    path.write_text("ImageId,EncodedPixels\n" + "".join(f"{key},-1\n" for key in MASKS))
    done = scored(truth, path)
    assert done.report.metrics["siim_dice"].value == pytest.approx(done.report.floor)
    assert "empty predictor" in done.report.summary
    printed = pleura("score", "--truth", truth, "--pred", path, "--grid", f"{SIDE}x{SIDE}", "--resamples", 10)
    assert printed.returncode == 0  # type: ignore[attr-defined]
    out = printed.stdout  # type: ignore[attr-defined]
    assert all(
        word in out for word in (f"floor {done.report.floor:.6f}", "empty predictor", "prevalence 66.7 %", "95 %")
    )


@pytest.mark.skipif(not REAL.is_file(), reason="the public csv of SIIM is not on this machine")
@pytest.mark.slow
def test_the_empty_submission_on_the_ids_of_siim_scores_the_floor(tmp_path: Path) -> None:
    path = tmp_path / "empty.csv"
    rle.write_csv(path, ((image_id, rle.EMPTY) for image_id in read_table(REAL).runs))
    done = score(ScoreSettings(REAL, path, resamples=10))
    assert len(done.read.ids) == 12_047
    assert f"{done.report.metrics['siim_dice'].value:.6f}" == f"{done.report.floor:.6f}" == "0.778451"


@pytest.mark.parametrize("number", range(8))
def test_predictions_in_any_other_orientation_are_noticed(truth: Path, tmp_path: Path, number: int) -> None:
    turned = {
        key: np.ascontiguousarray(np.rot90(mask[:, ::-1] if number >= 4 else mask, number % 4))
        for key, mask in MASKS.items()
    }
    found = told(scored(truth, write_csv(tmp_path / "p.csv", turned)))
    assert ("fit the truth when they are" in found) == (number != 0)


def test_values_that_are_not_binary_are_named_and_counted(truth: Path, tmp_path: Path) -> None:
    folder = write_pngs(tmp_path / "png", MASKS)
    for number in (1, 2):
        values = MASKS[f"1.2.3.{number}"] * 255
        values[0, :4] = (10, 20, 30, 40)
        Image.fromarray(values).save(folder / f"1.2.3.{number}.png")
    done = scored(truth, folder)
    assert "2 predicted masks hold values besides 0 and 1" in told(done)
    assert done.report.metrics["siim_dice"].value == 1


def test_ids_that_are_missing_on_either_side_are_named_counted_and_follow_the_rule(truth: Path, tmp_path: Path) -> None:
    some = {key: mask for number, (key, mask) in enumerate(MASKS.items()) if number > 2}
    path = write_csv(tmp_path / "p.csv", {**some, "stranger": MASKS["1.2.3.1"]})
    done, both = scored(truth, path), scored(truth, path, cases="both")
    assert "3 of 30 images have no prediction (1.2.3.0, 1.2.3.1, 1.2.3.2): each counts as predicted empty" in told(done)
    assert "1 predictions are of images without a true mask (stranger)" in told(done)
    assert done.read.results.dice.sum() == pytest.approx(28)  # two of the three are positive
    assert (len(both.read.ids), both.report.metrics["siim_dice"].value) == (27, 1.0)


def test_two_sets_without_a_common_image_are_refused_with_an_id_of_each(truth: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'other'.*'1\.2\.3\.0'"):
        scored(truth, write_csv(tmp_path / "p.csv", {"other": MASKS["1.2.3.1"]}))


def test_patients_widen_the_intervals_and_are_counted(truth: Path, tmp_path: Path) -> None:
    patients, predicted = tmp_path / "who.csv", write_csv(tmp_path / "p.csv", WORSE)
    patients.write_text("ImageId,patient\n" + "".join(f"{key},{n % 3}\n" for n, key in enumerate(MASKS)))
    done = scored(truth, predicted, patients=patients)
    assert (done.report.patients, done.report.patients_known) == (3, 30)
    patients.write_text("ImageId,patient\nnobody,1\n")
    with pytest.raises(InputError, match="none of the 30 images"):
        scored(truth, predicted, patients=patients)


def test_what_is_written_is_json_without_nan_and_a_row_for_each_image(truth: Path, tmp_path: Path) -> None:
    predicted = write_csv(tmp_path / "p.csv", {key: mask for key, mask in WORSE.items() if not mask.any()})
    done = scored(truth, predicted, out=tmp_path / "out")
    document = json.loads((tmp_path / "out" / "score.json").read_text(), parse_constant=pytest.fail)
    assert document["metrics"]["ppv"]["value"] is None
    assert [row["prevalence"] for row in document["prevalence"]["rows"]] == [0.02, 0.05, 0.2215]
    with (tmp_path / "out" / "cases.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image_id"] for row in rows] == done.read.ids
    assert sum(row["predicted"] == "0" for row in rows) == len(done.read.missing) > 0


def test_a_full_disk_costs_nothing_that_was_written_before(
    truth: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored(truth, truth, out=tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}

    def full_disk(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(OutputError, match=r"score\.json: the disk is full"):
        scored(truth, write_csv(tmp_path / "p.csv", WORSE), out=tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_a_wrong_file_is_a_one_line_error(truth: Path, tmp_path: Path, pleura: Callable[..., object]) -> None:
    for words, told_of in (
        (("--truth", truth, "--pred", tmp_path / "no.csv"), "no.csv"),
        (("--truth", tmp_path / "none", "--pred", truth), "none"),
        (("--truth", truth, "--pred", truth, "--patients", tmp_path / "who.csv"), "who.csv"),
    ):
        done = pleura("score", *words)
        assert done.returncode == 1  # type: ignore[attr-defined]
        assert done.stderr.count("\n") == 1  # type: ignore[attr-defined]
        assert told_of in done.stderr  # type: ignore[attr-defined]
    assert pleura("score", "--truth", truth, "--pred", truth, "--grid", "big").returncode == 2  # type: ignore[attr-defined]


def test_options_of_masks_that_are_not_there_are_refused(truth: Path, tmp_path: Path) -> None:
    pngs = write_pngs(tmp_path / "pngs", MASKS)
    with pytest.raises(InputError, match=r"^--grid: does nothing: it is of the runs of a csv"):
        scored(pngs, pngs, grid=(SIDE, SIDE))
    with pytest.raises(InputError, match=r"^--segment: does nothing: it is of DICOM-SEG"):
        scored(truth, pngs, segments=("1",))
