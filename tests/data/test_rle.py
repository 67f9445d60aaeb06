"""Run-length masks: the SIIM format to the letter, every real mask bit for bit, every damage refused in one line."""

from __future__ import annotations

import doctest
import math
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pleura.data import rle
from pleura.data.mask_csv import read_table
from pleura.errors import OutputError, RLEError

REAL = Path(__file__).parents[2].parent / "shared/data/labels/siim-train-rle.csv"

masks = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 1))


def encoded_pixel_by_pixel(mask: np.ndarray) -> str:
    """The format as its definition says it, with no thought of speed."""
    down_then_right = [int(mask[row, column]) for column in range(mask.shape[1]) for row in range(mask.shape[0])]
    words, gap = [], 0
    for value, run in groupby(down_then_right):
        length = len(list(run))
        if value:
            words += [gap, length]
        gap = 0 if value else length
    return " ".join(map(str, words)) or "-1"


def test_example_of_the_docstring_runs():
    assert doctest.testmod(rle) == doctest.TestResults(failed=0, attempted=6)


@st.composite
def canonical_runs(draw: st.DrawFn) -> tuple[str, tuple[int, int]]:
    """A string as `encode` would write it, and the shape of a mask that it fits into."""
    pairs = draw(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=8))
    pairs[0] = (draw(st.integers(0, 9)), pairs[0][1])
    total, height = sum(map(sum, pairs)), draw(st.integers(1, 15))
    return " ".join(f"{gap} {length}" for gap, length in pairs), (height, -(-total // height) + draw(st.integers(0, 2)))


@pytest.fixture(scope="module")
def real_rows() -> dict[str, list[str]]:
    if not REAL.is_file():
        pytest.skip(f"the SIIM masks are not here ({REAL})")
    return read_table(REAL).runs


@settings(max_examples=50)
@given(masks)
def test_mask_written_and_read_is_the_same_mask(mask: np.ndarray):
    read = rle.decode(rle.encode(mask), mask.shape)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, mask)


@settings(max_examples=50)
@given(canonical_runs())
def test_string_read_and_written_is_the_same_string(runs: tuple[str, tuple[int, int]]):
    text, shape = runs
    assert rle.encode(rle.decode(text, shape)) == text


@settings(max_examples=50)
@given(masks)
def test_encoder_agrees_with_the_definition_pixel_by_pixel(mask: np.ndarray):
    assert rle.encode(mask) == encoded_pixel_by_pixel(mask)


def test_pixels_are_counted_down_the_columns_and_gaps_from_the_end_of_the_last_run():
    mask = np.array([[0, 0, 1], [1, 0, 0], [1, 1, 0]])
    assert rle.encode(mask) == "1 2 2 2"
    np.testing.assert_array_equal(rle.decode("1 2 2 2", (3, 3)), mask)


def test_run_may_end_on_the_last_pixel():
    mask = np.zeros((4, 3), dtype=np.uint8)
    mask[2:, 2] = 1
    assert rle.encode(mask) == "10 2"
    np.testing.assert_array_equal(rle.decode("10 2", (4, 3)), mask)


def test_run_may_begin_on_the_first_pixel_and_fill_the_mask():
    assert rle.encode(np.ones((2, 3))) == "0 6"
    assert rle.decode("0 6", (2, 3)).all()


def test_largest_mask_of_siim_may_be_full():
    assert rle.decode(f"0 {1024 * 1024}").sum() == 1024 * 1024
    assert rle.decode(f"{1024 * 1024 - 1} 1")[1023, 1023] == 1


def test_minus_one_is_the_empty_mask():
    assert rle.encode(np.zeros((3, 2))) == "-1"
    assert rle.decode(" -1\n", (3, 2)).tolist() == [[0, 0], [0, 0], [0, 0]]
    assert rle.decode("-1").shape == (1024, 1024)


def test_whatever_is_not_zero_is_mask():
    values = np.array([[0.0, 0.5], [-2.0, 255.0]])
    assert rle.encode(values) == rle.encode(values != 0) == rle.encode((values != 0).astype(np.int64)) == "1 3"


def test_masks_that_are_transposed_or_strided_views_are_written_alike():
    mask = np.random.default_rng(0).integers(0, 2, (6, 10))
    assert rle.encode(mask.T[::2]) == rle.encode(np.ascontiguousarray(mask.T[::2]))


def test_runs_that_touch_are_one_run():
    assert rle.encode(rle.decode("1 2 0 3", (3, 3))) == "1 5"


def test_mask_of_three_axes_is_refused():
    with pytest.raises(RLEError, match="two axes"):
        rle.encode(np.zeros((1, 4, 4)))


@pytest.mark.parametrize("cell", [math.nan, np.float32("nan"), None, "", " ", "-1", " -1 ", -1, -1.0, np.int64(-1)])
def test_blank_cell_of_a_table_is_the_empty_mask(cell: object):
    assert rle.decode(cell, (3, 4)).tolist() == np.zeros((3, 4)).tolist()
    assert rle.check(cell, (3, 4)) == 0
    assert not rle.decode_union([cell, cell], (3, 4)).any()


@pytest.mark.parametrize("cell", [5, 0.0, b"-1", [1, 2], np.zeros(3), True, {"1": 2}])
def test_what_is_no_text_is_refused_by_its_type(cell: object):
    with pytest.raises(RLEError, match=f"a run-length code is text, not {type(cell).__name__}; read the csv with"):
        rle.decode(cell, (3, 4))


def test_mask_without_rows_is_empty():
    assert rle.encode(np.zeros((0, 5))) == "-1"


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("3", "has 1 numbers; they come in pairs"),
        ("0 2 3", "has 3 numbers; they come in pairs"),
        ("-1 -1", "negative gap"),
        ("4 3 -1 2", "run 2 has a negative gap: it overlaps the run before it"),
        ("-2 5", "run 1 has a negative gap"),
        ("1 2 3 0", "run 2 has a length below 1"),
        ("1 -2", "run 1 has a length below 1"),
        ("14 2", "ends 1 px past the 5 x 3 mask"),
        ("15 1", "ends 1 px past the 5 x 3 mask"),
        ("0 10 0 7", "ends 2 px past the 5 x 3 mask"),
        ("9223372036854775807 5", "past the 5 x 3 mask"),
        ("99999999999999999999 5", "which is no whole number"),
        ("1 x", "holds 'x', which is no whole number"),
        ("1.5 2", "holds '1.5', which is no whole number"),
        ("nan 2", "holds 'nan', which is no whole number"),
        ("1,2", "holds '1,2', which is no whole number"),
    ],
)
def test_damaged_string_is_refused_in_one_line(text: str, phrase: str):
    with pytest.raises(RLEError) as caught:
        rle.decode(text, (5, 3))
    assert phrase in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["1_0 3", "٣ 3"])
def test_only_plain_digits_are_numbers(text: str):
    with pytest.raises(RLEError):
        rle.decode(text, (5, 3))


@settings(max_examples=50)
@given(st.text("0123456789 -x\n", max_size=12))
def test_any_text_is_a_mask_of_the_shape_or_an_rle_error(text: str):
    try:
        mask = rle.decode(text, (4, 5))
    except RLEError:
        return
    assert mask.shape == (4, 5)
    assert set(np.unique(mask)) <= {0, 1}


def test_several_rows_are_the_union_of_their_masks():
    union = rle.decode_union(["0 2", "1 3", "7 1", "-1"], (4, 2))
    assert union.T.reshape(-1).tolist() == [1, 1, 1, 1, 0, 0, 0, 1]


def test_no_rows_and_empty_rows_are_an_empty_mask():
    assert not rle.decode_union([], (4, 2)).any()
    assert not rle.decode_union(["-1", "-1"], (4, 2)).any()


def test_csv_that_cannot_be_written_is_an_output_error(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="choose another --out"):
        rle.write_csv(tmp_path / "file" / "out.csv", [])


def test_real_csv_has_its_known_counts(real_rows: dict[str, list[str]]):
    positive = [texts for texts in real_rows.values() if texts != ["-1"]]
    assert (len(real_rows), len(positive), sum(map(len, positive))) == (12_047, 2_669, 3_576)


def test_every_real_mask_round_trips_bit_for_bit(real_rows: dict[str, list[str]]):
    texts = [text for texts in real_rows.values() for text in texts if text != "-1"]
    assert [text for text in texts if rle.encode(rle.decode(text)) != text] == []


def test_real_masks_agree_with_the_sums_of_their_lengths(real_rows: dict[str, list[str]]):
    texts = [texts[0] for texts in real_rows.values() if texts != ["-1"]][:50]
    for text in texts:
        numbers = [int(word) for word in text.split()]
        ends = [sum(numbers[: 2 * run]) for run in range(1, len(numbers) // 2 + 1)]
        assert rle.decode(text).sum() == sum(numbers[1::2])
        assert all(before < after for before, after in pairwise(ends))
