"""The figure of a training: that it can always be drawn, shows what it should, and is the same each time."""

from __future__ import annotations

import io
import math
import xml.etree.ElementTree as ElementTree
from typing import Any

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pleura.errors import InputError
from pleura.inference.overlay import contact_sheet
from pleura.training import curves as module
from pleura.training.curves import curves

NUMBERS = ("lr", "loss", "siim_dice", "gain_over_empty", "dice_on_positives", "auroc")


def rows(count: int, stages: tuple[str, ...] = ("low", "high")) -> list[dict[str, Any]]:
    made = []
    for number in range(count):
        dice = 0.9 - 0.3 * math.exp(-number / 5)
        row = {"stage": stages[number * len(stages) // count], "epoch": number + 1, "lr": 1e-3 / (number + 1)}
        row |= {"loss": 1 / (number + 1), "siim_dice": dice, "gain_over_empty": dice - 0.4}
        made.append(row | {"dice_on_positives": dice / 2, "auroc": dice})
    return made


def lines_of(history: list[dict[str, Any]], panel: int) -> dict[str, np.ndarray]:
    """Name -> heights of the points of a panel of the figure."""
    axes = module._figure(history).axes[panel]
    return {str(line.get_label()): np.asarray(line.get_ydata(), dtype=float) for line in axes.lines}


def test_the_figure_comes_as_an_svg_without_a_date_and_as_a_png_that_can_be_read() -> None:
    drawn = curves(rows(6))
    root = ElementTree.fromstring(drawn["svg"])
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert b"<dc:date>" not in drawn["svg"]
    with Image.open(io.BytesIO(drawn["png"])) as picture:
        assert (picture.format, picture.size) == ("PNG", (1118, 962))


def test_the_same_rows_give_the_same_bytes_as_numbers_and_as_the_text_of_a_csv() -> None:
    history = rows(5)
    as_text = [{key: str(value) for key, value in row.items()} for row in history]
    assert curves(history) == curves(as_text)


def test_the_scores_and_the_floor_are_drawn_where_they_are() -> None:
    drawn = lines_of(rows(7), panel=0)
    np.testing.assert_allclose(drawn["SIIM mean Dice"], [row["siim_dice"] for row in rows(7)])
    np.testing.assert_allclose(drawn["Dice on positives"], [row["dice_on_positives"] for row in rows(7)])
    np.testing.assert_allclose(drawn["the empty answer's SIIM Dice"], [0.4, 0.4])


def test_each_stage_has_its_own_line_of_losses_and_its_name_above() -> None:
    axes = module._figure(rows(6, ("low", "middle", "high"))).axes
    losses = [line for line in axes[1].lines if line.get_marker() == "o"]
    assert [list(line.get_xdata()) for line in losses] == [[1, 2], [3, 4], [5, 6]]
    assert [text.get_text() for text in axes[0].texts] == ["low", "middle", "high"]


def test_the_legend_lies_below_the_scores_within_the_width_of_the_panels() -> None:
    figure = module._figure(rows(6))
    figure.draw_without_rendering()
    scores, loss, _ = figure.axes
    legend, panel = scores.get_legend().get_window_extent(), scores.get_window_extent()
    assert panel.x0 <= legend.x0 < legend.x1 <= panel.x1
    assert loss.get_window_extent().y1 <= legend.y0 < legend.y1 <= panel.y0
    assert panel.width > 0.85 * figure.bbox.width  # the layout has not narrowed the panels for it


def test_a_metric_that_a_fold_cannot_have_is_left_out() -> None:
    history = [row | {"auroc": math.nan, "gain_over_empty": math.nan} for row in rows(4)]
    named = [name for name in lines_of(history, panel=0) if not name.startswith("_")]
    assert named == ["SIIM mean Dice", "Dice on positives"]


def test_a_learning_rate_of_zero_has_no_place_on_the_axis_and_does_no_harm() -> None:
    history = rows(3, ("only",))
    history[1]["lr"] = 0
    (heights,) = lines_of(history, panel=2).values()
    np.testing.assert_array_equal(np.isnan(heights), [False, True, False])
    assert curves(history)["png"]


def test_rows_of_an_older_version_without_some_columns_are_drawn() -> None:
    assert curves([{"stage": "low", "epoch": 1, "loss": 1.0, "siim_dice": 0.5}])["svg"]


def test_without_an_epoch_there_is_nothing_to_draw_and_it_says_so() -> None:
    with pytest.raises(InputError, match=r"no epoch.*metrics\.csv"):
        curves([])


def test_drawing_leaves_the_settings_of_matplotlib_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(matplotlib.rcParams, "lines.linewidth", 9.0)
    before = dict(matplotlib.rcParams)
    changed = curves(rows(2))
    assert dict(matplotlib.rcParams) == before
    monkeypatch.undo()
    assert curves(rows(2)) == changed


@settings(max_examples=6)
@given(st.data())
def test_any_numbers_at_all_can_be_drawn(data: st.DataObject) -> None:
    number = st.one_of(st.floats(width=32), st.just(math.nan), st.just(""), st.none())
    row = st.fixed_dictionaries({"stage": st.sampled_from(["a", "$b_", "<c>"]), **dict.fromkeys(NUMBERS, number)})
    drawn = curves(data.draw(st.lists(row, min_size=1, max_size=4)))
    ElementTree.fromstring(drawn["svg"])


def test_a_contact_sheet_has_every_picture_in_its_cell() -> None:
    colours = [(200, 0, 0), (0, 200, 0), (0, 0, 200)]
    sheet = contact_sheet([Image.new("RGB", (10, 20), colour) for colour in colours], columns=2)
    assert sheet.size == (10 + 6 + 10, 20 + 6 + 20)
    assert [sheet.getpixel(at) for at in ((0, 0), (16, 0), (0, 26), (16, 26))] == [*colours, (0, 0, 0)]


def test_a_contact_sheet_is_no_wider_than_its_pictures_need() -> None:
    assert contact_sheet([Image.new("RGB", (8, 8))], columns=4).size == (8, 8)


@pytest.mark.parametrize(("count", "columns"), [(0, 4), (2, 0)])
def test_a_contact_sheet_of_nothing_is_refused(count: int, columns: int) -> None:
    with pytest.raises(ValueError, match="needs a picture"):
        contact_sheet([Image.new("RGB", (8, 8))] * count, columns)
