"""The score around a triplet as a picture: is it a plateau, or a peak that another sample would move?"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pleura.decision.triplet import LEVELS, Triplet
from pleura.evaluation.nested import Landscape

DOT: dict[str, Any] = {"marker": ".", "linestyle": "", "color": "white", "markersize": 4, "alpha": 0.7}
CROSS: dict[str, Any] = {"marker": "+", "linestyle": "", "color": "#D55E00", "markersize": 14, "markeredgewidth": 2.5}


def landscape_png(landscape: Landscape, triplet: Triplet, resampled: Sequence[Triplet], objective: str) -> bytes:
    """Two maps of the score as a PNG: over both thresholds, and over the top threshold and the pixels that it asks for.

    The triplet is a cross, those that resamples of the patients chose are dots. Rules that are not allowed stay white.
    """
    with style.context(["default", {"font.size": 10}]):
        figure = Figure(figsize=(11, 4.6), layout="constrained", facecolor="white")
        FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2, sharey=True)
        shown = np.concatenate([landscape.thresholds.ravel(), landscape.areas.ravel()])
        limits = {"vmin": float(np.nanpercentile(shown, 20)), "vmax": float(np.nanmax(shown))}
        edges = np.arange(LEVELS + 1) / LEVELS
        left.pcolormesh(edges, edges, landscape.thresholds, cmap="viridis", **limits)
        pixels = np.append(landscape.min_pixels, landscape.min_pixels[-1] * 1.2) + 1.0
        drawn = right.pcolormesh(pixels, edges, landscape.areas, cmap="viridis", **limits)
        for rules, look in ((resampled, DOT), ([triplet], CROSS)):
            tops = [rule.top_threshold for rule in rules]
            left.plot([rule.bottom_threshold for rule in rules], tops, **look)
            right.plot([rule.min_pixels + 1 for rule in rules], tops, **look)
        left.set(xlabel="bottom threshold", ylabel="top threshold")
        right.set(xlabel="pixels that reach the top threshold, of 1024 x 1024, plus 1", xscale="log")
        right.set(xlim=(1, float(pixels[-1])))
        figure.colorbar(drawn, ax=(left, right), label=f"{objective} on these cases", extend="min")
        buffer = BytesIO()
        figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
