"""csv files of masks, as people and spreadsheets leave them."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest

from pleura.data import rle
from pleura.data.mask_csv import damage, read_table
from pleura.data.masks import open_masks
from pleura.errors import InputError

HEADER = "ImageId,EncodedPixels\n"


def csv_of(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "masks.csv"
    path.write_bytes(text.encode(encoding))
    return path


def test_competitions_header_with_its_space_is_read(tmp_path: Path) -> None:
    path = csv_of(tmp_path, "ImageId, EncodedPixels\nb, 1 2\na,-1\nb, 5 1\n")
    assert read_table(path).runs == {"b": ["1 2", "5 1"], "a": ["-1"]}


def test_csv_saved_by_a_spreadsheet_is_read(tmp_path: Path) -> None:
    path = csv_of(tmp_path, 'Age,EncodedPixels,ImageId\r\n40,"1 2",a\r\n', encoding="utf-8-sig")
    assert read_table(path).runs == {"a": ["1 2"]}


def test_exact_duplicate_row_counts_once(tmp_path: Path) -> None:
    path = csv_of(tmp_path, HEADER + "a,1 2\na,1 2\nb,-1\nb,-1\n")
    assert read_table(path).runs == {"a": ["1 2"], "b": ["-1"]}


def test_ids_with_a_file_suffix_or_in_another_unicode_form_are_the_same_ids(tmp_path: Path) -> None:
    whole, parts = (unicodedata.normalize(form, "M\u00fcller") for form in ("NFC", "NFD"))
    path = csv_of(tmp_path, HEADER + f"1.2.345.dcm,1 2\n1.2.345,3 4\nx.PNG,-1\n{whole},1 2\n{parts},5 1\n")
    assert read_table(path).runs == {"1.2.345": ["1 2", "3 4"], "x": ["-1"], whole: ["1 2", "5 1"]}


def test_mask_longer_than_the_csv_modules_own_limit_is_read(tmp_path: Path) -> None:
    text = " ".join(["1 1"] * 50_000)
    assert read_table(csv_of(tmp_path, f"{HEADER}a,{text}\n")).runs == {"a": [text]}


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("ImageId,Grade\na,-1\n", "the column EncodedPixels is missing (found: ImageId, Grade)"),
        ("case,EncodedPixels\na,-1\n", "the column ImageId is missing"),
        ("", "the column ImageId is missing (found: nothing)"),
        ("ImageId;EncodedPixels\na;-1\n", "the column ImageId is missing"),
        ("a,1 2\nb,-1\n", "the column ImageId is missing"),
        (HEADER + ",-1\n", "line 2: a row needs an image id and runs"),
        (HEADER + "a,-1\nb\n", "line 3: a row needs an image id and runs"),
        (HEADER + "a,-1\n,\n", "line 3: a row needs an image id and runs"),
        (HEADER + "a,-1\na.dcm,1 2\n", "a is empty in one row and has a mask in another"),
        (HEADER + "a,1 2\na,\n", "a is empty in one row and has a mask in another"),
        (HEADER + "a,1 2,3 4\n", "line 2: the row has 3 cells and the header 2"),
        (HEADER + "a,1,2,3,4\n", "line 2: the row has 5 cells and the header 2"),
        (HEADER + "1.23E+15,1 2\n", "a spreadsheet made the number 1.23E+15 of an image id"),
        (HEADER + '"1,23E+15",1 2\n', "a spreadsheet made the number 1,23E+15 of an image id"),
        (HEADER + "########,1 2\n", "a spreadsheet made the number ######## of an image id"),
    ],
)
def test_wrong_csv_is_refused_by_name(tmp_path: Path, text: str, phrase: str) -> None:
    path = csv_of(tmp_path, text)
    with pytest.raises(InputError) as caught:
        read_table(path)
    assert phrase in str(caught.value)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize(
    ("runs", "reason"),
    [
        ("1.2E+15", "a spreadsheet made one number of it"),
        ('"1,2E+15"', "a spreadsheet made one number of it"),
        ('"1,024 5"', "a spreadsheet wrote thousands apart"),
        ("1.024 5", "a spreadsheet wrote thousands apart"),
        ("1\u202f024 5", "other letters for blanks or minus"),
        ("\u22121", "other letters for blanks or minus"),
        ("05.10.2019", "a spreadsheet made a date of it"),
        ("2019-10-05", "a spreadsheet made a date of it"),
        ("Oct-05", "a spreadsheet made a date of it"),
        ("5000100", "it is one number"),
        ("100.0 5.0", "decimal numbers"),
        ("-1.0", "decimal numbers"),
        ("#NAME?", "a spreadsheet could not show it"),
        ("1 2 3", "do they count 1024 x 1024 px"),
    ],
)
def test_runs_that_a_spreadsheet_damaged_are_refused_by_that_reason(tmp_path: Path, runs: str, reason: str) -> None:
    source = open_masks(csv_of(tmp_path, f"{HEADER}a,{runs}\n"))
    with pytest.raises(InputError) as caught:
        source.masks["a"].read()
    assert reason in str(caught.value)


def test_cell_that_a_spreadsheet_cut_is_known_by_its_length(tmp_path: Path) -> None:
    mask = np.zeros((1024, 1024), np.uint8)
    mask[::2, :40] = 1
    text = rle.encode(mask)
    table = read_table(csv_of(tmp_path, f"{HEADER}a,{text[:32767]}\nb,-1\nc,{text}\n"))
    assert table.cut == ["a"]
    assert read_table(csv_of(tmp_path, f"ImageId, EncodedPixels\na, {text[:32766]}\n")).cut == ["a"]
    assert "cut at 32,767 characters" in damage(text[:32767])
    spilled = csv_of(tmp_path, f"{HEADER}a,{text[:32767]}\n{text[32767:]}\nb,-1\n")
    with pytest.raises(InputError, match="line 3: a row needs an image id and runs; the cell above was cut at 32,767"):
        read_table(spilled)


@pytest.mark.parametrize("content", [b"\xff\xfeI\x00", b"ImageId,EncodedPixels\na,\xe9\n"])
def test_csv_that_is_no_text_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "masks.csv").write_bytes(content)
    with pytest.raises(InputError, match="cannot be read as a csv"):
        read_table(tmp_path / "masks.csv")


def test_missing_csv_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"masks\.csv: cannot be read as a csv \(No such file"):
        read_table(tmp_path / "masks.csv")


def test_csv_written_is_read_as_it_was(tmp_path: Path) -> None:
    rle.write_csv(tmp_path / "out.csv", [("a", "1 2"), ("a", "8 1"), ("b", "-1")])
    assert (tmp_path / "out.csv").read_text().splitlines()[0] == "ImageId,EncodedPixels"
    assert read_table(tmp_path / "out.csv").runs == {"a": ["1 2", "8 1"], "b": ["-1"]}
