"""Many radiographs into one folder: what changed is predicted anew, one bad file is its own problem, one writer."""

from __future__ import annotations

import csv
import json
import os
import threading
import time
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_files import RAMP_8, save_dicom
from dicom_objects import ALGORITHM, numbers_in
from PIL import Image

from pleura import files
from pleura.data.phantoms.dicom_files import write_phantom_dataset
from pleura.data.probability_png import read_probabilities
from pleura.decision.calibration import probability_at_prevalence
from pleura.decision.triplet import Triplet
from pleura.dicom.results import Algorithm
from pleura.errors import InputError, OutputError
from pleura.inference import part
from pleura.inference.batch import BatchResult, BatchSettings, predict_batch
from pleura.inference.precision import Precision
from pleura.inference.predictor import Prediction, Predictor
from pleura.inference.writers import file_of


class Brightness:
    """Stands for a model: the score of an image is its mean, and what is above a half is mask."""

    tta, precision, engine, calibration, prevalence, triplet = "none", "float32", "torch", object(), 0.5, Triplet()
    doubts: tuple[str, ...] = ()

    def __init__(self, algorithm: Algorithm | None = None) -> None:
        self.batches: list[int] = []
        self.algorithm = algorithm
        self.precisions: list[Precision] = []

    def square(self, radiograph):
        return np.zeros((1, 1), np.uint8)

    def probabilities(self, squares):
        self.batches.append(len(squares))
        return squares.astype(np.float32)

    def decide(self, radiograph, _) -> Prediction:
        mean, mask = float(radiograph.image.mean()), np.zeros(radiograph.image.shape, np.uint8)
        return Prediction(
            image_id=radiograph.image_id,
            radiograph=radiograph,
            probabilities=radiograph.image,
            predicted_mask=mask,
            is_positive=False,
            score=mean,
            probability=0.5,
            ruled_out=mean < 0.5,
            area_px=0,
            area_mm2=None,
            side=None,
            prevalence=self.prevalence,
            algorithm=self.algorithm,
        )


def save_png(path: Path, level: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((RAMP_8 % 50 + level).astype(np.uint8)).save(path)
    return path


def run(out: Path, *inputs: Path, predictor: Brightness | Predictor | None = None, **more) -> BatchResult:
    settings = BatchSettings(tuple(map(str, inputs)), out, "a model", **more)
    return predict_batch(predictor or Brightness(), settings)  # type: ignore[arg-type]


def table(out: Path) -> dict[str, dict[str, str]]:
    with (out / "predictions.csv").open(newline="") as file:
        return {row["image_id"]: row for row in csv.DictReader(file)}


@pytest.mark.parametrize(("inputs", "out"), [(".", "."), (".", "sub"), ("sub", "."), ("sub", "sub")])
def test_out_may_be_the_input_or_lie_above_or_below_it_and_a_second_run_changes_nothing(tmp_path, inputs, out):
    for number in range(3):
        save_png(tmp_path / "sub" / f"{number}.png")
    for run_number in range(3):
        done = run(tmp_path / out, tmp_path / inputs)
        assert (len(table(tmp_path / out)), done.problems) == (3, [])
        assert (done.predicted, done.earlier) == ((3, 0) if run_number == 0 else (0, 3))


def test_files_of_one_name_in_two_folders_are_both_predicted(tmp_path):
    for name in ("a/x.png", "b/x.png", "b/x.jpg"):
        save_png(tmp_path / name)
    run(tmp_path / "o", tmp_path / "a", tmp_path / "b")
    assert set(table(tmp_path / "o")) == {"a/x", "b/x.jpg", "b/x.png"}
    assert (tmp_path / "o/masks/a/x.png").exists()
    assert (tmp_path / "o/overlays/b/x.jpg.png").exists()


@pytest.mark.parametrize("change", ["pixels", "time", "both in the same second"])
def test_file_that_changed_is_predicted_anew(tmp_path, change):
    path = save_png(tmp_path / "s" / "p.png")
    run(tmp_path / "o", tmp_path / "s")
    before, status = table(tmp_path / "o")["p"]["score"], path.stat()
    if change == "time":
        os.utime(path, (1, 1))
    else:
        save_png(path, 200)
    if change == "both in the same second":
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    done = run(tmp_path / "o", tmp_path / "s")
    assert (done.predicted, done.earlier, len(table(tmp_path / "o"))) == (1, 0, 1)
    assert (table(tmp_path / "o")["p"]["score"] == before) == (change == "time")


def test_file_that_became_unreadable_keeps_no_old_result(tmp_path):
    save_png(tmp_path / "s" / "p.png")
    save_png(tmp_path / "s" / "q.png")
    run(tmp_path / "o", tmp_path / "s")
    (tmp_path / "s" / "p.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    done = run(tmp_path / "o", tmp_path / "s")
    assert set(table(tmp_path / "o")) == {"q"}
    assert len(done.problems) == 1
    assert not (tmp_path / "o/masks/p.png").exists()


def test_folder_that_was_moved_is_not_predicted_again(tmp_path):
    save_png(tmp_path / "s" / "p.png")
    run(tmp_path / "o", tmp_path / "s")
    (tmp_path / "s").rename(tmp_path / "t")
    assert run(tmp_path / "o", tmp_path / "t").earlier == 1


def test_second_file_of_a_name_that_is_taken_gets_an_id_of_its_own(tmp_path):
    for name in "ab":
        save_png(tmp_path / name / "x.png", 100 if name == "a" else 150)
        run(tmp_path / "o", tmp_path / name)
    assert set(table(tmp_path / "o")) == {"x", "b/x"}


def test_long_name_is_written_and_what_cannot_be_written_is_its_own_problem(tmp_path):
    for name in ("a", "m" * 247, "z"):
        save_png(tmp_path / "s" / f"{name}.png")
    (tmp_path / "o" / "masks" / "z.png").mkdir(parents=True)
    done = run(tmp_path / "o", tmp_path / "s")
    assert set(table(tmp_path / "o")) == {"a", "m" * 247}
    assert [Path(file).name for file, _ in done.problems] == ["z.png"]


def test_full_disk_ends_the_batch_and_keeps_what_is_done(tmp_path, monkeypatch):
    for name in "abc":
        save_png(tmp_path / "s" / f"{name}.png")

    def full(out, write, prediction):
        if prediction.image_id == "b":
            raise OutputError("full") from OSError(28, "No space left on device")

    monkeypatch.setattr(part, "write_files", full)
    with pytest.raises(OutputError, match="full"):
        run(tmp_path / "o", tmp_path / "s", batch_size=1)
    assert set(table(tmp_path / "o")) == {"a"}
    monkeypatch.undo()
    assert run(tmp_path / "o", tmp_path / "s").earlier == 1


def test_disk_that_fills_up_leaves_whole_files_of_what_is_done_and_none_of_the_rest(tmp_path, monkeypatch):
    for number in range(12):
        save_png(tmp_path / "s" / f"{number}.png")
    out, write, synced = tmp_path / "o", ("mask", "rle", "probabilities"), []

    def full_from_the_tenth_on(_):
        synced.append(1)
        if len(synced) > 9:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_from_the_tenth_on)
    with pytest.raises(OutputError, match="disk is full"):
        run(out, tmp_path / "s", write=write)
    done = {json.loads(line)["image_id"] for line in (out / "journal.jsonl").read_text().splitlines()[1:]}
    for folder in ("masks", "probabilities"):
        assert {path.name for path in (out / folder).iterdir()} == {f"{image_id}.png" for image_id in done}
    monkeypatch.undo()
    again = run(out, tmp_path / "s", write=write)
    assert (again.earlier, again.predicted, again.problems) == (len(done), 12 - len(done), [])
    assert 3 <= len(done) < 12
    for image_id in table(out):
        assert read_probabilities(out / "probabilities" / f"{image_id}.png").levels.shape == RAMP_8.shape


def test_second_process_on_the_same_folder_is_refused(tmp_path):
    save_png(tmp_path / "s" / "p.png")
    with (
        files.held(tmp_path / "o", "writes its predictions there"),
        pytest.raises(OutputError, match="another process writes its predictions there"),
    ):
        run(tmp_path / "o", tmp_path / "s")
    assert run(tmp_path / "o", tmp_path / "s").predicted == 1


@pytest.mark.parametrize(
    "damage",
    [b"garbage\n", b"\0" * 99, b"\xff\xfe\n", b"[1]\n", b'{"image_id": 3}\n', b'{"image_id": "p"}\n', b"NaN\n", b"x"],
)
@pytest.mark.parametrize("where", ["first", "last"])
def test_damaged_journal_is_refused_with_the_way_out(tmp_path, damage, where):
    save_png(tmp_path / "s" / "p.png")
    run(tmp_path / "o", tmp_path / "s")
    journal = tmp_path / "o" / "journal.jsonl"
    content = journal.read_bytes()
    journal.write_bytes(damage + content if where == "first" else content + damage)
    with pytest.raises(OutputError, match="choose another --out"):
        run(tmp_path / "o", tmp_path / "s")


@pytest.mark.parametrize("key", ["is_positive", "score", "rows", "runs", "size", "file", "notes"])
@pytest.mark.parametrize("value", [[], "NaN-like", None, {"a": 1}])
def test_entry_of_wrong_types_is_refused(tmp_path, key, value):
    save_png(tmp_path / "s" / "p.png")
    run(tmp_path / "o", tmp_path / "s")
    journal = tmp_path / "o" / "journal.jsonl"
    head, entry = journal.read_text().splitlines()
    journal.write_text(f"{head}\n{json.dumps({**json.loads(entry), key: value})}\n")
    if isinstance(value, str) and key in ("runs", "file", "notes"):
        return
    with pytest.raises(OutputError, match="choose another --out"):
        run(tmp_path / "o", tmp_path / "s")


def test_last_line_that_was_cut_is_predicted_again(tmp_path):
    for name in "pq":
        save_png(tmp_path / "s" / f"{name}.png")
    run(tmp_path / "o", tmp_path / "s")
    journal = tmp_path / "o" / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-20])
    done = run(tmp_path / "o", tmp_path / "s")
    assert (done.predicted, done.earlier) == (1, 1)


def test_large_radiographs_go_in_smaller_batches(tmp_path, monkeypatch):
    for number in range(5):
        save_png(tmp_path / "s" / f"{number}.png")
    monkeypatch.setattr(part, "PIXELS_IN_FLIGHT", 2 * RAMP_8.size)
    predictor = Brightness()
    run(tmp_path / "o", tmp_path / "s", predictor=predictor)
    assert predictor.batches == [2, 2, 1]


def test_table_has_uids_the_rule_of_few_misses_and_notes(tmp_path):
    save_dicom(tmp_path / "s" / "IM1", sop_uid="1.2.3")
    run(tmp_path / "o", tmp_path / "s")
    row = table(tmp_path / "o")["1.2.3"]
    assert (row["sop_instance_uid"], row["series_instance_uid"], row["ruled_out"]) == ("1.2.3", "", "1")
    assert row["prevalence"] == "0.5"


def test_copies_are_predicted_under_their_paths_with_a_note(tmp_path):
    for name in ("a.dcm", "b.IMA", "c"):
        save_dicom(tmp_path / "s" / name)
    done = run(tmp_path / "o", tmp_path / "s")
    rows = table(tmp_path / "o")
    assert (sorted(rows), done.problems) == (["1.2.3", "b.IMA", "c"], [])
    assert [rows[key]["notes"] for key in ("b.IMA", "c")] == [f"a copy of {tmp_path / 's' / 'a.dcm'}"] * 2
    assert {row["score"] for row in rows.values()} == {rows["1.2.3"]["score"]}


def test_prevalence_moves_the_probability_by_bayes_rule(tmp_path):
    save_png(tmp_path / "s" / "p.png")
    run(tmp_path / "o", tmp_path / "s", prevalence=0.1)
    row = table(tmp_path / "o")["p"]
    assert (row["probability"], row["prevalence"]) == ("0.1", "0.1")
    run(tmp_path / "o", tmp_path / "s")
    assert table(tmp_path / "o")["p"]["probability"] == "0.5"


def test_report_has_the_probability_of_the_table_and_another_prevalence_another_folder(tmp_path):
    write_phantom_dataset(tmp_path, n_patients=1, seed=1, size_px=32)
    source = next((tmp_path / "dicom").iterdir())
    predictor = Brightness(ALGORITHM)

    def at(prevalence, out="o", write=("sr",)):
        return run(tmp_path / out, source, predictor=predictor, write=write, prevalence=prevalence)

    assert (at(0.1).predicted, at(0.1).earlier) == (1, 1)
    (report,) = (tmp_path / "o" / "sr").iterdir()
    said = numbers_in(pydicom.dcmread(report))
    assert said["PROBABILITY"] == float(table(tmp_path / "o")[source.stem]["probability"]) == 0.1
    assert (said["PREVALENCE"], said["FITTED"]) == (0.1, 0.5)
    for other in (0.2, None):
        with pytest.raises(OutputError, match="other settings"):
            at(other)
    assert [at(each, "without-report", ("mask",)).earlier for each in (0.1, 0.2, None)] == [0, 1, 1]


def test_odds_at_another_prevalence():
    assert probability_at_prevalence(0.8, 0.5, 0.2) == pytest.approx(0.5)  # odds 4, times (.2 / .8) / (.5 / .5)
    assert probability_at_prevalence(0.3, 0.4, 0.4) == pytest.approx(0.3)
    assert (probability_at_prevalence(0.0, 0.4, 0.1), probability_at_prevalence(1.0, 0.4, 0.1)) == (0.0, 1.0)


@pytest.mark.parametrize("prevalence", [0.0, 1.0, -1.0, 5.0, float("nan")])
def test_prevalence_that_cannot_be_is_refused(tmp_path, prevalence):
    save_png(tmp_path / "s" / "p.png")
    with pytest.raises(InputError, match="between 0 and 1"):
        run(tmp_path / "o", tmp_path / "s", prevalence=prevalence)


def test_prevalence_is_refused_where_that_of_the_calibration_is_not_known(tmp_path):
    save_png(tmp_path / "s" / "p.png")
    predictor = Brightness()
    predictor.prevalence = None  # type: ignore[assignment]
    with pytest.raises(InputError, match="no calibration"):
        run(tmp_path / "o", tmp_path / "s", predictor=predictor, prevalence=0.1)


@pytest.mark.parametrize(
    ("image_id", "name"),
    [
        ("a/x", "a/x.png"),
        ("a:b", "a%3Ab.png"),
        ("../x", "%2E%2E/x.png"),
        ("/x", "x.png"),
        ("con", "%63on.png"),
        ("NUL.1/x", "%4EUL.1/x.png"),
        ("a /x.", "a%20/x%2E.png"),
        ("50%", "50%.png"),
        ("%3A", "%253A.png"),
    ],
)
def test_files_of_results_have_names_that_every_system_takes(image_id, name):
    assert file_of(Path("masks"), image_id) == Path("masks", *name.split("/"))


def test_scripts_get_one_document_and_nothing_else(pleura, tmp_path):
    save_dicom(tmp_path / "s" / "a.dcm", sop_uid="1.2.3")
    (tmp_path / "s" / "b.dcm").write_text("no radiograph")
    done = pleura("predict", tmp_path / "s", "--out", tmp_path / "o", "--json", "--prevalence", "0.05")
    document = json.loads(done.stdout)
    assert done.returncode == 1
    assert (document["predicted"], document["prevalence"], len(document["problems"])) == (1, 0.05, 1)
    assert document["predictions"][0]["sop_instance_uid"] == "1.2.3"
    said = pleura("predict", tmp_path / "s" / "a.dcm", "--out", tmp_path / "p").stdout
    assert "1 radiograph; pneumothorax found on 0 of 1" in said
    assert "64.4 % are positive" in said


def test_what_was_predicted_before_an_interrupt_is_still_written(tmp_path, monkeypatch):
    for name in "abc":
        save_png(tmp_path / "s" / f"{name}.png")
    predict, write, began = Brightness.probabilities, part.write_files, threading.Event()

    def slow(*given):
        began.set()
        time.sleep(0.2)
        write(*given)

    def interrupted(predictor, squares):
        if predictor.batches:
            assert began.wait(30)  # the results of the first are being written
            raise KeyboardInterrupt
        return predict(predictor, squares)

    monkeypatch.setattr(part, "write_files", slow)
    monkeypatch.setattr(Brightness, "probabilities", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "o", tmp_path / "s", batch_size=1)
    assert set(table(tmp_path / "o")) == {"a"}
    monkeypatch.undo()
    assert run(tmp_path / "o", tmp_path / "s").earlier == 1


def computing(precision: str, engine: str = "torch") -> Brightness:
    predictor = Brightness()
    predictor.precision, predictor.engine = precision, engine
    predictor.precisions = [Precision(precision, "because")]
    return predictor


@pytest.mark.parametrize(
    ("before", "now", "option"),
    [
        (("float32", "torch"), ("bfloat16", "torch"), "--precision float32"),
        (("bfloat16", "torch"), ("float32", "torch"), "--precision bfloat16"),
        (("float32", "torch"), ("float32", "onnxruntime"), "--engine torch"),
        (("float32", "onnxruntime"), ("bfloat16", "torch"), "--precision float32 --engine onnxruntime"),
    ],
)
def test_results_of_two_precisions_or_engines_are_not_mixed_and_the_way_on_is_named(tmp_path, before, now, option):
    image, out = save_png(tmp_path / "a.png"), tmp_path / "out"
    assert run(out, image, predictor=computing(*before)).precision == before[0]
    words = " by ".join(before), " by ".join(now)
    with pytest.raises(
        OutputError, match=f"computed in {words[0]}, and these would be computed in {words[1]}; add {option}"
    ):
        run(out, image, predictor=computing(*now))
    again = computing(*before)
    again.precisions = [Precision(before[0], "for another reason")]
    assert run(out, image, predictor=again).earlier == 1
    assert json.loads((out / "journal.jsonl").read_text().splitlines()[0])["computed_in"] == f"{before[0]} (because)"
    with pytest.raises(OutputError, match="another model or other settings"):
        run(out, image, predictor=computing(*now), write=("rle",))


def test_results_from_before_there_was_a_choice_are_continued_in_float32_by_torch(tmp_path):
    out = tmp_path / "out"
    run(out, save_png(tmp_path / "a.png"))
    assert not {"precision", "engine"} & json.loads((out / "journal.jsonl").read_text().splitlines()[0]).keys()


def test_dicom_objects_lie_in_a_folder_of_their_kind_and_are_not_read_as_radiographs(tmp_path):
    write_phantom_dataset(tmp_path, n_patients=1, seed=1, size_px=32)
    predictor = Brightness(ALGORITHM)
    for _ in range(2):  # OUT lies inside the input
        done = run(tmp_path / "dicom" / "o", tmp_path / "dicom", predictor=predictor, write=("seg", "seg-fractional"))
        assert done.problems == []
    ids = set(table(tmp_path / "dicom" / "o"))
    for word in ("seg", "seg-fractional"):
        assert {path.stem for path in (tmp_path / "dicom" / "o" / word).iterdir()} == ids
    assert not (tmp_path / "dicom" / "o" / "masks").exists()


def test_picture_gets_its_mask_and_each_run_says_why_it_gets_no_dicom_object(tmp_path):
    save_png(tmp_path / "s" / "p.png")
    save_dicom(tmp_path / "s" / "a.dcm", sop_uid="1.2.3")
    predictor = Brightness(ALGORITHM)
    for earlier in (0, 2):
        done = run(tmp_path / "o", tmp_path / "s", predictor=predictor, write=("mask", "seg"))
        reasons = {Path(file).name: reason for file, reason in done.problems}
        assert "no seg: not a DICOM file" in reasons["p.png"]
        assert "Series Instance UID (0020,000E)" in reasons["a.dcm"]
        assert (done.earlier, sorted(table(tmp_path / "o"))) == (earlier, ["1.2.3", "p"])
    assert len(list((tmp_path / "o" / "masks").iterdir())) == 2
    assert not (tmp_path / "o" / "seg").exists()


def test_radiograph_that_is_gone_leaves_no_dicom_object(tmp_path):
    write_phantom_dataset(tmp_path, n_patients=1, seed=1, size_px=32)
    path = next((tmp_path / "dicom").iterdir())
    predictor = Brightness(ALGORITHM)
    run(tmp_path / "o", path, predictor=predictor, write=("seg",))
    assert len(list((tmp_path / "o" / "seg").iterdir())) == 1
    path.write_bytes(path.read_bytes()[:200])
    assert len(run(tmp_path / "o", path, predictor=predictor, write=("seg",)).problems) == 1
    assert list((tmp_path / "o" / "seg").iterdir()) == []


def test_rule_finds_the_written_mask_in_the_probabilities_that_were_kept(tmp_path):
    write_phantom_dataset(tmp_path / "s", n_patients=3, seed=1, size_px=96)
    for number, path in enumerate(sorted((tmp_path / "s" / "dicom").iterdir())):
        dataset = pydicom.dcmread(path)
        dataset.Rows, dataset.PixelData = 60, dataset.pixel_array[:60].tobytes()
        if number == 0:  # min_pixels counts pixels of the file's own grid, which are not square
            del dataset.PixelSpacing, dataset.ImagerPixelSpacing
            dataset.PixelAspectRatio = [2, 1]
        dataset.save_as(path)
    predictor = Predictor.load(device="cpu")
    for triplet, positive in ((Triplet(0.02, 10, 0.01), 4), (Triplet(0.02, 900_000, 0.01), 0)):
        predictor.triplet, out = triplet, tmp_path / f"{positive}"
        done = run(out, tmp_path / "s" / "dicom", predictor=predictor, write=("mask", "probabilities"))
        assert (done.positive, done.problems) == (positive, [])
        for row in done.rows:
            found = read_probabilities(out / "probabilities" / f"{row['image_id']}.png")
            with Image.open(out / "masks" / f"{row['image_id']}.png") as picture:
                np.testing.assert_array_equal(found.mask(triplet), np.asarray(picture) // 255)


def test_overlay_is_in_colour_only_where_something_is_drawn_in_it(tmp_path):
    write_phantom_dataset(tmp_path, n_patients=1, seed=1, size_px=96)
    predictor = Predictor.load(device="cpu")
    for top, mode in ((1 / 256, "RGB"), (1 - 1 / 256, "L")):
        predictor.triplet, out = Triplet(top, 1, 1 / 256), tmp_path / mode
        (row,) = run(out, next((tmp_path / "dicom").iterdir()), predictor=predictor, write=("overlay",)).rows
        prediction = predictor.predict(row["source"])
        with Image.open(out / "overlays" / f"{row['image_id']}.png") as picture:
            assert picture.mode == mode
            np.testing.assert_array_equal(np.asarray(picture.convert("RGB")), np.asarray(prediction.overlay()))


def test_probabilities_are_refused_before_anything_is_written_where_the_rule_needs_more_than_8_bits(tmp_path):
    predictor = Brightness()
    predictor.triplet = Triplet(1.0, 1, 0.5)
    with pytest.raises(InputError, match="do not tell 1 from 255/256"):
        run(tmp_path / "o", save_png(tmp_path / "a.png"), predictor=predictor, write=("probabilities",))
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("word", "option", "form"), [("seg", "--seg-type", "fractional"), ("sc", "--sc-compression", "jpeg-lossless")]
)
def test_form_of_an_object_is_an_option_of_its_word_alone(pleura, tmp_path, word, option, form):
    write_phantom_dataset(tmp_path, n_patients=1, seed=1, size_px=32)
    source = next((tmp_path / "dicom").iterdir())
    done = pleura("predict", source, "--out", tmp_path / "o", "--write", f"{word},mask", option, form)
    assert (done.returncode, len(list((tmp_path / "o" / f"{word}-{form}").iterdir()))) == (0, 1)
    assert not (tmp_path / "o" / word).exists()
    refused = pleura("predict", source, "--out", tmp_path / "p", "--write", "mask", option, form)
    assert (refused.returncode, option in refused.stderr) == (2, True)
