"""What bfloat16 changes is measured, written into headers by tune and recalibrate, and decides what `auto` takes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from shown import shown

from pleura.cli.recalibrate import messages as of_recalibrate
from pleura.cli.tune import messages as of_tune
from pleura.data.dataset import Dataset
from pleura.decision.search import Histograms
from pleura.decision.triplet import Triplet
from pleura.evaluation.bfloat16 import BothScores
from pleura.evaluation.evaluate import evaluate
from pleura.evaluation.recalibrate import SiteSettings, recalibrate
from pleura.evaluation.scoring import CaseScores, measure_cases
from pleura.evaluation.tune import TuneSettings, tune
from pleura.export.pack import pack
from pleura.inference.precision import use_precision
from pleura.inference.predictor import Predictor
from pleura.models.checkpoint import load_checkpoint, save_checkpoint
from pleura.models.identity import weights_hash

NEW = TuneSettings(resamples=10, split="all")


@pytest.fixture
def own(run: Path, tmp_path: Path) -> Path:
    """A checkpoint that may be written to; its recipe leaves the precision to `auto`."""
    checkpoint = load_checkpoint(run / "fold-0" / "best.safetensors")
    save_checkpoint(
        tmp_path / "own.safetensors", replace(checkpoint, recipe={**checkpoint.recipe, "precision": "auto"})
    )
    return tmp_path / "own.safetensors"


@pytest.fixture
def few_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dozen cases, which datasets of tests have."""
    monkeypatch.setattr("pleura.models.bfloat16.FEWEST_CASES", 10)


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


def scores_of(*probabilities: list[float]) -> CaseScores:
    """Cases of four pixels; the upper two are the true mask of all but the last."""
    full = np.array(probabilities, dtype=np.float32).reshape(-1, 2, 2)
    masks = np.zeros(full.shape, dtype=np.uint8)
    masks[:-1, 0] = 1
    return CaseScores(Histograms.of(full, masks), full.max((1, 2)).astype(np.float64))


def test_dice_decisions_and_scores_are_compared_case_by_case(own: Path):
    exact = scores_of([0.9, 0.9, 0.1, 0.1], [0.9, 0.1, 0.1, 0.1], [0.2, 0.2, 0.2, 0.2])
    fast = scores_of([0.9, 0.9, 0.6, 0.1], [0.4, 0.1, 0.1, 0.1], [0.7, 0.2, 0.2, 0.2])
    checkpoint = replace(load_checkpoint(own), triplet=Triplet(0.5, 0, 0.5))
    change = BothScores(exact, fast, "none", "cpu").change(checkpoint, "abc")
    assert change is not None
    # Dice of the positives: 1 and 2/3 before, 4/5 and 0 after. The second and the third case change sides.
    assert change.dice_on_positives == pytest.approx((1 + 2 / 3) / 2)
    assert change.dice_change == pytest.approx(0.4 - (1 + 2 / 3) / 2)
    assert (change.decisions_changed, change.cases, change.positives) == (2, 3, 2)
    assert change.largest_score_change == pytest.approx(0.5, abs=1e-6)
    assert (change.weights_sha256, change.data_sha256) == (weights_hash(checkpoint.weights), "abc")


def test_without_a_positive_nothing_is_shown(own: Path):
    scores = scores_of([0.1, 0.1, 0.1, 0.1])
    assert BothScores(scores, scores, "none", "cpu").change(load_checkpoint(own), "abc") is None


@pytest.mark.usefixtures("bfloat16_is_faster", "few_are_enough")
def test_a_rule_whose_decisions_change_is_refused_and_one_of_the_same_net_whose_do_not_is_allowed(
    own: Path, site: Path
):
    data, bare = Dataset(site), load_checkpoint(own)
    indices = np.arange(len(data))
    predictor = Predictor([bare], precision="float32")
    both = BothScores.measured(bare, measure_cases(predictor, data, indices), data, indices)
    assert both is not None
    found = {}
    for level in range(1, 256):
        checkpoint = replace(bare, triplet=Triplet(level / 256, 0, level / 256))
        change = both.change(checkpoint, data.data_hash)
        assert change is not None
        found[change.excess is None] = replace(checkpoint, bfloat16=change)
    for is_small, checkpoint in found.items():
        assert Predictor([checkpoint]).precision == ("bfloat16" if is_small else "float32")
        assert Predictor([checkpoint], precision="bfloat16").precision == "bfloat16"
        exact, fast = (
            measure_cases(Predictor([checkpoint], precision=name), data, indices).by(checkpoint.triplet)
            for name in ("float32", "bfloat16")
        )
        changed = int((exact.predicted_positive != fast.predicted_positive).sum())
        assert changed == checkpoint.bfloat16.decisions_changed
    assert found.keys() == {True, False}


@pytest.mark.usefixtures("bfloat16_is_faster")
def test_tune_writes_it_by_the_new_rule_and_what_it_tunes_is_that_of_every_machine(
    own: Path, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    done = tune(own, site, NEW)
    (change,) = done.bfloat16.values()
    after = load_checkpoint(own)
    assert after.bfloat16 == change
    assert change.triplet == json.loads((tmp_path / "tune.json").read_text())["triplet"]
    assert (change.cases, change.data_sha256) == (done.cases, Dataset(site).data_hash)
    assert 0 < change.largest_score_change < 0.05
    assert [line for line in of_tune(done) if "bfloat16" in line] == [f"  {change.verdict}"]
    assert Predictor([after]).precisions[0].why == change.verdict  # of too few cases
    monkeypatch.setattr("pleura.models.bfloat16.FEWEST_CASES", 10)
    monkeypatch.setattr("pleura.models.bfloat16.MOST_DICE_CHANGE", 0.05)
    monkeypatch.setattr("pleura.models.bfloat16.MOST_DECISIONS_CHANGED", 0.1)
    assert Predictor([load_checkpoint(own)]).precision == "bfloat16"
    report = evaluate(own, site, resamples=2).report
    assert report.precision == "bfloat16"
    assert report.computed_in.startswith(f"bfloat16 (which {change.in_words}; a prediction")
    assert report.computed_in.replace("'", "&#x27;") in (tmp_path / "report.html").read_text()
    # A machine without bfloat16 tunes the same, and leaves what another has measured.
    monkeypatch.setattr("pleura.inference.precision.bfloat16_units", tuple)
    again = tune(own, site, NEW)
    assert (again.new, again.calibration, again.bfloat16) == (done.new, done.calibration, {})
    assert load_checkpoint(own).bfloat16 == change


def test_asked_for_bfloat16_is_tuned_in_and_measured_on_any_cpu(own: Path, site: Path):
    use_precision("bfloat16")
    done = tune(own, site, NEW)
    (change,) = done.bfloat16.values()
    predictor, data = Predictor.load(own), Dataset(site)
    assert predictor.precision == "bfloat16"
    summary = measure_cases(predictor, data, np.arange(len(data))).by(done.new).summary()
    assert done.in_sample == pytest.approx(summary["siim_dice_at_siim_prevalence"], abs=1e-9)
    assert change.dice_on_positives + change.dice_change == pytest.approx(summary["dice_on_positives"], abs=1e-9)


@pytest.mark.usefixtures("bfloat16_is_faster")
def test_folds_of_a_run_are_measured_apart_and_an_ensemble_not_at_all(own: Path, site: Path, tmp_path: Path):
    from pleura.models.seen import SeenCases, case_key

    keys, one = [case_key(case.image_id) for case in Dataset(site).cases], load_checkpoint(own)
    files = [tmp_path / "run" / f"fold-{fold}" / "best.safetensors" for fold in (0, 1)]
    for fold, file in enumerate(files):
        file.parent.mkdir(parents=True)
        save_checkpoint(file, replace(one, seen=SeenCases(tuple(keys[1 - fold :: 2]), tuple(keys[fold::2]))))
    done = tune(tmp_path / "run", site, TuneSettings(resamples=10))
    assert [load_checkpoint(file).bfloat16 for file in files] == list(done.bfloat16.values())
    assert sum(change.cases for change in done.bfloat16.values()) == done.cases
    lines = [line for line in of_tune(done) if "bfloat16" in line]
    assert [line.split(": ")[0].strip() for line in lines] == [str(file) for file in files]
    ensemble = {"format": 1, "members": [{"folder": "run", "weight": 1}], "triplet": None}
    (tmp_path / "ensemble.json").write_text(json.dumps(ensemble))
    assert tune(tmp_path, site, TuneSettings(resamples=10)).bfloat16 == {}


@pytest.mark.usefixtures("bfloat16_is_faster")
def test_recalibrate_measures_the_moved_rule_on_the_local_cases(own: Path, site: Path, tmp_path: Path):
    done = recalibrate(own, site, tmp_path / "site.safetensors", SiteSettings(resamples=10))
    moved = load_checkpoint(done.out)
    assert done.bfloat16 is not None
    assert moved.bfloat16 == done.bfloat16
    assert Triplet.of(done.bfloat16.triplet) == moved.triplet
    assert f"  {done.bfloat16.verdict}" in of_recalibrate(done)


@pytest.mark.usefixtures("bfloat16_is_faster")
def test_packed_weights_are_other_weights_and_packed_again_the_same(own: Path, tmp_path: Path):
    save_checkpoint(own, shown(load_checkpoint(own)))
    once, twice = tmp_path / "once.safetensors", tmp_path / "twice.safetensors"
    pack(own, once)
    assert Predictor.load(own).precision == "bfloat16"
    assert "measured with other weights" in Predictor.load(once).precisions[0].why
    save_checkpoint(once, shown(load_checkpoint(once)))
    pack(once, twice)
    assert Predictor.load(twice).precision == "bfloat16"
