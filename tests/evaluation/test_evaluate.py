"""A report may not claim what is not so."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest
from places import sealed

from pleura.cli.evaluate import messages
from pleura.data.dataset import Dataset
from pleura.data.geometry import SquareGeometry
from pleura.data.prepare import PrepareSettings, prepare
from pleura.errors import CheckpointError, InputError, OutputError
from pleura.evaluation.compare import compare_models
from pleura.evaluation.evaluate import evaluate
from pleura.inference.predictor import Predictor
from pleura.models.checkpoint import load_checkpoint, update_header
from pleura.models.seen import SeenCases


@pytest.fixture(scope="module")
def scored(run, dataset, tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    return evaluate(run, dataset, resamples=50, out=out), json.loads((out / "report.json").read_text())


def test_the_floor_is_the_share_of_negatives_and_every_metric_has_an_interval(scored):
    done, document = scored
    assert done.report.floor == pytest.approx(done.report.negatives / (done.report.positives + done.report.negatives))
    assert set(document["metrics"]) >= {"siim_dice", "dice_on_positives", "sensitivity", "specificity", "auroc"}
    assert all({"value", "low", "high"} <= metric.keys() for metric in document["metrics"].values())


def test_the_scores_of_the_report_are_those_of_its_cases(scored):
    done, document = scored
    mean = sum(case["siim_dice"] for case in document["cases"]) / len(document["cases"])
    assert done.report.metrics["siim_dice"].value == pytest.approx(mean, abs=1e-6)


def test_the_pooled_dice_of_all_pixels_is_named_beside_the_mean(scored, run, dataset):
    done, document = scored
    predictor, data = Predictor.load(run), Dataset(dataset)
    ids = [case.image_id for case in data.cases]
    inside, sizes = 0, 0
    for each in document["cases"]:
        row = ids.index(each["image_id"])
        square = predictor.probabilities(data.images[row][None])[0]
        full = SquareGeometry(data.size_px, data.size_px, square.shape[0]).probabilities_to_original(square)
        found, mask = predictor.triplet.apply(full, data.size_px**2), data.masks([row])[0]
        inside, sizes = inside + int((found & mask).sum()), sizes + int(found.sum()) + int(mask.sum())
    assert done.report.pooled_dice == pytest.approx(2 * inside / sizes)
    assert document["pooled_dice"] == done.report.pooled_dice
    assert f"{done.report.pooled_dice:.4f}" in next(line for line in messages(done) if "Pooled Dice" in line)
    assert f"{done.report.pooled_dice:.4f}" in done.page.read_text().split("Pooled Dice")[1][:300]


def test_by_default_the_cases_are_those_the_model_was_chosen_on_and_the_report_says_so(scored, dataset):
    done, document = scored
    fold = {case.image_id for case in Dataset(dataset).cases if case.fold == 0}
    assert {case["image_id"] for case in document["cases"]} == fold
    assert done.report.triplet_tuned_on_these_cases
    assert "was chosen on" in done.report.split


def test_the_report_stands_alone(scored):
    done, _ = scored
    page = done.page.read_text()
    assert "src='data:image/jpeg" in page
    assert not re.search(r"<script[^>]+src|<link|@import|url\(", page)
    assert "http" not in page.replace("http-equiv", "")


def test_the_figures_of_the_report_are_files_too(scored):
    done, _ = scored
    names = {path.name for path in (done.page.parent / "figures").iterdir()}
    assert names == {f"{name}.svg" for name in ("dice", "roc", "pr", "froc", "calibration", "prevalence")}


def test_the_report_tells_groups_outlines_curves_calibration_and_other_prevalences(scored):
    _, document = scored
    assert {"lesion size", "side", "view", "sex", "age"} == {row["by"] for row in document["strata"]}
    assert document["surface"]["hd95_cases"] + document["surface"]["hd95_left_out"] == document["positives"]
    assert document["curves"]["roc"]["area"]["value"] == pytest.approx(document["metrics"]["auroc"]["value"])
    assert document["calibration"]["pixels"]["bins"]
    counts = document["decisions"]
    assert counts["true_positives"] + counts["false_negatives"] == document["positives"]
    assert counts["sensitivity"] == document["metrics"]["sensitivity"]


def test_the_lesions_of_the_froc_are_those_of_the_masks(scored, dataset):
    from scipy.ndimage import label

    _, document = scored
    data = Dataset(dataset)
    rows = [row for row, case in enumerate(data.cases) if case.fold == 0]
    assert document["curves"]["lesions"] == sum(label(mask, np.ones((3, 3)))[1] for mask in data.masks(rows))


def test_patients_that_are_in_training_too_are_told(run, dataset, tmp_path):
    copy = tmp_path / "dataset"
    shutil.copytree(dataset, copy)
    rows = list(csv.DictReader((copy / "cases.csv").read_text().splitlines()))
    with (copy / "cases.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(row | {"patient": "the same"} for row in rows)
    findings = evaluate(run, sealed(copy), resamples=10, out=tmp_path / "out").report.findings
    assert any("show a patient who is in training too" in finding.what for finding in findings)


def test_a_calibration_of_the_checkpoint_is_shown_beside_what_it_calibrates(run, dataset, tmp_path):
    from pleura.models.checkpoint import load_checkpoint, save_checkpoint

    calibration = {"temperature": 2.0, "image": [1.0, 1.0, 0.5], "method": "platt", "conformal": None}
    one = replace(load_checkpoint(run / "fold-0" / "best.safetensors"), calibration=calibration)
    save_checkpoint(tmp_path / "one.safetensors", one)
    evaluate(tmp_path / "one.safetensors", dataset, resamples=10, out=tmp_path)
    shown = json.loads((tmp_path / "report.json").read_text())["calibration"]
    assert set(shown) == {"image", "image_calibrated", "pixels", "pixels_calibrated"}


@pytest.mark.parametrize("split", ["train", "all"])
def test_cases_that_the_model_learned_from_are_never_scored_without_saying_so(run, dataset, tmp_path, split):
    assert (
        "learned from: this estimates nothing" in evaluate(run, dataset, split, resamples=10, out=tmp_path).report.split
    )


def test_the_training_data_is_known_again_when_it_was_prepared_anew(run, phantoms, tmp_path):
    settings = PrepareSettings(
        phantoms / "dicom", (phantoms / "masks.csv",), tmp_path / "d", size_px=64, folds=4, seed=1
    )
    prepare(settings)
    done = evaluate(run, tmp_path / "d", "all", resamples=10, out=tmp_path)
    assert "learned from" in done.report.split
    assert "was chosen on" in evaluate(run, tmp_path / "d", resamples=10, out=tmp_path).report.split


def test_a_dataset_of_another_prepared_size_is_refused_and_nothing_is_written(run, phantoms, tmp_path):
    prepare(PrepareSettings(phantoms / "dicom", (phantoms / "masks.csv",), tmp_path / "d", size_px=96, folds=4))
    message = r"was prepared at 96 px, the model at 64 px; .* prepare it with --size 64$"
    with pytest.raises(InputError, match=message):
        evaluate(run, tmp_path / "d", "all", out=tmp_path / "report")
    assert not (tmp_path / "report" / "report.json").exists()
    with pytest.raises(InputError, match=message):
        compare_models(run, run / "fold-0" / "last.safetensors", tmp_path / "d")


def test_models_of_two_prepared_sizes_are_compared_by_their_masks(run, dataset, tmp_path):
    best = run / "fold-0" / "best.safetensors"
    preprocessing = load_checkpoint(best).preprocessing
    update_header(best, {"preprocessing": {**asdict(preprocessing), "prepared_px": 96}}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"prepared at 64 px, .* at 96 px, .* pleura compare .* --truth"):
        compare_models(best, tmp_path / "other.safetensors", dataset)


def test_cases_that_no_training_met_are_called_new(run, tmp_path):
    from pleura.data.phantoms.dicom_files import write_phantom_dataset

    write_phantom_dataset(tmp_path / "new", n_patients=12, seed=9, size_px=64)
    prepare(
        PrepareSettings(
            tmp_path / "new" / "dicom", (tmp_path / "new" / "masks.csv",), tmp_path / "d", size_px=64, folds=2
        )
    )
    done = evaluate(run, tmp_path / "d", resamples=10, out=tmp_path)
    assert "new to the model" in done.report.split
    assert not done.report.triplet_tuned_on_these_cases
    with pytest.raises(InputError, match="--split all"):
        evaluate(run, tmp_path / "d", "val", out=tmp_path)


def test_a_run_of_several_folds_is_not_scored_on_its_own_training_data(run, dataset, tmp_path):
    from pleura.models.checkpoint import load_checkpoint, save_checkpoint

    one = load_checkpoint(run / "fold-0" / "best.safetensors")
    save_checkpoint(tmp_path / "fold-0" / "best.safetensors", one)
    turned = SeenCases(one.seen.val, one.seen.train)
    save_checkpoint(tmp_path / "fold-1" / "best.safetensors", replace(one, seen=turned))
    with pytest.raises(InputError, match="one at a time"):
        evaluate(tmp_path, dataset)


def test_a_report_that_cannot_be_written_is_refused_before_the_work(run, dataset, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="choose another --out"):
        evaluate(run, dataset, out=tmp_path / "file")


def test_a_mistyped_model_leaves_no_folder(dataset, tmp_path):
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        evaluate(tmp_path / "rnu" / "best.safetensors", dataset)
    assert list(tmp_path.iterdir()) == []


def test_tuning_is_reported_with_what_it_keeps(scored):
    done, _ = scored
    assert (
        done.report.tuned.cross_fitted is None or done.report.tuned.cross_fitted <= done.report.tuned.in_sample + 1e-9
    )
    assert not math.isnan(done.report.tuned.in_sample)


def test_the_report_says_what_was_computed_in_and_its_command_gives_the_same_elsewhere(run, dataset, tmp_path):
    from pleura.inference.precision import use_precision

    use_precision("bfloat16")
    try:
        report = evaluate(run, dataset, resamples=2, out=tmp_path).report
    finally:
        use_precision(None)
    assert report.precision == json.loads((tmp_path / "report.json").read_text())["precision"] == "bfloat16"
    assert "--precision bfloat16" in report.command
    assert report.computed_in.startswith("bfloat16 (as asked for); --precision float32 gives the same on every machine")
    exact = evaluate(run, dataset, resamples=2, out=tmp_path).report
    assert (exact.precision, "--precision float32" in exact.command) == ("float32", True)
    assert exact.metrics["auroc"].value == pytest.approx(report.metrics["auroc"].value, abs=0.05)
