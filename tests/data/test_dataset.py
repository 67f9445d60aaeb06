"""The dataset folder: written by hand here, opened there, and refused in one line where it is damaged."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pleura.data.dataset import CARD, CASES, FORMAT, IMAGES, Case, Dataset, hash_files, write_cases
from pleura.data.rle import decode
from pleura.errors import InputError, OutputError

SIDE_PX = 8
FIRST = Case("1.2.3", 0, "p1", True, "0 8", "PA", "F", 61.5, (0.143, 0.168), "sub/1.2.3.dcm", 2048, 2500, "siim")
SECOND = Case("b, c", 1, None, False, "-1", None, None, None, None, 'say "b".png', 8, 8, "drawn")
THIRD = replace(FIRST, image_id="third", fold=2, mask_rle="62 2")
CASE_LIST = [FIRST, SECOND, THIRD]


def write_dataset(folder: Path, cases: list[Case] = CASE_LIST) -> Path:
    images = np.arange(len(cases) * SIDE_PX**2, dtype=np.uint8).reshape(len(cases), SIDE_PX, SIDE_PX)
    write_cases(folder / CASES, cases)
    np.save(folder / IMAGES, images)
    (folder / CARD).write_text(json.dumps({"format": FORMAT, "sha256": "abc"}))
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        Dataset(folder)
    assert str(caught.value).startswith(str(folder))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_cases_are_read_as_they_were_written(tmp_path: Path):
    dataset = Dataset(write_dataset(tmp_path))
    assert dataset.cases == CASE_LIST
    assert len(dataset) == 3
    assert dataset.positive.tolist() == [True, False, True]
    assert (dataset.size_px, dataset.data_hash) == (SIDE_PX, "abc")


def test_images_are_mapped_and_not_loaded(tmp_path: Path):
    images = Dataset(write_dataset(tmp_path)).images
    assert isinstance(images, np.memmap)
    assert images[1, 0, :3].tolist() == [64, 65, 66]
    assert not images.flags.writeable


def test_csv_json_and_numpy_alone_can_read_it(tmp_path: Path):
    write_dataset(tmp_path)
    with (tmp_path / "cases.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    images, card = np.load(tmp_path / "images.npy"), json.loads((tmp_path / "card.json").read_text())
    assert images.shape == (len(rows), SIDE_PX, SIDE_PX)
    assert images.dtype == np.uint8
    assert [row["has_pneumothorax"] for row in rows] == ["1", "0", "1"]
    assert (rows[0]["pixel_spacing_mm"], rows[1]["pixel_spacing_mm"], rows[1]["age"]) == ("0.143 0.168", "", "")
    assert card["format"] == 1


def test_the_documented_columns_come_first_hand_to_hand(tmp_path: Path):
    header = (write_dataset(tmp_path) / CASES).read_text().splitlines()[0]
    documented = "image_id,fold,patient,has_pneumothorax,mask_rle,view,sex,age,pixel_spacing_mm,source"
    assert header.startswith(documented)


@pytest.fixture(scope="module")
def one_case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("one"), [FIRST])


known_text = st.text(st.characters(codec="utf-8", exclude_characters="\x00\r\n"), min_size=1, max_size=12)


@settings(max_examples=40)
@given(
    image_id=known_text,
    patient=st.none() | known_text,
    age=st.none() | st.floats(0, 120),
    spacing=st.none() | st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)),
)
def test_whatever_a_source_says_survives_the_csv(
    one_case: Path, image_id: str, patient: str | None, age: float | None, spacing: tuple[float, float] | None
):
    case = replace(FIRST, image_id=image_id, patient=patient, age=age, pixel_spacing_mm=spacing)
    write_cases(one_case / CASES, [case])
    assert Dataset(one_case).cases == [case]


def test_a_mask_longer_than_the_csv_modules_own_limit_is_read(tmp_path: Path):
    case = replace(FIRST, mask_rle=" ".join(["1 1"] * 50_000))
    assert Dataset(write_dataset(tmp_path, [case])).cases == [case]


def test_validation_is_the_fold_and_training_all_the_others(tmp_path: Path):
    dataset = Dataset(write_dataset(tmp_path))
    assert dataset.positions("val", 1).tolist() == [1]
    assert dataset.positions("train", 1).tolist() == [0, 2]
    assert dataset.positions("all", 1).tolist() == [0, 1, 2]


def test_a_fold_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path):
    with pytest.raises(InputError, match="no case is in the val split of fold 7; its folds are 0, 1, 2"):
        Dataset(write_dataset(tmp_path)).positions("val", 7)


def test_a_dataset_of_one_fold_has_nothing_to_train_on(tmp_path: Path):
    with pytest.raises(InputError, match="no case is in the train split of fold 0"):
        Dataset(write_dataset(tmp_path, [FIRST])).positions("train", 0)


def test_masks_come_in_the_order_asked_for(tmp_path: Path):
    masks = Dataset(write_dataset(tmp_path)).masks([2, 1, 0])
    assert masks.shape == (3, SIDE_PX, SIDE_PX)
    assert masks.dtype == np.uint8
    np.testing.assert_array_equal(masks[0], decode("62 2", (SIDE_PX, SIDE_PX)))
    assert masks.sum(axis=(1, 2)).tolist() == [2, 0, 8]


@pytest.mark.parametrize("damaged", ["1 2 3", "62 3", "", "nan 1"])
def test_a_damaged_mask_is_refused_by_its_case(tmp_path: Path, damaged: str):
    dataset = Dataset(write_dataset(tmp_path, [FIRST, replace(THIRD, mask_rle=damaged)]))
    assert dataset.masks([0]).sum() == 8
    with pytest.raises(InputError, match=r"cases\.csv: the mask of third: "):
        dataset.masks([0, 1])


def test_an_empty_folder_holds_no_dataset(tmp_path: Path):
    assert "holds no dataset (no card.json); make one with pleura prepare" in refusal(tmp_path)


def test_a_folder_that_is_not_there_holds_no_dataset(tmp_path: Path):
    assert "holds no dataset" in refusal(tmp_path / "nowhere")


@pytest.mark.parametrize("name", [CASES, IMAGES])
def test_a_missing_file_is_damage(tmp_path: Path, name: str):
    (write_dataset(tmp_path) / name).unlink()
    assert "the dataset is damaged (" in refusal(tmp_path)
    assert name in refusal(tmp_path)


@pytest.mark.parametrize("content", [b"no array", b"\x93NUMPY\x01\x00", b"\x89PNG"])
def test_images_that_are_no_array_are_damage(tmp_path: Path, content: bytes):
    (write_dataset(tmp_path) / IMAGES).write_bytes(content)
    assert "prepare it again" in refusal(tmp_path)


def test_images_cut_off_are_damage(tmp_path: Path):
    path = write_dataset(tmp_path) / IMAGES
    path.write_bytes(path.read_bytes()[:-1])
    assert "the dataset is damaged" in refusal(tmp_path)


def test_pickled_images_are_never_unpickled(tmp_path: Path):
    np.save(write_dataset(tmp_path) / IMAGES, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert "the dataset is damaged" in refusal(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "{'format': 1}", "\udcff"])
def test_a_card_that_is_no_json_is_damage(tmp_path: Path, text: str):
    (write_dataset(tmp_path) / CARD).write_bytes(text.encode("utf-8", "surrogateescape"))
    assert "the dataset is damaged" in refusal(tmp_path)


@pytest.mark.parametrize("card", [{}, {"format": 0}, {"format": "1"}])
def test_a_card_of_another_format_is_refused(tmp_path: Path, card: dict[str, object]):
    (write_dataset(tmp_path) / CARD).write_text(json.dumps(card))
    assert "was made by another version of pleura" in refusal(tmp_path)


@pytest.mark.parametrize("cases", [[FIRST], [*CASE_LIST, FIRST], []])
def test_cases_and_images_must_be_as_many(tmp_path: Path, cases: list[Case]):
    write_cases(write_dataset(tmp_path) / CASES, cases)
    assert f"cases.csv lists {len(cases)} cases, images.npy holds 3" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("old", "new"), [(",age,", ",years,"), ("61.5", "old"), (",0,p1", ",first,p1"), ("0.143 0.168", "thin thick")]
)
def test_a_wrong_column_or_value_is_damage(tmp_path: Path, old: str, new: str):
    path = write_dataset(tmp_path) / CASES
    path.write_text(path.read_text().replace(old, new))
    assert "the dataset is damaged" in refusal(tmp_path)


def without_the_last_columns(folder: Path) -> None:
    text = (folder / CASES).read_text()
    (folder / CASES).write_text(text[: text.rindex(",2,p1") + 2])


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a card that is a list": lambda folder: (folder / CARD).write_text("[1]"),
    "an empty images.npy": lambda folder: (folder / IMAGES).write_bytes(b""),
    "cases cut off": without_the_last_columns,
    "images without sides": lambda folder: np.save(folder / IMAGES, np.zeros(3, dtype=np.uint8)),
    "images that are not square": lambda folder: np.save(folder / IMAGES, np.zeros((3, 8, 9), dtype=np.uint8)),
    "images that are floats": lambda folder: np.save(folder / IMAGES, np.zeros((3, 8, 8), dtype=np.float32)),
    "one spacing": lambda folder: (folder / CASES).write_text((folder / CASES).read_text().replace("0.143 0.168", "1")),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_any_other_damage_is_refused_too(tmp_path: Path, damage: str):
    DAMAGE[damage](write_dataset(tmp_path))
    refusal(tmp_path)


def test_the_hash_is_over_the_bytes_of_all_files_in_order(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"one")
    (tmp_path / "b").write_bytes(b"two")
    assert hash_files(tmp_path / "a", tmp_path / "b") == hashlib.sha256(b"onetwo").hexdigest()
    assert hash_files(tmp_path / "b", tmp_path / "a") != hash_files(tmp_path / "a", tmp_path / "b")


def test_a_missing_file_has_no_hash(tmp_path: Path):
    with pytest.raises(InputError, match="cannot be read"):
        hash_files(tmp_path / "nowhere")


def test_cases_that_cannot_be_written_are_an_output_error(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        write_cases(tmp_path / "file" / CASES, CASE_LIST)
