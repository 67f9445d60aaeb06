"""Cases that are always trained on: in every fold's training split, in no validation, and no truth to score by."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from places import SMOKE, sealed

from pleura.config.parse import load_recipe
from pleura.data.cases import ALWAYS_TRAIN
from pleura.data.dataset import Dataset
from pleura.data.prepare import PrepareSettings, prepare
from pleura.doctor.datasets import examine_dataset
from pleura.errors import InputError
from pleura.evaluation.evaluate import evaluate
from pleura.models.checkpoint import load_checkpoint
from pleura.models.seen import case_key
from pleura.training.folds import train_folds

Row = dict[str, str]


def rewritten(dataset: Path, out: Path, change: Callable[[int, Row], Row | None]) -> Dataset:
    """A copy of a dataset whose rows of cases.csv are changed, by number and row."""
    shutil.copytree(dataset, out)
    rows = list(csv.DictReader((dataset / "cases.csv").read_text().splitlines()))
    changed = [change(number, row) or row for number, row in enumerate(rows)]
    with (out / "cases.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(changed[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(changed)
    return Dataset(sealed(out))


def every_third(number: int, row: Row) -> Row | None:
    return {**row, "role": ALWAYS_TRAIN, "fold": "-1", "label_source": "pseudo"} if number % 3 == 0 else None


@pytest.fixture
def mixed(dataset: Path, tmp_path: Path) -> Dataset:
    return rewritten(dataset, tmp_path / "mixed", every_third)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Twelve noise PNGs, eight with a mask in truth/ and four in pseudo/, half of each positive."""
    generator = np.random.default_rng(0)
    for number in range(12):
        image, mask = generator.integers(0, 256, (40, 40), dtype=np.uint8), np.zeros((40, 40), dtype=np.uint8)
        mask[10:20, 5:15] = 255 * (number % 2)
        for folder, pixels in (("images", image), ("truth" if number < 8 else "pseudo", mask)):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / folder / f"{number:02d}.png")
    return tmp_path


def settings(folder: Path, **more: object) -> PrepareSettings:
    given = {"size_px": 64, "folds": 2, "workers": 1, "always_train": ("pseudo",), **more}
    return PrepareSettings(folder / "images", (folder / "truth", folder / "pseudo"), folder / "out", **given)  # type: ignore[arg-type]


def test_cases_of_a_source_are_learned_from_in_every_fold_and_validated_in_none(pictures: Path):
    data = prepare(settings(pictures)).dataset
    always = [row for row, case in enumerate(data.cases) if case.label_source == "pseudo"]
    assert [data.cases[row].role for row in always] == [ALWAYS_TRAIN] * 4
    assert {data.cases[row].fold for row in always} == {-1}
    assert (data.folds, data.card["folds"], data.card["always_train"]) == ([0, 1], {"0": 4, "1": 4}, 4)
    for fold in data.folds:
        train, val = data.indices("train", fold), data.indices("val", fold)
        assert set(always) <= set(train.tolist())
        assert not set(always) & set(val.tolist())
        assert sorted([*train, *val]) == list(range(12))
    assert len(data.indices("all", 0)) == 12


def test_csv_of_folds_can_say_it_too(pictures: Path):
    rows = [f"{number:02d},{'always-train' if number >= 6 else number % 2}" for number in range(12)]
    (pictures / "folds.csv").write_text("\n".join(["ImageId,fold", *rows]) + "\n")
    data = prepare(settings(pictures, folds=pictures / "folds.csv", always_train=())).dataset
    assert [case.role for case in data.cases] == [None] * 6 + [ALWAYS_TRAIN] * 6
    assert data.folds == [0, 1]


def test_csv_of_folds_need_not_name_the_cases_of_such_a_source(pictures: Path):
    rows = [f"{number:02d},{number % 2}" for number in range(8)]
    (pictures / "folds.csv").write_text("\n".join(["ImageId,fold", *rows]) + "\n")
    assert int((~prepare(settings(pictures, folds=pictures / "folds.csv")).dataset.scored).sum()) == 4


def test_source_that_is_not_there_or_all_that_there_is_is_refused(pictures: Path):
    with pytest.raises(InputError, match="--always-train: no mask comes from guesses; there is pseudo, truth"):
        prepare(settings(pictures, always_train=("guesses",)))
    assert not (pictures / "out").exists()
    with pytest.raises(InputError, match="every case is always trained on"):
        prepare(settings(pictures, always_train=("pseudo", "truth")))


def test_another_choice_is_another_dataset(pictures: Path):
    prepare(settings(pictures))
    with pytest.raises(Exception, match="holds a dataset of other inputs"):
        prepare(settings(pictures, always_train=()))


def test_fold_leaves_out_of_training_what_shows_a_patient_that_it_validates(dataset: Path, tmp_path: Path):
    data = rewritten(dataset, tmp_path / "shared", every_third)
    held_out = data.indices("val", 0)[0]
    who = data.cases[held_out].patient
    assert who
    shared = rewritten(
        tmp_path / "shared", tmp_path / "leaky", lambda n, row: {**row, "patient": who} if n == 0 else None
    )
    assert 0 not in shared.indices("train", 0)
    others = [fold for fold in shared.folds if fold != 0]
    assert all(0 in shared.indices("train", fold) for fold in others)
    leaks = [finding.what for finding in examine_dataset(tmp_path / "leaky").findings if "leak" in finding.what]
    assert leaks == []


def test_dataset_without_the_column_is_what_it_was(dataset: Path, tmp_path: Path):
    old = rewritten(dataset, tmp_path / "old", lambda _, row: {k: v for k, v in row.items() if k != "role"})
    new = Dataset(dataset)
    assert "role" not in (tmp_path / "old" / "cases.csv").read_text().splitlines()[0]
    assert old.cases == new.cases
    assert all(case.role is None for case in old.cases)
    assert old.scored.all()


def test_another_role_is_a_damaged_dataset(dataset: Path, tmp_path: Path):
    with pytest.raises(InputError, match="role is 'never', and has to be always-train, or empty"):
        rewritten(dataset, tmp_path / "other", lambda _, row: {**row, "role": "never"})


def test_all_folds_together_score_what_is_truth_and_nothing_else(mixed: Dataset, tmp_path: Path):
    recipe = load_recipe(SMOKE, ("samples=0", "training.cases_per_epoch=8"))
    summary = train_folds(recipe, mixed, tmp_path / "run")
    assert sorted(summary.folds) == mixed.folds
    rows = list(csv.DictReader((tmp_path / "run" / "out-of-fold.csv").read_text().splitlines()))
    truth = sorted(case.image_id for case in mixed.cases if case.role is None)
    assert sorted(row["image_id"] for row in rows) == truth
    best = tmp_path / "run" / "fold-0" / "best.safetensors"
    seen, always = load_checkpoint(best).seen, {case_key(case.image_id) for case in mixed.cases if case.role}
    learned = {case_key(mixed.cases[row].image_id) for row in mixed.indices("train", 0)}
    assert set(seen.train) == learned
    assert len(always & learned) > len(always) / 2  # without those of patients that fold 0 validates
    assert not always & set(seen.val)
    found = evaluate(best, mixed.folder, "all", resamples=2, out=tmp_path / "report").report
    assert found.positives + found.negatives == len(truth)
    assert f"; {len(always)} that are always trained on are no truth, and left out" in found.split


def test_doctor_counts_them_and_names_folds_without_a_positive(mixed: Dataset, dataset: Path, tmp_path: Path):
    examined = examine_dataset(mixed.folder)
    assert f"{int((~mixed.scored).sum())} of them are for training alone, and scored in no fold" in examined.facts
    negative = {"has_pneumothorax": "0", "mask_rle": "-1"}
    rewritten(dataset, tmp_path / "one", lambda _, row: {**row, **negative} if row["fold"] == "1" else None)
    warned = [finding.what for finding in examine_dataset(tmp_path / "one").findings]
    assert any(what.startswith("no case of fold 1 has a pneumothorax") for what in warned)
    rewritten(dataset, tmp_path / "none", lambda _, row: {**row, **negative})
    warned = [finding.what for finding in examine_dataset(tmp_path / "none").findings]
    assert any(what.startswith("no case has a pneumothorax") for what in warned)


def test_command_says_how_many_they_are(pictures: Path, pleura):
    words = ["--images", pictures / "images", "--masks", pictures / "truth", "--masks", pictures / "pseudo"]
    done = pleura("prepare", *words, "--out", pictures / "d", "--size", 64, "--folds", 2, "--always-train", "pseudo")
    assert done.returncode == 0, done.stderr
    assert "4 of them are for training alone, and scored in no fold" in done.stdout
