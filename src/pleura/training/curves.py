"""A training as one figure: scores, loss and learning rate over the epochs of all its stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from itertools import groupby
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, MaxNLocator
from numpy.typing import NDArray

from pleura.errors import InputError
from pleura.evaluation.metrics.titles import METRICS

# Colours that the colour-blind can tell apart (Okabe and Ito 2008); the markers differ too, for prints without colour.
SCORES = {
    "siim_dice": ("#0072B2", "o"),
    "dice_on_positives": ("#D55E00", "s"),
    "auroc": ("#009E73", "^"),
}
FLOOR_COLOUR, LOSS_COLOUR, LR_COLOUR, BAND_COLOUR = "#666666", "#000000", "#56518C", "#EEF1F5"
MARKED_EPOCHS = 40
"""More epochs than this are lines without markers, which would hide each other."""
LETTER_SHARE = 0.011
"""Of the width of a panel that a letter of a stage's name takes."""


def curves(history: Sequence[Mapping[str, Any]]) -> dict[str, bytes]:
    """Draw the rows of metrics.csv, one for each epoch, as `svg` and `png`; the same rows give the same bytes.

    history: rows with stage, lr, loss, siim_dice, gain_over_empty, dice_on_positives and auroc, as numbers or as the
    text of the csv file. A number that is missing or not finite is left out. Stages are bands with their names.
    Raises: InputError if there are no rows.
    """
    if not history:
        raise InputError("there is no epoch to draw yet; metrics.csv gets a row after each")
    files = {}
    # The defaults and not the user's style, for as long as this takes; fixed ids instead of random ones in the SVG.
    with style.context(["default", {"svg.hashsalt": "pleura", "font.size": 10}]):
        figure = _figure(history)
        for kind, options in (("svg", {"metadata": {"Date": None}}), ("png", {"dpi": 130})):
            buffer = BytesIO()
            figure.savefig(buffer, format=kind, **options)
            files[kind] = buffer.getvalue()
            figure.set_layout_engine("none")  # the second has the layout of the first
    return files


def _figure(history: Sequence[Mapping[str, Any]]) -> Figure:
    """No pyplot: it would keep every figure of the process, and ask for a screen."""
    figure = Figure(figsize=(8.6, 7.4), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    scores, loss, lr = figure.subplots(3, 1, sharex=True, height_ratios=(5, 3, 2))
    bands = _bands([str(row.get("stage", "")) for row in history])
    floor = _column(history, "siim_dice") - _column(history, "gain_over_empty")
    if np.isfinite(floor).any():  # the same at each epoch: it is the share of negatives
        height = float(floor[np.isfinite(floor)][0])
        scores.axhline(height, color=FLOOR_COLOUR, linestyle="--", linewidth=1.2, label="the empty answer's SIIM Dice")
    for key, (colour, marker) in SCORES.items():
        values = _column(history, key)
        if np.isfinite(values).any():
            marker = marker if len(history) <= MARKED_EPOCHS else ""
            title = METRICS[key].title
            scores.plot(np.arange(1, len(history) + 1), values, color=colour, marker=marker, markersize=5, label=title)
    rates = _column(history, "lr")
    rates[~(rates > 0)] = np.nan  # has no place on a logarithmic axis
    lr.set_yscale("log")
    # Each stage has its own loss and learning rate: a line from one to the next would show values that never were.
    for _, first, last in bands:
        epochs = np.arange(first, last + 1)
        marker = "o" if len(history) <= MARKED_EPOCHS or first == last else ""
        loss.plot(epochs, _column(history, "loss")[first - 1 : last], color=LOSS_COLOUR, marker=marker, markersize=4)
        lr.plot(epochs, rates[first - 1 : last], color=LR_COLOUR, marker=marker, markersize=4)
    scores.set(ylabel="validation score", ylim=(-0.02, 1.02))
    if scores.lines:
        # Two titles a row: four are wider than the panels, which the layout would narrow to make room.
        scores.legend(loc="upper left", bbox_to_anchor=(0, -0.02), ncols=2, frameon=False, fontsize=9, borderaxespad=0)
    loss.set(ylabel="training loss")
    lr.set(ylabel="learning rate", xlabel="epoch, counted over all stages", xlim=(0.5, len(history) + 0.5))
    for formatter in (lr.yaxis.set_major_formatter, lr.yaxis.set_minor_formatter):
        formatter(LogFormatter())  # 1e-04 as in recipes; exponents in small print take long to set
    lr.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    for panel in (scores, loss, lr):
        panel.grid(axis="y", color="#D5D9DE", linewidth=0.6)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
        _shade(panel, bands)
    _name(scores, bands, len(history))
    figure.align_ylabels()
    return figure


def _column(history: Sequence[Mapping[str, Any]], key: str) -> NDArray[np.float64]:
    """Return the numbers of a column, (N,); NaN where there is none."""
    cells = [row.get(key) for row in history]
    numbers = np.array([np.nan if cell in (None, "") else float(cell) for cell in cells])
    return np.where(np.isfinite(numbers), numbers, np.nan)


def _bands(stages: Sequence[str]) -> list[tuple[str, int, int]]:
    """Return the name, first and last epoch of each stage, counted from 1 over all stages."""
    bands, first = [], 1
    for name, rows in groupby(stages):
        last = first + len(list(rows)) - 1
        bands.append((name, first, last))
        first = last + 1
    return bands


def _shade(panel: Axes, bands: Sequence[tuple[str, int, int]]) -> None:
    """Set every second stage on another ground."""
    for number, (_, first, last) in enumerate(bands):
        if number % 2 == 0:
            panel.axvspan(first - 0.5, last + 0.5, color=BAND_COLOUR, linewidth=0, zorder=0)
        if number > 0:
            panel.axvline(first - 0.5, color="#9AA3AD", linewidth=0.8, zorder=1)


def _name(panel: Axes, bands: Sequence[tuple[str, int, int]], epochs: int) -> None:
    """Write the names of the stages above a panel, aslant where they would run into each other."""
    crowded = any((last - first + 1) / epochs < LETTER_SHARE * (len(name) + 1) for name, first, last in bands)
    for name, first, last in bands:
        panel.annotate(
            name,
            ((first + last) / 2, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 4),
            textcoords="offset points",
            ha="left" if crowded else "center",
            va="bottom",
            rotation=35 if crowded else 0,
            rotation_mode="anchor",
            parse_math=False,
        )
