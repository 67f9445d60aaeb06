"""The whole flow on small phantoms, as a user types it."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from PIL import Image
from places import SMOKE

import pleura as package
from pleura.data.dataset import Dataset
from pleura.data.mask_csv import read_table
from pleura.inference.predictor import Predictor
from pleura.models.checkpoint import load_checkpoint


def rows_of(path):
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.fixture(scope="module")
def predictions(run, phantoms, tmp_path_factory):
    from pleura.inference.batch import BatchSettings, model_name, predict_batch

    out = tmp_path_factory.mktemp("predictions")
    result = predict_batch(Predictor.load(run), BatchSettings((str(phantoms / "dicom"),), out, model_name(run)))
    return out, result


def test_prepared_data_can_be_read_with_csv_and_numpy_alone(dataset):
    cases = rows_of(dataset / "cases.csv")
    images = np.load(dataset / "images.npy")
    card = json.loads((dataset / "card.json").read_text())
    assert images.dtype == np.uint8
    assert images.shape == (len(cases), 64, 64)
    assert card["cases"] == len(cases)
    assert card["positive"] == sum(case["has_pneumothorax"] == "1" for case in cases) > 0


def test_no_patient_is_in_two_folds(dataset):
    folds = {}
    for case in Dataset(dataset).cases:
        folds.setdefault(case.patient, set()).add(case.fold)
    assert len(folds) == 24
    assert all(len(fold) == 1 for fold in folds.values())


def test_a_run_leaves_checkpoints_a_table_and_a_log_a_person_can_read(run):
    fold = run / "fold-0"
    assert {path.name for path in fold.iterdir()} >= {
        "best.safetensors", "last.safetensors", "low.safetensors", "high.safetensors", "metrics.csv", "log.txt",
        "recipe.yaml", "state", "curves.svg", "curves.png", "averages.csv", "samples",
    }  # fmt: skip
    rows = rows_of(fold / "metrics.csv")
    assert [row["stage"] for row in rows] == ["low", "high"]
    assert "SIIM Dice" in (fold / "log.txt").read_text()


def test_a_checkpoint_says_all_that_is_needed_to_judge_it(run, dataset):
    checkpoint = load_checkpoint(run / "fold-0" / "best.safetensors")
    assert checkpoint.provenance["data_sha256"] == Dataset(dataset).data_hash
    assert checkpoint.provenance["stage"] == "high"
    assert "tuned on the same cases" in checkpoint.scores["split"]
    assert checkpoint.model.pretrained is False


def test_the_second_stage_starts_from_the_best_weights_of_the_first(dataset, tmp_path):
    from pleura.config.parse import load_recipe
    from pleura.training.train import train

    overrides = ["stages.high.lr=1e-12", "stages.high.schedule.name=constant", "stages.high.size_px=32"]
    fold = train(load_recipe(SMOKE, overrides), Dataset(dataset), tmp_path)
    low, high = (load_checkpoint(fold / f"{name}.safetensors").weights["head.weight"] for name in ("low", "high"))
    np.testing.assert_allclose(low.numpy(), high.numpy(), atol=1e-8)


def test_predict_writes_every_mask_on_its_radiographs_own_grid(predictions, phantoms):
    out, result = predictions
    assert result.predicted == len(list((phantoms / "dicom").iterdir())) == len(list((out / "masks").iterdir()))
    with Image.open(next((out / "masks").iterdir())) as png:
        mask = np.asarray(png)
    assert mask.shape == (96, 96)
    assert set(np.unique(mask)) <= {0, 255}


def test_the_tables_agree_with_the_masks(predictions):
    out, _ = predictions
    runs = read_table(out / "masks.csv").runs
    for row in rows_of(out / "predictions.csv"):
        with Image.open(out / "masks" / f"{row['image_id']}.png") as png:
            mask = np.asarray(png) > 0
        assert int(row["area_px"]) == mask.sum()
        assert (row["is_positive"] == "1") == mask.any() == (runs[row["image_id"]] != ["-1"])
        assert (row["side"] == "") == (not mask.any())


def test_the_area_is_given_in_mm2_only_where_the_spacing_is_known(run, phantoms):
    predictor = Predictor.load(run)
    predictions = [predictor.predict(path) for path in sorted((phantoms / "dicom").iterdir())]
    known = [prediction.radiograph.pixel_spacing_mm is not None for prediction in predictions]
    assert [prediction.area_mm2 is not None for prediction in predictions] == known


def test_load_and_predict_are_all_that_python_needs(run, phantoms):
    predictor = package.load(run / "fold-0" / "best.safetensors")
    prediction = predictor.predict(next((phantoms / "dicom").iterdir()))
    assert prediction.probabilities.shape == prediction.predicted_mask.shape == (96, 96)
    assert 0 <= prediction.score <= 1


def test_an_array_and_the_file_it_was_saved_as_get_the_same_prediction(run, tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (70, 50), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "a.png")
    predictor = Predictor.load(run)
    np.testing.assert_array_equal(
        predictor.predict(image).probabilities, predictor.predict(tmp_path / "a.png").probabilities
    )


def test_evaluation_and_prediction_see_the_same_probabilities(run, dataset, phantoms):
    predictor, prepared = Predictor.load(run), Dataset(dataset)
    case = prepared.cases[0]
    square = predictor.probabilities(prepared.images[:1])[0]
    prediction = predictor.predict(phantoms / "dicom" / case.source)
    assert abs(prediction.score - float(np.sort(square.ravel())[-4:].mean())) < 1e-5


def test_flip_tta_gives_a_mirrored_image_the_mirrored_probabilities(run):
    image = np.random.default_rng(1).integers(0, 256, (64, 64), dtype=np.uint8)
    predictor = Predictor.load(run, tta="flip")
    left, right = predictor.predict(image), predictor.predict(np.ascontiguousarray(image[:, ::-1]))
    np.testing.assert_allclose(left.probabilities, right.probabilities[:, ::-1], atol=1e-5)


def test_several_folds_are_averaged(run, tmp_path):
    for fold in (0, 1):
        (tmp_path / f"fold-{fold}").mkdir()
        (tmp_path / f"fold-{fold}" / "best.safetensors").write_bytes((run / "fold-0" / "best.safetensors").read_bytes())
    image = np.random.default_rng(2).integers(0, 256, (64, 64), dtype=np.uint8)
    one, mean = Predictor.load(run).predict(image), Predictor.load(tmp_path).predict(image)
    np.testing.assert_allclose(one.probabilities, mean.probabilities, atol=1e-6)


def test_an_epoch_can_be_shortened_and_then_shows_other_cases_each_time(dataset, tmp_path, monkeypatch):
    import pleura.training.batches as module
    from pleura.config.parse import load_recipe
    from pleura.training.train import train

    shown: list[tuple[int, ...]] = []

    def seen(data, order, batch_size):
        shown.append(tuple(order.tolist()))
        return package.data.loader.batches(data, order, batch_size)

    monkeypatch.setattr(module, "batches", seen)
    overrides = ["training.cases_per_epoch=8", "stages.low.epochs=2", "stages.high.epochs=1"]
    train(load_recipe(SMOKE, overrides), Dataset(dataset), tmp_path)
    epochs = [order for order in shown if len(order) == 8]
    assert len(set(epochs)) == len(epochs) == 3
