"""What the command line prints and exits with."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from typing import get_args

import pytest
from places import ROOT, SMOKE


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("work")


def refused(done, *words):
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("pleura: ")
    assert all(str(word) in done.stderr for word in words), done.stderr


def test_help_imports_no_torch():
    code = "import sys, pleura.cli as c; c.app(['--help'], standalone_mode=False); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT).returncode == 0


def test_every_command_has_help_with_an_example(pleura):
    for verb in ("prepare", "train", "evaluate", "predict", "recipes", "demo", "doctor"):
        done = pleura(verb, "--help")
        assert done.returncode == 0
        assert f"Example: pleura {verb}" in done.stdout


def test_options_take_the_words_of_their_verbs():
    # The command line names them again, because --help imports no verb.
    from pleura.cli import import_weights, options
    from pleura.cli import score as scoring
    from pleura.cli import tune as tuning
    from pleura.config.model import ModelConfig
    from pleura.config.recipe import Recipe
    from pleura.data import dataset
    from pleura.decision import calibration
    from pleura.decision.objectives import OBJECTIVES
    from pleura.evaluation import score, tune
    from pleura.inference.precision import Asked

    for option, values in (
        (options.SplitName, dataset.Split),
        (options.Tta, Recipe.model_fields["tta"].annotation),
        (options.PrecisionName, Recipe.model_fields["precision"].annotation),
        (options.PrecisionName, Asked),
        (import_weights.Architecture, ModelConfig.model_fields["architecture"].annotation),
        (import_weights.InputScaling, ModelConfig.model_fields["input_scaling"].annotation),
        (scoring.Scored, score.Cases),
        (tuning.TunedOn, tune.Part),
        (tuning.Scaling, calibration.Method),
    ):
        assert set(get_args(option)) == set(get_args(values)), option
    assert set(get_args(options.ObjectiveName)) == set(OBJECTIVES)


def test_wrong_usage_exits_with_2(pleura):
    assert pleura("prepare").returncode == 2
    assert pleura("predict", "x.png", "--out", "o", "--model", "m", "--write", "hologram").returncode == 2


def test_prepare_says_what_it_made_and_train_evaluate_predict_follow(pleura, phantoms, work):
    data, run, found = work / "data", work / "run", work / "found"
    asked = ("--images", phantoms / "dicom", "--masks", phantoms / "masks.csv", "--out", data)
    done = pleura("prepare", *asked, "--size", 64, "--folds", 3)
    assert done.returncode == 0, done.stderr
    assert "24 patients" in done.stdout
    assert "(0.0 %)" in done.stdout
    done = pleura("train", SMOKE, "training.lr=1e-3", "--data", data, "--out", run)
    assert done.returncode == 0, done.stderr
    assert "AUROC" in done.stdout
    done = pleura("evaluate", run, "--data", data, "--resamples", 50)
    assert done.returncode == 0, done.stderr
    assert all(word in done.stdout for word in ("floor 0.", "Dice on positives", "95 %", "tuned on these very cases"))
    assert json.loads((run / "report.json").read_text())["floor"] > 0
    assert (run / "report.html").read_text().startswith("<!doctype html>")
    done = pleura("predict", phantoms / "dicom", "--model", run, "--out", found, "--tta", "flip")
    assert done.returncode == 0, done.stderr
    assert "not a medical device" in done.stdout


def test_a_bad_file_does_not_stop_prepare_and_the_exit_code_says_so(pleura, phantoms, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for path in sorted((phantoms / "dicom").iterdir())[:10]:
        (images / path.name).write_bytes(path.read_bytes())
    whole = next(images.iterdir())
    whole.write_bytes(whole.read_bytes()[:900])
    (images / "stranger.dcm").write_bytes(next(images.iterdir()).read_bytes())
    asked = ("--images", images, "--masks", phantoms / "masks.csv", "--out", tmp_path / "data", "--size", 64)
    done = pleura("prepare", *asked, "--folds", 2)
    assert done.returncode == 1
    assert "9 cases" in done.stdout
    assert f"1 quarantined: {whole.name}" in done.stdout
    assert "1 unlabelled: stranger.dcm" in done.stdout
    assert "1 equal pixels" not in done.stdout


def test_a_bad_file_does_not_stop_predict(pleura, phantoms, run, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for path in sorted((phantoms / "dicom").iterdir())[:3]:
        (images / path.name).write_bytes(path.read_bytes())
    (images / "a.dcm").write_text("not a radiograph")
    (images / "b.dcm").touch()
    done = pleura("predict", images, "--model", run, "--out", tmp_path / "out")
    assert done.returncode == 1
    assert "3 radiographs" in done.stdout
    assert done.stderr.count("pleura: ") == 2
    assert (tmp_path / "out" / "problems.csv").read_text().count("\n") == 3


def test_refusals_are_one_line(pleura, phantoms, dataset, run, tmp_path):
    masks = phantoms / "masks.csv"
    refused(
        pleura("train", SMOKE, "training.epoch=3", "--data", dataset, "--out", tmp_path / "r"), "did you mean epochs?"
    )
    refused(pleura("train", SMOKE, "--data", tmp_path / "no", "--out", tmp_path / "r"), "no dataset")
    refused(pleura("train", SMOKE, "--data", dataset, "--out", run), "--resume")
    refused(pleura("evaluate", tmp_path / "no.safetensors", "--data", dataset), "no.safetensors")
    refused(pleura("predict", tmp_path / "no.dcm", "--model", run, "--out", tmp_path / "p"), "no.dcm")
    refused(
        pleura("prepare", "--images", phantoms / "dicom", "--masks", tmp_path / "no.csv", "--out", tmp_path / "d"),
        "no.csv",
    )
    (tmp_path / "file").touch()
    refused(
        pleura("prepare", "--images", phantoms / "dicom", "--masks", masks, "--out", tmp_path / "file" / "data"),
        "choose another --out",
    )
    refused(pleura("train", SMOKE, "--data", dataset, "--out", tmp_path / "file" / "run"), "choose another --out")


def test_doctor_reports_how_far_folds_leak(pleura, tmp_path):
    rows = [("a1", "a", 0, 1), ("a2", "a", 1, 1), ("b", "b", 0, 0), ("c", "c", 1, 0)]
    (tmp_path / "folds.csv").write_text(
        "ImageId,fold,exist_labels\n" + "".join(f"{i},{f},{p}\n" for i, _, f, p in rows)
    )
    (tmp_path / "patients.csv").write_text("ImageId,patient\n" + "".join(f"{i},{who}\n" for i, who, _, _ in rows))
    done = pleura("doctor", tmp_path / "folds.csv", "--patients", tmp_path / "patients.csv")
    assert done.returncode == 1
    assert "fold 0: 1 of 2 validation images (50.0 %) and 1 of 1 positive ones (100.0 %)" in done.stdout


def test_doctor_says_what_a_path_is_and_refuses_in_one_line(pleura, dataset, run, tmp_path):
    done = pleura("doctor", dataset)
    assert done.returncode == 0
    assert done.stdout.startswith(f"{dataset}: a dataset\n  37 cases of 64 px")
    (tmp_path / "m.csv").write_text("ImageId,EncodedPixels\na,1048570 20\n")
    done = pleura("doctor", tmp_path / "m.csv")
    assert (done.returncode, done.stderr) == (1, "")
    assert "error: 1 rows have a run past the last pixel: a\n  -> the masks were made on" in done.stdout
    refused(pleura("doctor", tmp_path / "nowhere"), "nowhere")
    refused(pleura("doctor", run, "--data", tmp_path), "no dataset")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.lr=-1", "training.lr: "),
        ("training.lr=2026-99-99", "the value is not YAML"),
        ("stages.low.name=last", "no stage can be named 'last'"),
        ("stages.high.name=low-swa", "no stage can be named 'low-swa'"),
        ("training.positive_rate=[0.8,2]", "training.positive_rate"),
        ("training.averaging.hand_on=swa", "hand_on is swa, which is not made"),
        ("training.loss.presence=1", "set model.presence_head=true"),
        ("model.encoder=resnet1", "timm has no net 'resnet1'"),
        ("model.decoder_widths=[8,8]", "give 4 widths, not 2"),
        ("model.pretrained=nowhere.safetensors", "there is no file nowhere.safetensors"),
    ],
)
def test_wrong_settings_are_refused_before_data_is_read(pleura, tmp_path, override, message):
    done = pleura("train", SMOKE, override, "--data", tmp_path / "no data", "--out", tmp_path / "run")
    refused(done, message)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("smoke", "--fold", "x"),
        ("smoke", "--stage", "high", "--resume"),
        ("smoke", "--fold", "all", "--stage", "high"),
        ("smoke", "--fold", "all", "--weights", "w.safetensors"),
        ("ens4b_unet", "--fold", "all"),
        ("smoke", "--parallel", "2"),
    ],
)
def test_options_that_do_not_go_together_are_wrong_usage(pleura, tmp_path, words):
    done = pleura("train", *words, "--data", tmp_path, "--out", tmp_path / "run")
    assert done.returncode == 2


def test_all_folds_are_trained_by_one_command(pleura, dataset, tmp_path):
    words = ("train", "smoke", "samples=0", "training.cases_per_epoch=8", "--data", dataset, "--out", tmp_path)
    done = pleura(*words, "--fold", "all")
    assert done.returncode == 0, done.stderr
    assert "mean over folds (sd)" in done.stdout
    assert (tmp_path / "folds.json").exists()


def test_resuming_a_finished_run_with_other_settings_trains_nothing_and_says_so(pleura, dataset, run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.suffix in (".yaml", ".csv")}
    before |= {path: path.read_bytes() for path in (tmp_path / "run").rglob("*.safetensors")}
    words = ("training.lr=5e-4", "training.batch_size=2", "training.optimizer=sgd")
    done = pleura("train", SMOKE, *words, "--data", dataset, "--out", tmp_path / "run", "--resume")
    assert done.returncode == 0, done.stderr
    log = (tmp_path / "run" / "fold-0" / "log.txt").read_text()
    assert "all stages are finished already, and nothing is trained" in log
    assert "not used, as all stages are finished: stages.0.lr was 0.002, is 0.0005" in log
    assert {path: path.read_bytes() for path in before} == before


def test_resuming_a_run_that_goes_on_with_other_settings_of_a_finished_stage_is_refused(pleura, dataset, run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    written = tmp_path / "run" / "fold-0" / "recipe.yaml"
    before = written.read_bytes()
    words = ("stages.low.lr=5e-4", "stages.high.epochs=9", "--data", dataset, "--out", tmp_path / "run", "--resume")
    asked = ("train", SMOKE, *words)
    refused(pleura(*asked), "stages.0.lr was 0.002, is 0.0005", "--stage low begins it again", "choose another --out")
    assert written.read_bytes() == before


def test_train_shows_what_its_settings_come_to(pleura, tmp_path):
    words = ("train", SMOKE, "training.lr=5e-4", "stages.high.lr=1e-4", "--data", tmp_path / "no", "--out", tmp_path)
    done = pleura(*words)
    assert re.search(r"stage +low +high\n", done.stdout)
    assert re.search(r"lr +0.0005 +0.0001\n", done.stdout)
    assert pleura(*words, "-q").stdout == ""


def test_a_wrong_net_is_named_with_the_other_faults_of_the_command_line(pleura, tmp_path):
    words = ("training.lr=abc", "model.encoder=resnet43", "--data", tmp_path / "no", "-o", tmp_path / "run")
    refused(
        pleura("train", SMOKE, *words), "training.lr: input", "no net 'resnet43'; did you mean one of: resnet", "34"
    )


def test_every_command_has_quiet_verbose_and_short_options(pleura):
    for verb in ("prepare", "train", "evaluate", "predict", "recipes", "demo", "doctor"):
        done = pleura(verb, "-h")
        assert done.returncode == 0
        assert all(option in done.stdout for option in ("-q, --quiet", "-v, --verbose", "-h, --help"))
    assert "pleura[track]" in pleura("train", "-h").stdout
    assert "-o, --out" in pleura("predict", "-h").stdout
    assert "Did you mean 'train'?" in pleura("trian").stderr


@pytest.mark.parametrize("verb", ["train", "evaluate", "predict", "tune", "recalibrate", "compare", "demo", "doctor"])
def test_a_command_that_runs_a_net_takes_the_device(pleura, verb):
    assert "--device" in pleura(verb, "-h").stdout


def test_a_device_that_is_not_there_is_one_line(pleura, phantoms, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    refused(pleura("predict", phantoms / "dicom", "-o", tmp_path, "--device", "cuda"), "device cuda: torch finds none")
    assert pleura("recipes", "smoke").returncode == 0


def test_verbose_prints_the_cause_of_a_refusal(pleura, tmp_path):
    (tmp_path / "r.yaml").write_text("a: b: c")
    done = pleura("train", tmp_path / "r.yaml", "--data", tmp_path, "--out", tmp_path / "o", "-v")
    assert "\n  because of ScannerError: " in done.stderr


def test_a_shell_completes_commands_without_torch(tmp_path):
    code = "import sys; from pleura.cli import app\ntry: app(prog_name='pleura')\n"
    code += "finally: sys.exit('torch' in sys.modules)"
    asked = os.environ | {"_PLEURA_COMPLETE": "complete_bash", "COMP_WORDS": "pleura tr", "COMP_CWORD": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=asked)
    assert (done.returncode, done.stdout.strip()) == (0, "train")


@pytest.mark.parametrize(
    ("words", "phrase"),
    [
        (("tune", "r", "--data", "d", "--specificity", "0.9"), "does nothing for siim_dice; add --objective dice_on"),
        (("recalibrate", "r", "--data", "d", "-o", "o", "--miss-cost", "5"), "add --objective expected_cost"),
        (("prepare", "--images", "i", "--masks", "m", "-o", "o", "--folds", "f.csv", "--seed", "1"), "does nothing"),
    ],
)
def test_an_option_that_would_do_nothing_is_wrong_usage(pleura, words, phrase):
    done = pleura(*words)
    assert done.returncode == 2
    assert phrase in " ".join(done.stderr.split())


def test_doctor_warns_of_an_option_that_does_nothing(pleura, dataset):
    done = pleura("doctor", dataset, "--images", dataset)
    assert "warning: --images does nothing: this is a dataset" in done.stdout
