"""Folds: no patient on both sides, every fold alike, and a report of what other people's folds leak."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from pleura.data.columns import read_column
from pleura.data.folds import Leak, _merge_small_strata, assign_folds, leak_report, patients_or_own, read_folds
from pleura.errors import InputError

REAL = Path(__file__).parents[2].parent / "shared/data/labels"


@st.composite
def cohorts(draw: st.DrawFn) -> tuple[list[str], list[int]]:
    """Patients with one to three radiographs each, about a third of them with a mask of some size."""
    patients, areas = [], []
    for patient in range(draw(st.integers(12, 40))):
        for _ in range(draw(st.integers(1, 3))):
            patients.append(f"p{patient}")
            areas.append(draw(st.sampled_from([0, 0, 0, 50, 400, 9000])))
    return patients, areas


def large_cohort() -> tuple[list[str], np.ndarray]:
    generator = np.random.default_rng(0)
    patients = [f"p{patient}" for patient in range(400) for _ in range(1 + patient % 3)]
    areas = np.where(generator.random(len(patients)) < 0.25, generator.lognormal(8, 1, len(patients)), 0).astype(int)
    return patients, areas


@settings(max_examples=30)
@given(cohorts(), st.integers(2, 4), st.integers(0, 99))
def test_patient_is_never_in_two_folds(cohort: tuple[list[str], list[int]], n_folds: int, seed: int):
    patients, areas = cohort
    folds = assign_folds(patients, areas, n_folds, seed)
    assert folds.shape == (len(patients),)
    assert len(set(zip(patients, folds.tolist(), strict=True))) == len(set(patients))


@settings(max_examples=30)
@given(cohorts(), st.integers(2, 4), st.integers(0, 99))
def test_every_fold_has_a_case(cohort: tuple[list[str], list[int]], n_folds: int, seed: int):
    assert set(assign_folds(*cohort, n_folds, seed)) == set(range(n_folds))


@settings(max_examples=30)
@given(cohorts(), st.integers(2, 5), st.integers(0, 99))
def test_folds_are_those_of_scikit_learn(cohort: tuple[list[str], list[int]], n_folds: int, seed: int):
    same_as_scikit_learn(cohort[0], np.array(cohort[1]), n_folds, seed)


def test_many_folds_are_those_of_scikit_learn():
    same_as_scikit_learn(*large_cohort(), 5, 3)


def same_as_scikit_learn(patients: list[str], areas: np.ndarray, n_folds: int, seed: int) -> None:
    groups = np.unique(patients, return_inverse=True)[1]
    renumbered = np.random.default_rng(seed).permutation(groups.max() + 1)[groups]
    strata = np.zeros(len(areas), dtype=int)
    if (areas > 0).any():
        strata[areas > 0] = 1 + np.searchsorted(np.quantile(areas[areas > 0], (0.25, 0.5, 0.75)), areas[areas > 0])
    strata = _merge_small_strata(strata, n_folds)
    expected = np.zeros(len(areas), dtype=int)
    for fold, (_, chosen) in enumerate(StratifiedGroupKFold(n_folds).split(areas, strata, renumbered)):
        expected[chosen] = fold
    assert assign_folds(patients, areas, n_folds, seed).tolist() == expected.tolist()


def test_each_folds_share_of_positives_is_near_the_whole():
    patients, areas = large_cohort()
    folds = assign_folds(patients, areas, 5, 1)
    shares = [(areas[folds == fold] > 0).mean() for fold in range(5)]
    assert max(abs(share - (areas > 0).mean()) for share in shares) < 0.02


def test_each_folds_share_of_large_masks_is_near_the_whole():
    patients, areas = large_cohort()
    folds = assign_folds(patients, areas, 5, 1)
    large = np.quantile(areas[areas > 0], 0.75)
    shares = [(areas[(folds == fold) & (areas > 0)] > large).mean() for fold in range(5)]
    assert max(abs(share - 0.25) for share in shares) < 0.06


def test_folds_are_of_about_one_size():
    sizes = np.bincount(assign_folds(*large_cohort(), 5, 1))
    assert sizes.max() - sizes.min() < 0.1 * sizes.mean()


def test_seed_decides_and_nothing_else():
    patients, areas = large_cohort()
    first, again, other = (assign_folds(patients, areas, 5, seed) for seed in (1, 1, 2))
    assert first.tolist() == again.tolist()
    assert first.tolist() != other.tolist()


@pytest.mark.parametrize(("patients", "n_folds"), [(["a", "a", "b"], 3), (["a"], 2), ([], 2), (["a", "b", "c"], 1)])
def test_fewer_patients_than_folds_are_refused(patients: list[str], n_folds: int):
    with pytest.raises(InputError, match=f"patients cannot make {n_folds} folds; give --folds 2 or more"):
        assign_folds(patients, [0] * len(patients), n_folds, 0)


@pytest.mark.parametrize("areas", [[0] * 6, [9] * 6, [0, 0, 0, 0, 0, 9], [1, 2, 3, 4, 5, 0]])
def test_cohorts_too_small_to_stratify_are_split_all_the_same(areas: list[int]):
    folds = assign_folds(list("abcdef"), areas, 3, 0)
    assert np.bincount(folds).tolist() == [2, 2, 2]


def test_leak_is_an_image_whose_patient_is_in_another_fold():
    folds, patients = [0, 0, 0, 1, 1, 2], ["a", "a", "b", "a", "c", "c"]
    report = leak_report(folds, patients, [True, False, True, True, True, False])
    assert report == [Leak(0, 3, 2, 2, 1), Leak(1, 2, 2, 2, 2), Leak(2, 1, 1, 0, 0)]


def test_leak_says_itself_in_words():
    text = str(Leak(0, 3, 2, 2, 1))
    assert text.startswith("fold 0: 2 of 3 validation images (66.7 %) and 1 of 2 positive ones (50.0 %)")
    assert "none to count" in str(Leak(2, 1, 1, 0, 0))


def test_folds_by_patient_leak_nothing():
    patients, areas = large_cohort()
    report = leak_report(assign_folds(patients, areas, 5, 3).tolist(), patients, (areas > 0).tolist())
    assert [(leak.leaked, leak.leaked_positives) for leak in report] == [(0, 0)] * 5
    assert sum(leak.images for leak in report) == len(patients)


def csv_of(folder: Path, text: str) -> Path:
    path = folder / "folds.csv"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("key", ["ImageId", "image_id", "fname"])
def test_folds_are_read_by_any_of_the_known_names(tmp_path: Path, key: str):
    path = csv_of(tmp_path, f"{key},other,fold\na.png,x,0\n1.2.3.dcm,y,12\n")
    assert read_folds(path) == {"a": 0, "1.2.3": 12}


def test_split_of_train_and_val_is_two_folds(tmp_path: Path):
    assert read_folds(csv_of(tmp_path, "ImageId,split\na,train\nb,val\n")) == {"a": 1, "b": 0}


def test_repeated_row_is_harmless_and_a_contradicting_one_is_refused(tmp_path: Path):
    assert read_folds(csv_of(tmp_path, "ImageId,fold\na,1\na.dcm,1\n")) == {"a": 1}
    with pytest.raises(InputError, match="a has two values of fold: 1 and 2"):
        read_folds(csv_of(tmp_path, "ImageId,fold\na,1\na.dcm,2\n"))


@pytest.mark.parametrize("value", ["", "-1", "1.0", "test", "x"])
def test_what_is_no_fold_is_refused(tmp_path: Path, value: str):
    with pytest.raises(InputError, match=f"a has the fold '{value}'; folds are 0, 1, 2 ... or train and val"):
        read_folds(csv_of(tmp_path, f"ImageId,fold\na,{value}\n"))


def test_raised_digit_is_no_fold(tmp_path: Path):
    with pytest.raises(InputError):
        read_folds(csv_of(tmp_path, "ImageId,fold\na,²\n"))


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("case,fold\na,1\n", "the column ImageId is missing (found: case, fold)"),
        ("ImageId,part\na,1\n", "the column fold or split is missing (found: ImageId, part)"),
        ("", "the column ImageId is missing (found: nothing)"),
    ],
)
def test_wrong_header_is_refused_by_name(tmp_path: Path, text: str, phrase: str):
    path = csv_of(tmp_path, text)
    with pytest.raises(InputError) as caught:
        read_folds(path)
    assert str(caught.value) == f"{path}: {phrase}"


def test_missing_file_and_one_that_is_no_text_are_refused(tmp_path: Path):
    (tmp_path / "folds.csv").write_bytes(b"ImageId,fold\n\xff,1\n")
    for path in (tmp_path / "folds.csv", tmp_path / "nowhere.csv"):
        with pytest.raises(InputError, match="cannot be read as a csv"):
            read_folds(path)


def test_first_name_that_the_file_has_is_the_column_read(tmp_path: Path):
    path = csv_of(tmp_path, "image_id,PatientID,NIH_ID\na, 7 ,9\n")
    assert read_column(path, ("patient", "PatientID", "NIH_ID")) == {"a": "7"}


def test_case_without_a_patient_is_a_patient_of_its_own():
    assert patients_or_own(["a", "b", "c"], {"a": "p", "b": ""}) == ["p", "b", "c"]


@pytest.fixture(scope="module")
def legacy() -> list[Leak]:
    if not (REAL / "legacy-folds-5.csv").is_file():
        pytest.skip(f"the SIIM folds are not here ({REAL})")
    path = REAL / "legacy-folds-5.csv"
    folds, positive = read_folds(path), read_column(path, ("exist_labels",))
    rows = (line.split(",") for line in (REAL / "siim-nih-id.csv").read_text().splitlines()[1:])
    patients = {image_id: nih_id[:8] for image_id, nih_id in rows}
    owners = patients_or_own(list(folds), patients)
    return leak_report(list(folds.values()), owners, [positive[image_id] == "1" for image_id in folds])


def test_widely_copied_folds_leak_three_images_in_five_and_nearly_every_positive(legacy: list[Leak]):
    assert [leak.fold for leak in legacy] == [0, 1, 2, 3, 4]
    assert sum(leak.images for leak in legacy) == 10_679
    assert {round(100 * leak.leaked / leak.images) for leak in legacy} == {59, 60, 61}
    assert {round(100 * leak.leaked_positives / leak.positives) for leak in legacy} == {92, 93, 94}
