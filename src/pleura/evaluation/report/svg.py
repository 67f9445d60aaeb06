"""Small line charts as SVG text, for a page that stands alone: they follow its width and its colours, light or dark.

Matplotlib would take a second to import, and its text would not follow the page. These take milliseconds.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

# Colours that the colour-blind can tell apart (Okabe and Ito 2008), and that are seen on white and on black.
COLOURS = {"blue": "#2d87c9", "orange": "#d5691a", "green": "#0a9b73", "grey": "#8a8f98", "purple": "#a9689a"}
WIDTH, PLOT_HEIGHT, LEFT, RIGHT, TOP, BOTTOM, LEGEND_LINE = 360, 210, 48, 18, 30, 44, 17
MAX_DOTS = 600


@dataclass(frozen=True)
class Series:
    """Numbers to draw; those that are not finite are left out."""

    x: Sequence[float]
    y: Sequence[float]
    name: str = ""
    """In the legend; none if empty."""
    colour: str = "blue"
    style: Literal["line", "dashed", "step", "dots"] = "line"
    band: tuple[Sequence[float], Sequence[float], Sequence[float]] | None = None
    """x, low, high of an interval."""
    bars: tuple[Sequence[float], Sequence[float]] | None = None
    """low and high at each x, as upright lines."""


@dataclass(frozen=True)
class Chart:
    """One chart; with no series, `missing` stands in its place."""

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    x_range: tuple[float, float] = (0.0, 1.0)
    y_range: tuple[float, float] = (0.0, 1.0)
    x_ticks: Sequence[tuple[float, str]] | None = None
    """Where and what, in place of round numbers."""
    log_x: bool = False
    missing: str = ""


def svg(chart: Chart, alone: bool = False) -> str:
    """The chart as an SVG element. alone: as a file of its own, with a namespace and a white ground."""
    named = [series for series in chart.series if series.name]
    height = TOP + PLOT_HEIGHT + BOTTOM + LEGEND_LINE * len(named) + 4
    space = " xmlns='http://www.w3.org/2000/svg' style='color:#222;background:#fff'" if alone else ""
    place = _places(chart)
    parts = [
        f"<svg{space} class=chart viewBox='0 0 {WIDTH} {height}' role=img aria-label='{escape(chart.title)}' "
        "font-family='system-ui,sans-serif' font-size='12' fill='currentColor'>",
        f"<text x='{LEFT}' y='17' font-size='14' font-weight='600'>{escape(chart.title)}</text>",
    ]
    if chart.series:
        parts += [_axes(chart, place), *(_drawn(series, place) for series in chart.series)]
        parts += [_legend(series, row) for row, series in enumerate(named)]
    else:
        parts += [
            f"<text x='{WIDTH / 2}' y='{TOP + 24 + 18 * row}' text-anchor='middle'>{escape(line)}</text>"
            for row, line in enumerate(textwrap.wrap(chart.missing, 50))
        ]
    text = "".join(parts) + "</svg>"
    return text.replace("class=chart", "class='chart'").replace("role=img", "role='img'")


def _places(chart: Chart) -> Callable[[float, float], tuple[float, float]]:
    """Numbers -> a place on the drawing; what lies outside the axes is put on their edge."""
    scale: Callable[[float], float] = math.log10 if chart.log_x else float
    low, high = scale(chart.x_range[0]), scale(chart.x_range[1])
    bottom, top = chart.y_range

    def place(x: float, y: float) -> tuple[float, float]:
        inside = min(max(x, chart.x_range[0]), chart.x_range[1])
        across = (scale(inside) - low) / (high - low)
        up = min(max((y - bottom) / (top - bottom), 0.0), 1.0)
        return LEFT + across * (WIDTH - LEFT - RIGHT), TOP + (1 - up) * PLOT_HEIGHT

    return place


def ticks(low: float, high: float, about: int = 5) -> list[tuple[float, str]]:
    """Round numbers from low to high with their text, nearly `about` of them."""
    raw = (high - low) / about
    step = 10.0 ** math.floor(math.log10(raw))
    step *= next(factor for factor in (1, 2, 5, 10) if factor * step >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    values = [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return [(value, f"{value:.{digits}f}") for value in values]


def _axes(chart: Chart, place: Callable[[float, float], tuple[float, float]]) -> str:
    (left, bottom), (right, top) = (
        place(chart.x_range[0], chart.y_range[0]),
        place(chart.x_range[1], chart.y_range[1]),
    )
    parts = []
    for value, text in ticks(*chart.y_range):
        _, y = place(chart.x_range[0], value)
        parts.append(f"<path d='M{left} {y:.1f}H{right}' stroke='currentColor' opacity='.15'/>")
        parts.append(f"<text x='{left - 6}' y='{y + 4:.1f}' text-anchor='end'>{text}</text>")
    for value, text in chart.x_ticks or ticks(*chart.x_range):
        x, _ = place(value, chart.y_range[0])
        parts.append(f"<path d='M{x:.1f} {bottom}v4' stroke='currentColor' opacity='.6'/>")
        parts.append(f"<text x='{x:.1f}' y='{bottom + 17}' text-anchor='middle'>{escape(text)}</text>")
    parts.append(f"<path d='M{left} {bottom}H{right}' stroke='currentColor' opacity='.6'/>")
    middle = (left + right) / 2
    parts.append(f"<text x='{middle}' y='{bottom + 35}' text-anchor='middle'>{escape(chart.x_label)}</text>")
    centre = (top + bottom) / 2
    upwards = f"x='12' y='{centre}' text-anchor='middle' transform='rotate(-90 12 {centre})'"
    parts.append(f"<text {upwards}>{escape(chart.y_label)}</text>")
    return "".join(parts)


def _drawn(series: Series, place: Callable[[float, float], tuple[float, float]]) -> str:
    colour, parts = COLOURS[series.colour], []
    if series.band is not None:
        across, low, high = series.band
        edge = [*zip(across, high, strict=True), *reversed(list(zip(across, low, strict=True)))]
        ring = "L".join(
            f"{x:.1f} {y:.1f}" for x, y in (place(*point) for point in edge if all(map(math.isfinite, point)))
        )
        parts.append(f"<path d='M{ring}Z' fill='{colour}' opacity='.2'/>" if ring else "")
    numbers = [point for point in zip(series.x, series.y, strict=True) if all(map(math.isfinite, point))]
    points = [place(*point) for point in numbers]
    if series.bars is not None:
        for at_x, under_y, over_y in zip(series.x, *series.bars, strict=True):
            (at, under), (_, over) = place(at_x, under_y), place(at_x, over_y)
            parts.append(
                f"<path d='M{at:.1f} {under:.1f}V{over:.1f}' stroke='{colour}' stroke-width='1.5' opacity='.6'/>"
            )
    if series.style == "dots":
        every = -(-len(points) // MAX_DOTS) or 1
        parts += [
            f"<circle cx='{x:.1f}' cy='{y:.1f}' r='2.4' fill='{colour}' opacity='.6'/>" for x, y in points[::every]
        ]
    elif points:
        words = [f"M{points[0][0]:.1f} {points[0][1]:.1f}"]
        for x, y in points[1:]:
            words.append(f"H{x:.1f}V{y:.1f}" if series.style == "step" else f"L{x:.1f} {y:.1f}")
        dashes = " stroke-dasharray='4 4'" if series.style == "dashed" else ""
        parts.append(f"<path d='{''.join(words)}' fill='none' stroke='{colour}' stroke-width='2'{dashes}/>")
        if series.bars is not None:
            parts += [f"<circle cx='{x:.1f}' cy='{y:.1f}' r='3' fill='{colour}'/>" for x, y in points]
    return "".join(parts)


def _legend(series: Series, row: int) -> str:
    y = TOP + PLOT_HEIGHT + BOTTOM + LEGEND_LINE * row + 4
    colour = COLOURS[series.colour]
    if series.style == "dots":
        sign = f"<circle cx='{LEFT + 9}' cy='{y}' r='3' fill='{colour}'/>"
    else:
        dashes = " stroke-dasharray='4 4'" if series.style == "dashed" else ""
        sign = f"<path d='M{LEFT} {y}h18' stroke='{colour}' stroke-width='2'{dashes}/>"
    return f"{sign}<text x='{LEFT + 25}' y='{y + 4}'>{escape(series.name)}</text>"
