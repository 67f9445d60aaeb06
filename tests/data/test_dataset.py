"""The dataset folder: written by hand here, opened there, and refused in one line where it is damaged."""

from __future__ import annotations

import csv
import json
import os
import random
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from places import sealed

from pleura.data import dataset as module
from pleura.data.cases import LATER_COLUMNS
from pleura.data.dataset import CARD, CASES, FORMAT, IMAGES, Case, Dataset, case_faults, write_cases
from pleura.data.rle import decode
from pleura.errors import InputError, OutputError
from pleura.files import hash_files

SIDE_PX = 8
FIRST = Case("1.2.3", 0, "p1", True, "0 8", "PA", "F", 61.5, (0.143, 0.168), "sub/1.2.3.dcm", 2048, 2500, "siim")
SECOND = Case("b, c", 1, None, False, "-1", None, None, None, None, 'say "b".png', 8, 8, "drawn")
THIRD = replace(FIRST, image_id="third", fold=2, mask_rle="62 2")
CASE_LIST = [FIRST, SECOND, THIRD]


def write_dataset(folder: Path, cases: list[Case] = CASE_LIST) -> Path:
    images = np.arange(len(cases) * SIDE_PX**2, dtype=np.uint8).reshape(len(cases), SIDE_PX, SIDE_PX)
    write_cases(folder / CASES, cases)
    np.save(folder / IMAGES, images)
    (folder / CARD).write_text(json.dumps({"format": FORMAT}))
    return sealed(folder)


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
    assert (dataset.size_px, dataset.data_hash) == (SIDE_PX, hash_files(tmp_path / IMAGES, tmp_path / CASES))


def test_cases_are_counted_by_the_source_of_their_masks(tmp_path: Path):
    dataset = Dataset(write_dataset(tmp_path))
    siim = {"label_source": "siim", "positives": 2, "negatives": 0, "without_patient": 0}
    assert dataset.by_source(np.arange(3)) == [
        {"label_source": "drawn", "positives": 0, "negatives": 1, "without_patient": 1},
        siim,
    ]
    assert dataset.by_source(np.array([0, 2])) == [siim]
    assert dataset.by_source(np.zeros(0, dtype=np.int64)) == []


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


def test_documented_columns_come_first_hand_to_hand(tmp_path: Path):
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
    sealed(one_case)
    assert Dataset(one_case).cases == [case]


def test_mask_longer_than_the_csv_modules_own_limit_is_read(tmp_path: Path):
    case = replace(FIRST, mask_rle=" ".join(["1 1"] * 50_000))
    write_dataset(tmp_path, [case])
    np.save(tmp_path / IMAGES, np.zeros((1, 320, 320), dtype=np.uint8))
    assert Dataset(sealed(tmp_path)).cases == [case]


def test_validation_is_the_fold_and_training_all_the_others(tmp_path: Path):
    dataset = Dataset(write_dataset(tmp_path))
    assert dataset.indices("val", 1).tolist() == [1]
    assert dataset.indices("train", 1).tolist() == [0, 2]
    assert dataset.indices("all", 1).tolist() == [0, 1, 2]


def test_fold_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path):
    with pytest.raises(InputError, match="no case is in the val split of fold 7; its folds are 0, 1, 2"):
        Dataset(write_dataset(tmp_path)).indices("val", 7)


def test_dataset_of_one_fold_has_nothing_to_train_on(tmp_path: Path):
    with pytest.raises(InputError, match="no case is in the train split of fold 0"):
        Dataset(write_dataset(tmp_path, [FIRST])).indices("train", 0)


def test_masks_come_in_the_order_asked_for(tmp_path: Path):
    masks = Dataset(write_dataset(tmp_path)).masks([2, 1, 0])
    assert masks.shape == (3, SIDE_PX, SIDE_PX)
    assert masks.dtype == np.uint8
    np.testing.assert_array_equal(masks[0], decode("62 2", (SIDE_PX, SIDE_PX)))
    assert masks.sum(axis=(1, 2)).tolist() == [2, 0, 8]


def test_empty_folder_holds_no_dataset(tmp_path: Path):
    assert "holds no dataset (no card.json); make one with pleura prepare" in refusal(tmp_path)


def test_folder_that_is_not_there_holds_no_dataset(tmp_path: Path):
    assert "holds no dataset" in refusal(tmp_path / "nowhere")


@pytest.mark.parametrize("name", [CASES, IMAGES])
def test_missing_file_is_damage(tmp_path: Path, name: str):
    (write_dataset(tmp_path) / name).unlink()
    assert refusal(tmp_path).startswith(f"{tmp_path / name}: cannot be read as a")
    assert "(No such file or directory); copy or prepare it again" in refusal(tmp_path)


@pytest.mark.parametrize("content", [b"no array", b"\x93NUMPY\x01\x00", b"\x89PNG"])
def test_images_that_are_no_array_are_damage(tmp_path: Path, content: bytes):
    (write_dataset(tmp_path) / IMAGES).write_bytes(content)
    assert "prepare it again" in refusal(tmp_path)


def test_images_cut_off_are_damage(tmp_path: Path):
    path = write_dataset(tmp_path) / IMAGES
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert "images.npy: has 319 bytes where (3, 8, 8) takes 320: it is damaged" in refusal(tmp_path)
    path.write_bytes(whole + b"0")
    assert "images.npy: has 321 bytes where (3, 8, 8) takes 320: it is damaged" in refusal(tmp_path)


def test_pickled_images_are_never_unpickled(tmp_path: Path):
    np.save(write_dataset(tmp_path) / IMAGES, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert "images.npy: is object (1,), not uint8 (N, S, S)" in refusal(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "{'format': 1}", "\udcff"])
def test_card_that_is_no_json_is_damage(tmp_path: Path, text: str):
    (write_dataset(tmp_path) / CARD).write_bytes(text.encode("utf-8", "surrogateescape"))
    assert "card.json: cannot be read as JSON (" in refusal(tmp_path)


@pytest.mark.parametrize("card", [{}, {"format": 0}, {"format": "1"}, {"format": True}, {"format": 1.0}])
def test_card_of_another_format_is_refused(tmp_path: Path, card: dict[str, object]):
    (write_dataset(tmp_path) / CARD).write_text(json.dumps(card))
    assert "was made by another version of pleura" in refusal(tmp_path)


@pytest.mark.parametrize("cases", [[FIRST], [*CASE_LIST, replace(FIRST, image_id="last")], []])
def test_cases_and_images_must_be_as_many(tmp_path: Path, cases: list[Case]):
    write_cases(write_dataset(tmp_path) / CASES, cases)
    assert f"cases.csv lists {len(cases)} cases, images.npy holds 3" in refusal(tmp_path)


FIELDS = {
    "image_id": [("", "has to be the id"), ("third", r"line 4: the image_id 'third' is in line 2 too")],
    "role": [(text, "always-train, or empty") for text in ("train", "Always-train", "nan")],
    "fold": [(text, "a whole number from 0 on") for text in ("", "first", "-1", "1.0", "nan", "1_0", " 1", "٣")],
    "patient": [("nan", "empty where it is not known"), ("NaN", "empty where it is not known")],
    "has_pneumothorax": [
        *[(text, "0 or 1") for text in ("", "2", "True", "1.0", "nan", "yes")],
        ("0", "has_pneumothorax is 0, and it has a mask_rle"),
    ],
    "mask_rle": [
        ("-1", "has_pneumothorax is 1, and its mask_rle is empty"),
        ("", "-1 where the mask is empty"),
        *[
            ("1 2 3", "come in pairs"),
            ("62 3", "1 px past the 8 x 8 mask"),
            ("nan 1", "no whole number"),
            ("0 0", "a length below 1"),
        ],
        ("1 99999999999999999999", ""),
    ],
    "view": [("nan", "empty where")],
    "sex": [(text, "M, F, O or empty") for text in ("male", "m", "1", "nan")],
    "age": [(text, "a number of years from 0 on") for text in ("old", "-1", "nan", "inf", "1e999", "1_0", "061Y")],
    "pixel_spacing_mm": [
        (text, "two numbers of mm above 0") for text in ("1", "1 2 3", "0 1", "-1 1", "nan nan", "inf 1", "thin thick")
    ],
    "rows": [(text, "a number of pixels from 1 on") for text in ("", "0", "-8", "8.0", "nan", "9" * 30)],
    "pixel_aspect": [(text, "a number above 0") for text in ("", "0", "-1", "nan", "inf", "1/2")],
    "columns": [(text, "a number of pixels from 1 on") for text in ("", "0", "x")],
}


@pytest.mark.parametrize(("column", "value", "phrase"), [(c, v, p) for c, pairs in FIELDS.items() for v, p in pairs])
def test_value_that_its_column_cannot_have_is_named_with_its_line(tmp_path: Path, column: str, value: str, phrase: str):
    path = write_dataset(tmp_path, [FIRST, SECOND, replace(FIRST, image_id="last")]) / CASES
    if value == "third":
        write_cases(path, [replace(FIRST, image_id="third"), SECOND, FIRST])
    rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    rows[2][column] = value
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    told = refusal(sealed(tmp_path))
    assert told.startswith(f"{path}, line 4: ")
    assert column in told.removeprefix(str(path)) or column == "mask_rle"
    assert re.search(phrase, told)
    assert told.endswith("; copy or prepare it again")


def test_all_faults_are_counted_and_the_doctor_lists_them(tmp_path: Path):
    cases = [replace(case, fold=-1) for case in CASE_LIST]
    told = refusal(write_dataset(tmp_path, cases))
    assert f", and 2 more lines have a fault: pleura doctor {tmp_path}; " in told
    assert [fault[:8] for fault in case_faults(tmp_path)] == ["line 2: ", "line 3: ", "line 4: "]


@pytest.mark.parametrize(
    ("old", "new", "phrase"),
    [
        (",age,", ",years,", "line 1: the column age is missing (found: "),
        (",age,", ",fold,", "line 1: the column fold is there twice"),
        (",", ";", "line 1: the column image_id is missing"),
        (",0,p1", ",0,p1,p2", "line 2: has 16 cells where the header has 15"),
        ("\n", '\n"', "has "),
    ],
)
def test_table_of_another_form_is_refused_with_its_line(tmp_path: Path, old: str, new: str, phrase: str):
    path = write_dataset(tmp_path) / CASES
    path.write_text(path.read_text().replace(old, new))
    assert phrase in refusal(tmp_path)


def test_dataset_of_an_earlier_version_lacks_a_column(tmp_path: Path):
    path = write_dataset(tmp_path) / CASES
    rows = list(csv.DictReader(path.read_text().splitlines()))
    with path.open("w", newline="") as file:
        names = [name for name in rows[0] if name not in LATER_COLUMNS]
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    assert Dataset(sealed(tmp_path)).cases == CASE_LIST


def test_further_columns_and_a_byte_order_mark_are_no_fault(tmp_path: Path):
    path = write_dataset(tmp_path) / CASES
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0] + ",mine", *(line + ",1" for line in lines[1:])]), encoding="utf-8-sig")
    assert Dataset(sealed(tmp_path)).cases == CASE_LIST


def without_the_last_columns(folder: Path) -> None:
    text = (folder / CASES).read_text()
    (folder / CASES).write_text(text[: text.rindex(",2,p1") + 2])


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a card that is a list": lambda folder: (folder / CARD).write_text("[1]"),
    "an empty images.npy": lambda folder: (folder / IMAGES).write_bytes(b""),
    "cases cut off": without_the_last_columns,
    "images without sides": lambda folder: np.save(folder / IMAGES, np.zeros(3, dtype=np.uint8)),
    "images that are not square": lambda folder: np.save(folder / IMAGES, np.zeros((3, 8, 9), dtype=np.uint8)),
    "images of no case": lambda folder: np.save(folder / IMAGES, np.zeros((0, 8, 8), dtype=np.uint8)),
    "images in the order of columns": lambda folder: np.save(
        folder / IMAGES, np.asfortranarray(np.ones((3, 8, 8), dtype=np.uint8))
    ),
    "signed images": lambda folder: np.save(folder / IMAGES, np.zeros((3, 8, 8), dtype=np.int8)),
    "a hash of another kind": lambda folder: (folder / CARD).write_text('{"format": 1, "sha256": "abc"}'),
    "a hash that is a number": lambda folder: (folder / CARD).write_text('{"format": 1, "sha256": 5}'),
    "a card that is deep": lambda folder: (folder / CARD).write_text("[" * 100_000),
    "images that are floats": lambda folder: np.save(folder / IMAGES, np.zeros((3, 8, 8), dtype=np.float32)),
    "one spacing": lambda folder: (folder / CASES).write_text((folder / CASES).read_text().replace("0.143 0.168", "1")),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_any_other_damage_is_refused_too(tmp_path: Path, damage: str):
    DAMAGE[damage](write_dataset(tmp_path))
    refusal(tmp_path)


# --- what was prepared, and nothing else


def swap_rows(folder: Path) -> None:
    images = np.load(folder / IMAGES)
    images[[0, 1]] = images[[1, 0]]
    np.save(folder / IMAGES, images)


def overwrite_bytes(folder: Path) -> None:
    content = bytearray((folder / IMAGES).read_bytes())
    content[200:250] = bytes(50)
    (folder / IMAGES).write_bytes(content)


def move_to_another_fold(folder: Path) -> None:
    write_cases(folder / CASES, [replace(FIRST, fold=1), *CASE_LIST[1:]])


def as_long_ago(folder: Path) -> Path:
    """Files that have settled; whoever restores their time cannot restore that of their change."""
    for name in (IMAGES, CASES):
        os.utime(folder / name, (1_000_000, 1_000_000))
    return folder


@pytest.mark.parametrize("change", [swap_rows, overwrite_bytes, move_to_another_fold])
@pytest.mark.parametrize("opened_before", [False, True])
def test_changed_dataset_is_refused(tmp_path: Path, change: Callable[[Path], None], opened_before: bool):
    write_dataset(tmp_path)
    if opened_before:
        Dataset(tmp_path)
    change(tmp_path)
    told = refusal(tmp_path)
    assert "images.npy or cases.csv is not as it was prepared" in told
    (tmp_path / CARD).write_text('{"format": 1, ' + re.search(r'"sha256": "[0-9a-f]{64}"', told)[0] + "}")
    Dataset(tmp_path)


def test_files_are_hashed_once_for_each_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    hashed: list[int] = []
    real = module.hash_files
    monkeypatch.setattr(module, "SETTLED_S", -1.0)
    monkeypatch.setattr(module, "hash_files", lambda *files: hashed.append(1) or real(*files))
    write_dataset(tmp_path)
    for _ in range(3):
        Dataset(tmp_path)
    assert len(hashed) == 1
    Dataset(tmp_path).check_hash(always=True)
    assert len(hashed) == 2
    time.sleep(0.02)  # the file system's clock ticks
    overwrite_bytes(as_long_ago(tmp_path))
    refusal(tmp_path)
    assert len(hashed) == 3


def test_files_that_changed_just_now_are_hashed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    hashed: list[int] = []
    real = module.hash_files
    monkeypatch.setattr(module, "hash_files", lambda *files: hashed.append(1) or real(*files))
    write_dataset(tmp_path)
    for _ in range(2):
        Dataset(tmp_path)
    assert len(hashed) == 2


@pytest.mark.parametrize("cache", ["/dev/null", "/proc", None])
def test_dataset_is_read_without_writing_to_it_and_without_a_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: str | None
):
    monkeypatch.setattr(module, "SETTLED_S", -1.0)
    write_dataset(tmp_path)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    if cache:
        monkeypatch.setenv("XDG_CACHE_HOME", cache)
    else:
        for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    for _ in range(2):
        assert len(Dataset(tmp_path)) == 3
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_damaged_note_in_the_cache_is_as_good_as_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "SETTLED_S", -1.0)
    Dataset(write_dataset(tmp_path))
    note = module._note_of(tmp_path)
    for content in ("", "[", "5", "\udcff"):
        note.write_bytes(content.encode("utf-8", "surrogateescape"))
        assert len(Dataset(tmp_path)) == 3


def mutated(content: bytes, chance: random.Random) -> bytes:
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 8))):
        place, what = chance.randrange(len(data)), chance.randrange(6)
        if what == 0:
            data[place] = chance.randrange(256)
        elif what == 1:
            data[place] ^= 1 << chance.randrange(8)
        elif what == 2:
            del data[place : place + chance.choice((1, 3, 40))]
        elif what == 3:
            data[place:place] = chance.choice(
                (b"\0", b'"', b",", b"\n", b"9" * 40, b"-", b"nan", b"{", b"\xff\xfe", b"e")
            )
        elif what == 4:
            data = data[:place]
        else:
            data += data[place : place + 50]
        if not data:
            break
    return bytes(data)


@pytest.mark.parametrize("name", [CASES, CARD, IMAGES])
@pytest.mark.parametrize("is_sealed", [False, True])
def test_mutant_is_refused_in_a_line_or_has_cases_as_they_can_be(tmp_path: Path, name: str, is_sealed: bool):
    """is_sealed: with the hash of the mutant in the card, so that its values are all that tells."""
    path = write_dataset(tmp_path) / name
    whole = path.read_bytes()
    end = 128 if name == IMAGES else len(whole)
    chance = random.Random(f"{name} {is_sealed}")
    read, told = 0, []
    for _ in range(250):
        path.write_bytes(mutated(whole[:end], chance) + whole[end:])
        if path.read_bytes() == whole:
            continue
        try:
            dataset = Dataset(sealed(tmp_path) if is_sealed and name != CARD else tmp_path)
        except InputError as error:
            told.append(str(error))
            continue
        read += 1
        assert is_sealed or name == CARD
        assert dataset.images.shape == (len(dataset.cases), SIDE_PX, SIDE_PX)
        assert dataset.masks(range(len(dataset))).any((1, 2)).tolist() == dataset.positive.tolist()
        assert all(case.fold >= 0 and min(case.rows, case.columns) > 0 for case in dataset.cases)
        assert len({case.image_id for case in dataset.cases}) == len(dataset)
    assert read < 200
    assert all("\n" not in line and len(line) < 600 for line in told)


def test_cases_that_cannot_be_written_are_an_output_error(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        write_cases(tmp_path / "file" / CASES, CASE_LIST)
