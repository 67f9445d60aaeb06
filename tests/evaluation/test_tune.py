"""Tuning writes what it promises into the model, and promises no more than it keeps."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from pleura.data.dataset import Dataset
from pleura.decision.calibration import Calibration, RuleOut
from pleura.decision.objectives import Objective
from pleura.decision.triplet import NOTHING, Triplet
from pleura.errors import CheckpointError, InputError, OutputError
from pleura.evaluation.evaluate import evaluate
from pleura.evaluation.fitting import measure
from pleura.evaluation.recalibrate import SiteSettings, local_weight, recalibrate, shrink_calibration, shrink_triplet
from pleura.evaluation.tune import TuneSettings, tune
from pleura.inference.predictor import Predictor
from pleura.models.checkpoint import load_checkpoint, save_checkpoint
from pleura.models.seen import SeenCases, case_key

FEW = TuneSettings(resamples=10)
NEW = replace(FEW, split="all")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of cases that no training met."""
    from pleura.data.phantoms.dicom_files import write_phantom_dataset
    from pleura.data.prepare import PrepareSettings, prepare

    folder = tmp_path_factory.mktemp("site")
    write_phantom_dataset(folder, n_patients=24, seed=41, size_px=64)
    masks = (folder / "masks.csv",)
    prepare(PrepareSettings(folder / "dicom", masks, folder / "dataset", size_px=64, folds=2, workers=1))
    return folder / "dataset"


@pytest.fixture
def own(run: Path, tmp_path: Path) -> Path:
    """A run that may be written to."""
    (tmp_path / "run" / "fold-0").mkdir(parents=True)
    shutil.copy(run / "fold-0" / "best.safetensors", tmp_path / "run" / "fold-0")
    return tmp_path / "run"


def tensors(path: Path) -> bytes:
    content = path.read_bytes()
    return content[8 + int.from_bytes(content[:8], "little") :]


def two_folds(own: Path, data: Path) -> list[Path]:
    """The one net as two folds that were chosen on the even and on the odd cases."""
    keys = [case_key(case.image_id) for case in Dataset(data).cases]
    one = load_checkpoint(own / "fold-0" / "best.safetensors")
    files = [own / f"fold-{fold}" / "best.safetensors" for fold in (0, 1)]
    for fold, file in enumerate(files):
        save_checkpoint(file, replace(one, seen=SeenCases(tuple(keys[1 - fold :: 2]), tuple(keys[fold::2]))))
    return files


def test_the_triplet_and_the_calibration_are_in_the_file_and_the_tensors_are_untouched(own, site):
    file = own / "fold-0" / "best.safetensors"
    before = load_checkpoint(file), tensors(file)
    done = tune(file, site, NEW)
    after = load_checkpoint(file)
    assert after.triplet == done.new
    assert after.calibration == done.calibration
    assert tensors(file) == before[1]
    assert (after.recipe, after.provenance, after.model) == (
        before[0].recipe,
        before[0].provenance,
        before[0].model,
    )
    told = after.scores["tuned"]
    assert told["objective"]["name"] == "siim_dice"
    assert told["data_sha256"] == Dataset(site).data_hash
    assert told["nested"][0] == done.nested.value
    assert done.written == [file, file.parent / "tune.json", file.parent / "tune.png"]


def test_the_score_in_sample_is_the_best_and_the_nested_one_below_it(own, site):
    done = tune(own, site, NEW)
    assert done.in_sample >= done.old_score - 1e-9
    assert done.in_sample >= done.nested.value - 1e-9
    assert done.optimism == pytest.approx(done.in_sample - done.nested.value)
    assert len(done.spread.triplets) == 10


def test_the_cases_of_a_tuning_are_known_again_by_evaluate(own, site):
    assert "new to the model" in evaluate(own, site, resamples=10).report.split
    done = tune(own, site, NEW)
    scored = evaluate(own, site, resamples=10).report
    assert "was chosen on" in scored.split
    assert scored.triplet_tuned_on_these_cases
    assert scored.metrics["siim_dice_at_siim_prevalence"].value == pytest.approx(done.in_sample, abs=1e-6)


def test_cases_that_the_model_learned_from_are_refused(own, dataset, site):
    with pytest.raises(InputError, match="learned from"):
        tune(own, dataset, NEW)
    with pytest.raises(InputError, match="--split all"):
        tune(own, site, FEW)


def test_a_tuned_copy_brings_files_of_its_own_name_and_leaves_those_of_others(own, site, tmp_path):
    file, folder = own / "fold-0" / "best.safetensors", tmp_path / "shelf"
    folder.mkdir()
    others = [folder / name for name in ("other.safetensors", "tune.json", "tune.png")]
    for other in others:
        other.write_text("another model's")
    mine = [folder / name for name in ("mine.safetensors", "mine.tune.json", "mine.tune.png")]
    assert tune(file, site, NEW, mine[0]).written == mine
    assert all(each.stat().st_size for each in mine)
    assert {other.read_text() for other in others} == {"another model's"}
    for kept in mine[1:]:
        mine[0].unlink(missing_ok=True)
        with pytest.raises(OutputError, match=f"{kept.name}: is there already; choose another --out"):
            tune(file, tmp_path / "refused before the data are read", NEW, mine[0])
        kept.unlink()


def test_too_few_patients_are_refused_and_the_file_stays_as_it_was(own, dataset):
    file = own / "fold-0" / "best.safetensors"
    before = file.read_bytes()
    with pytest.raises(InputError, match="too few to tune on"):
        tune(own, dataset, FEW)
    assert file.read_bytes() == before


def test_a_run_of_several_folds_is_tuned_out_of_fold_and_written_to_each(own, site):
    files = two_folds(own, site)
    done = tune(own, site, FEW)
    assert done.written == [*files, own / "tune.json", own / "tune.png"]
    assert [load_checkpoint(file).triplet for file in files] == [done.new] * 2
    assert done.cases == len(Dataset(site))
    found = Predictor.load(own)
    assert found.triplet == done.new
    assert found.calibration == Calibration.of(done.calibration)


def test_folds_that_share_validation_cases_are_refused(own, site):
    files = two_folds(own, site)
    first = load_checkpoint(files[0])
    both = sorted({*first.seen.val, load_checkpoint(files[1]).seen.val[0]})
    save_checkpoint(files[0], replace(first, seen=SeenCases(val=tuple(both))))
    with pytest.raises(InputError, match="share validation cases"):
        tune(own, site, FEW)


def test_the_rule_of_an_ensemble_is_in_its_own_file(own, site, tmp_path):
    folder = tmp_path / "both"
    members = [{"folder": name, "weight": weight} for name, weight in (("a", 1), ("b", 3))]
    for member in members:
        shutil.copytree(own, folder / str(member["folder"]))
    document = {"format": 1, "name": "both", "members": members, "triplet": None, "pleura": "0"}
    (folder / "ensemble.json").write_text(json.dumps(document))
    before = (folder / "a" / "fold-0" / "best.safetensors").read_bytes()
    done = tune(folder, site, NEW)
    written = json.loads((folder / "ensemble.json").read_text())
    assert written["triplet"] == asdict(done.new)
    assert written["members"] == members
    assert done.written[0] == folder / "ensemble.json"
    assert (folder / "a" / "fold-0" / "best.safetensors").read_bytes() == before
    scored = evaluate(folder, site, resamples=10).report
    assert "was chosen on" in scored.split
    assert scored.triplet_tuned_on_these_cases
    assert Predictor.load(folder).calibration == Calibration.of(done.calibration)


def test_the_picture_of_the_score_is_beside_the_model(own, site):
    done = tune(own, site, replace(NEW, objective=Objective("youden")))
    told = json.loads((own / "tune.json").read_text())
    grid = np.array(told["score_by_top_and_bottom"], dtype=float)
    assert grid.shape == (64, 64)
    assert np.nanmax(grid) <= done.in_sample + 1e-6
    assert len(told["score_by_top_and_min_pixels"][0]) == len(told["min_pixels"])


def test_a_dataset_of_another_size_is_told(own, phantoms, tmp_path):
    from pleura.data.prepare import PrepareSettings, prepare

    masks = (phantoms / "masks.csv",)
    prepare(PrepareSettings(phantoms / "dicom", masks, tmp_path / "d", size_px=32, folds=2, workers=1))
    with pytest.raises(InputError, match="--size 64"):
        measure(Predictor.load(own), Dataset(tmp_path / "d"), np.arange(4))


def test_the_command_tells_the_triplets_what_to_expect_and_the_files(own, site, pleura):
    done = pleura("tune", own, "--data", site, "--split", "all", "--resamples", 10, "--objective", "expected_cost")
    assert done.returncode == 0
    for words in ("triplet before", "in sample", "on patients it was not tuned on", "calibration", "too few", "wrote"):
        assert words in done.stdout
    refused = pleura("tune", own, "--data", site, "--prevalence", 2)
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)


# --- what the Predictor makes of it


def test_the_triplet_finds_the_same_with_a_calibration_and_without(own, site):
    file = own / "fold-0" / "best.safetensors"
    plain = replace(load_checkpoint(file), triplet=Triplet(0.3, 0, 0.3))
    header = Calibration(3.0, (0.5, 0.5, -1.0), "platt", RuleOut(0.9999, 0.05, 0.95, 60)).header()
    image = Dataset(site).images[0]
    before, after = (Predictor([one]).predict(image) for one in (plain, replace(plain, calibration=header)))
    assert np.array_equal(before.predicted_mask, after.predicted_mask)
    assert np.array_equal(before.probabilities, after.probabilities)
    assert before.score == after.score
    assert (before.probability, before.ruled_out) == (None, None)
    assert after.probability == pytest.approx(float(Calibration.of(header).images(after.score)))
    assert after.ruled_out
    calibrated = Predictor([plain], calibration=header).calibrated(after.probabilities)
    assert (np.abs(calibrated - 0.5) <= np.abs(after.probabilities - 0.5) + 1e-6).all()  # 3 is less sure


def test_a_mean_of_models_with_different_calibrations_has_none(own):
    one = load_checkpoint(own / "fold-0" / "best.safetensors")
    parts = [replace(one, calibration=Calibration(degree).header()) for degree in (1.0, 2.0)]
    assert Predictor(parts).calibration is None
    assert Predictor([parts[1], parts[1]]).calibration == Calibration(2.0)


def test_a_damaged_calibration_is_a_checkpoint_error(own):
    one = load_checkpoint(own / "fold-0" / "best.safetensors")
    with pytest.raises(CheckpointError, match="pleura tune"):
        Predictor([replace(one, calibration={"temperature": 1.0})])


# --- the site kit


def test_local_cases_weigh_by_the_number_of_the_rarer_class():
    assert local_weight(np.array([True] * 50 + [False] * 500)) == 0.5
    assert local_weight(np.array([True] * 500 + [False] * 50)) == 0.5
    assert local_weight(np.zeros(9, dtype=bool)) == 0


def test_shrinking_goes_from_the_shipped_to_the_local_values():
    local, former = Triplet(0.5, 99, 0.25), Triplet(0.75, 9999, 0.5)
    assert shrink_triplet(local, former, 0) == former
    assert shrink_triplet(local, former, 1) == local
    assert shrink_triplet(local, former, 0.5) == Triplet(0.625, 999, 0.375)  # pixels by their logarithm
    assert shrink_triplet(NOTHING, former, 0.5) == former
    assert shrink_triplet(local, NOTHING, 0.5) == NOTHING
    half = shrink_calibration(Calibration(4.0, (2.0, 2.0, 1.0)), Calibration(1.0, (1.0, 1.0, 0.0)), 0.5)
    assert (half.temperature, half.image) == (pytest.approx(2.0), (1.5, 1.5, 0.5))


def test_the_site_kit_writes_a_copy_and_says_what_to_expect(own, site, tmp_path):
    file, out = own / "fold-0" / "best.safetensors", tmp_path / "site.safetensors"
    before = file.read_bytes()
    done = recalibrate(file, site, out, SiteSettings(resamples=50))
    assert file.read_bytes() == before
    assert tensors(out) == tensors(file)
    made = load_checkpoint(out)
    assert made.triplet == done.new
    assert done.new in (done.former, shrink_triplet(done.local, done.former, done.weight))
    assert made.scores["recalibrated"]["gain"] == [done.gain.value, done.gain.low, done.gain.high]
    assert done.gain.low <= done.gain.value <= done.gain.high
    assert Predictor.load(out).calibration == Calibration.of(done.calibration)
    assert "was chosen on" in evaluate(out, site, resamples=10).report.split


def test_the_site_kit_refuses_what_it_cannot_do(own, site, dataset, tmp_path):
    file = own / "fold-0" / "best.safetensors"
    with pytest.raises(CheckpointError, match="name one checkpoint"):
        recalibrate(own, site, tmp_path / "o")
    with pytest.raises(OutputError, match="there already"):
        recalibrate(file, site, file)
    with pytest.raises(InputError, match="learned from"):
        recalibrate(file, dataset, tmp_path / "o")
    with pytest.raises(InputError, match="--alpha"):
        SiteSettings(alpha=0.0)


def test_the_command_of_the_site_kit_tells_weight_gain_and_file(own, site, tmp_path, pleura):
    file, out = own / "fold-0" / "best.safetensors", tmp_path / "site.safetensors"
    done = pleura("recalibrate", file, "--data", site, "--out", out)
    assert done.returncode == 0
    for words in ("they weigh", "triplet before", "gain by moving", "not fitted on", f"wrote {out}"):
        assert words in done.stdout
