"""The parts of a report's page: each is a function of the report and returns a piece of HTML."""

from __future__ import annotations

import json
from html import escape
from itertools import groupby
from math import isnan

from pleura.data.problems import by_severity
from pleura.evaluation.metrics.bootstrap import Estimate
from pleura.evaluation.metrics.titles import METRICS, outline_titles
from pleura.evaluation.report.document import EvaluationReport
from pleura.evaluation.report.figures import figures
from pleura.evaluation.report.svg import svg

DECISIONS = ("sensitivity", "specificity", "ppv", "npv")
"""Metrics with a table of their own."""
FEW = 10
"""Cases below which a group's numbers are marked as few."""


def findings(report: EvaluationReport) -> str:
    """Return what the checks found, the worst first; nothing where they found nothing."""
    items = (
        f"<li class='{finding.severity}'><b>{finding.severity.capitalize()}.</b> "
        f"{escape(_sentence(finding.what))} <span class=soft>{escape(_sentence(finding.way_out))}</span>"
        for finding in by_severity(report.findings)
    )
    return f"<ul class=findings>{''.join(items)}</ul>" if report.findings else ""


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?", "!")) else ".")


def decisions(report: EvaluationReport) -> str:
    """The four counts, and the four shares with Wilson's intervals."""
    counts = report.decisions
    rows = "".join(
        f"<tr><td>{METRICS[key].title}<div class=soft>{METRICS[key].meaning}</div>"
        f"<td class=n>{_shown(getattr(counts, key))}"
        for key in DECISIONS
    )
    return (
        "<h2>What it decides</h2><div class=pair><table class=counts><tr><th><th>found<th>nothing found"
        f"<tr><th>pneumothorax<td class='n right'>{counts.true_positives}<td class=n>{counts.false_negatives}"
        f"<tr><th>none<td class=n>{counts.false_positives}<td class='n right'>{counts.true_negatives}</table>"
        f"<table>{rows}</table></div>"
        "<p class=soft>Intervals: Wilson, 95 %, each image for itself.</p>"
    )


def _shown(estimate: Estimate, form: str = ".3f") -> str:
    number, interval = estimate.number(form), estimate.interval(form)
    if estimate.value != estimate.value:
        return f"<span class=soft>{number}</span>"
    return f"<strong>{number}</strong> <span class='soft range'>{f'({interval})' if interval else ''}</span>"


def drawings(report: EvaluationReport) -> str:
    """All figures, side by side where there is room."""
    charts = "".join(f"<figure>{svg(chart)}</figure>" for chart in figures(report).values())
    bands = "Bands and intervals: 95 %, resampling patients; Wilson's at the bins of the calibration. "
    froc = (
        "FROC: a lesion is a connected component of the truth; it is found by marks that cover a tenth of it, and a "
        "mark that touches none is a false alarm. Its number: the mean sensitivity at 1/8 to 8 false alarms per image. "
    )
    score = "The image score orders images; where it is far from the diagonal, it is not a probability."
    return (
        f"<h2>Curves</h2><div class=charts>{charts}</div><p class=soft>{bands}"
        f"{froc}{score} "
        "The same figures are files in <code>figures/</code>.</p>"
    )


def groups(report: EvaluationReport) -> str:
    """Dice, sensitivity and specificity by what is known of the cases."""
    rows = []
    for by, members in groupby(report.subgroups, key=lambda row: row.by):
        rows.append(f"<tr class=by><th colspan=5>{escape(by.capitalize())}")
        for row in members:
            few = " <span class=few>few</span>" if row.positives < FEW else ""
            lesion = by in ("lesion size", "side")
            count = f" <span class=soft>of&nbsp;{row.negatives}</span>" if row.negatives else ""
            specificity = "" if lesion else f"{_shown(row.specificity, '.2f')}{count}"
            rows.append(
                f"<tr><td>{escape(row.group)}{few}<td class=n>{row.positives}"
                f"<td class=n>{_shown(row.dice, '.2f')}<td class=n>{_shown(row.sensitivity, '.2f')}"
                f"<td class=n>{specificity}"
            )
    known = {row.by for row in report.subgroups}
    unknown = [name for name in ("view", "sex", "age") if name not in known]
    rest = f" Of no case here is the {' or the '.join(unknown)} known." if unknown else ""
    head = "<tr><th>Group<th>Positives<th>Dice on positives<th>Sensitivity<th>Specificity"
    return (
        f"<h2>Who it works for</h2><div class=scroll tabindex=0><table class=groups>{head}{''.join(rows)}</table></div>"
        "<p class=soft>A difference between groups whose intervals overlap may be chance; with many groups, some "
        f"differ by chance.{rest}</p>"
    )


def outlines(report: EvaluationReport) -> str:
    """How far the outlines are apart, on the positives."""
    surface = report.surface
    if surface.hd95_cases + surface.hd95_left_out == 0:
        return "<h2>Outlines</h2><p>There are no positives, and so no outlines to compare.</p>"
    distance_title, dice_title = outline_titles(surface.unit, surface.tolerance)
    left_out = surface.hd95_left_out
    missed = f"; {left_out} of {left_out + surface.hd95_cases} have none, because nothing is found on them"
    distance = _shown(surface.hd95, ".1f")
    if surface.hd95_cases:
        distance += f" <span class=soft>median {surface.hd95_median:.1f}</span>"
    return (
        "<h2>Outlines</h2><div class=scroll tabindex=0><table>"
        f"<tr><td>{distance_title}<div class=soft>95th percentile of the distances between the outlines, on positives"
        f"{missed if left_out else ''}</div><td class=n>{distance}"
        f"<tr><td>{dice_title}<div class=soft>share of both outlines that lies within that distance of the "
        f"other; 0 where nothing is found</div><td class=n>{_shown(surface.surface_dice)}</table></div>"
    )


def prevalence(report: EvaluationReport) -> str:
    """What the same decisions are worth where another share of images is positive: a table, and a slider."""
    at, dice = report.decisions, report.prevalence.dice_on_positives
    numbers = {"sensitivity": at.sensitivity.value, "specificity": at.specificity.value, "dice": dice}
    title = "<h2>Where pneumothorax is rarer</h2>"
    if any(map(isnan, numbers.values())):
        return title + "<p>There are no positives, or no negatives, here: nothing can be said of other mixtures.</p>"
    rows = "".join(
        f"<tr><td class=n>{100 * row.prevalence:.4g} %<td class=n>{_shown(row.ppv, '.2f')}"
        f"<td class=n>{_shown(row.npv, '.2f')}<td class=n>{_shown(row.siim_dice)}<td class=n>{row.floor:.3f}"
        for row in report.prevalence.rows
    )
    data = " ".join(f"data-{name}='{value:.6f}'" for name, value in numbers.items())
    if report.prevalence.slider:
        data += f" data-intervals='{json.dumps(report.prevalence.slider, separators=(',', ':'))}'"
    slider = (
        f"<div class=shift {data} hidden><label>Share of positives <output data-show=share></output>"
        "<input type=range min=0 max=1000 value=500></label><div class=tiles>"
        "<div><span>PPV</span><output data-show=ppv></output><small data-range=0></small></div>"
        "<div><span>NPV</span><output data-show=npv></output><small data-range=2></small></div>"
        "<div><span>SIIM mean Dice</span><output data-show=dice></output><small data-range=4></small></div>"
        "<div><span>answering nothing</span><output data-show=floor></output></div></div></div>"
    )
    return (
        f"{title}<p>The same sensitivity, specificity and Dice on positives, with another share of positives. In an "
        "emergency department it is a few per cent; in SIIM-ACR 22.</p>"
        f"{slider}<div class=scroll tabindex=0><table class=mixtures>"
        "<tr><th>Positives<th>PPV<th>NPV<th>SIIM mean Dice<th>Floor"
        f"{rows}</table></div><p class=soft>Intervals: Jeffreys posteriors of sensitivity and specificity, and Dice on "
        "positives by resampling patients.</p>"
    )
