"""The report as one HTML file that needs no network; without a script it lacks the slider and the zoom."""

from __future__ import annotations

import importlib.resources
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from pleura.evaluation.metrics.titles import METRICS, SHOWN, floors
from pleura.evaluation.report.document import EvaluationReport
from pleura.evaluation.report.sections import DECISIONS, decisions, drawings, findings, groups, outlines, prevalence
from pleura.inference.overlay import DISCLAIMER


@dataclass(frozen=True)
class Picture:
    """One case of a gallery."""

    data_uri: str
    caption: str
    image_id: str


def page(title: str, body: str) -> str:
    """A page of HTML that stands alone: pleura's style and script inside, no network."""
    web = importlib.resources.files(__package__)
    style, script = (web.joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    viewport = "<meta name=viewport content='width=device-width,initial-scale=1'>"
    head = f"<!doctype html><html lang=en><meta charset=utf-8>{viewport}<title>{escape(title)}</title>"
    foot = f"<p class=soft>{DISCLAIMER.capitalize()}.</p>"
    return f"{head}\n<style>\n{style}</style>\n{body}\n{foot}\n<script>\n{script}</script></html>\n"


def render(report: EvaluationReport, galleries: Mapping[str, Sequence[Picture]]) -> str:
    """Return the report as a page of HTML, with pictures by the title of their gallery."""
    good = report.metrics["gain_over_empty"].low > 0
    positives, total = report.positives, report.positives + report.negatives
    parts = [
        f"<h1>How good is this model?</h1><p class=soft>pleura {escape(report.pleura)} on {escape(report.split)}.</p>",
        f"<p class='verdict{' good' if good else ''}'>{escape(report.summary)}</p>",
        findings(report),
        f"<p>{positives} of {total} cases have a pneumothorax ({100 * positives / max(total, 1):.1f} %; SIIM-ACR has "
        f"22.15 %). Answering “empty” every time would score {report.floor:.4f} here: that is the floor.</p>",
        _metrics(report),
        decisions(report),
        prevalence(report),
        drawings(report),
        groups(report),
        outlines(report),
        _decision(report),
        *(gallery(title, pictures) for title, pictures in galleries.items() if pictures),
        _origin(report),
    ]
    return page("pleura report", "\n".join(part for part in parts if part))


def gallery(title: str, pictures: Sequence[Picture]) -> str:
    """A heading and a grid of pictures that a click, or Enter, enlarges; Escape goes back, arrows to the next."""
    figures = (
        f"<figure><button class=zoom><img loading=lazy alt='{escape(picture.caption)}' "
        f"src='{picture.data_uri}'></button>"
        f"<figcaption>{escape(picture.caption)}<br><span>{escape(picture.image_id)}</span></figcaption></figure>"
        for picture in pictures
    )
    legend = "<p class=soft>Red: predicted. Green: truth. A click enlarges.</p>"
    return f"<h2>{escape(title)}</h2>{legend}<div class=gallery>{''.join(figures)}</div>"


def _origin(report: EvaluationReport) -> str:
    facts = ", ".join(f"{key} {value}" for key, value in report.checkpoint.items())
    computed = f"<br>Computed in {escape(report.computed_in)}" if report.computed_in else ""
    return (
        f"<h2>Where this comes from</h2><p class=soft>Checkpoint: <code>{escape(facts)}</code><br>"
        f"Data: sha256 <code>{escape(report.data_sha256)}</code>{computed}</p>"
    )


def _metrics(report: EvaluationReport) -> str:
    def title(key: str) -> str:
        return f"<tr><td>{METRICS[key].title}<div class=soft>{METRICS[key].meaning}</div>"

    rows, at_floor = [], floors(report.floor)
    for key in SHOWN:
        if key in DECISIONS:
            continue  # they have a table of their own
        estimate = report.metrics[key]
        if estimate.value != estimate.value:
            rows.append(f"{title(key)}<td class=n colspan=3>{estimate.number()}")
            continue
        against = f"<div class=soft>floor {at_floor[key]:.4f}</div>" if key in at_floor else ""
        rows.append(
            f"{title(key)}<td class=n><strong>{estimate.number()}</strong>{against}"
            f"<td class=n>{estimate.interval()}<td><div class=bar><i style='left:{100 * estimate.low:.1f}%;"
            f"width:{100 * (estimate.high - estimate.low):.1f}%'></i>"
            f"<b style='left:{100 * estimate.value:.1f}%'></b></div>"
        )
    pooled = report.pooled_dice
    if pooled == pooled:
        rows.append(f"{title('pooled_dice')}<td class=n>{pooled:.4f}<td class=n colspan=2>")
    return (
        "<div class=scroll tabindex=0><table class=metrics><tr><th>Metric<th>Value<th>95 % interval<th>0 to 1"
        + "".join(rows)
        + "</table></div>"
        f"<p class=soft>Intervals: bootstrap over patients, {report.resamples} resamples. "
        "An AUROC of 1 has no interval worth the name.</p>"
    )


def _decision(report: EvaluationReport) -> str:
    rule, tuned = report.triplet.in_words(), report.tuned
    in_sample = (
        " It was tuned on these very cases, so that the scores above that depend on it are too good."
        if report.triplet_tuned_on_these_cases
        else ""
    )
    honest = "too few patients to say what tuning would keep"
    if tuned.cross_fitted is not None:
        optimism = tuned.in_sample - tuned.cross_fitted
        honest = (
            f"tuned on four fifths of the patients and scored on the fifth, {tuned.cross_fitted:.4f}: "
            f"an optimism of {optimism:+.4f}"
        )
    return (
        "<h2>The decision rule</h2>"
        f"<p>{rule}{in_sample} "
        "The best rule for these cases would "
        f"score {tuned.in_sample:.4f} (at 22.15 % positives); {honest}.</p>"
    )
