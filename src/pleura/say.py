"""What commands print: results in words, as lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the verbs import torch, which `pleura --help` must not
    from pleura.crossval import FoldsSummary
    from pleura.evaluate import Evaluation
    from pleura.prepare import Prepared


def prepared(made: Prepared, out: Path) -> Iterator[str]:
    """A dataset in counts, its leaks, and the first problem of each kind."""
    card = made.dataset.card
    share = 100 * card["positive"] / card["cases"]
    yield f"{out}: {card['cases']} cases of {card['patients']} patients, {card['positive']} positive ({share:.1f} %)"
    for leak in made.leaks:
        yield f"  {leak}"
    for kind, count in card["problems"].items():
        first = next(problem for problem in made.problems if problem.kind == kind)
        more = " ..." if count > 1 else ""
        yield f"  {count} {kind}: {first.file or first.image_id} ({first.reason}){more}"
    if card["problems"]:
        yield f"  all of them with reasons: {out / 'problems.csv'}"


def trained(model: Path, run: Path, data: Path) -> Iterator[str]:
    """Where the model is, and what to do with it."""
    yield str(model)
    yield f"next: pleura evaluate {run} --data {data}"


def evaluation(done: Evaluation) -> Iterator[str]:
    """Scores with their floor and intervals, the rule behind them, and the verdict."""
    from pleura.measure.report import NAMES

    yield f"{done.split}: {done.positives} positive, {done.negatives} negative; floor {done.floor:.6f}"
    for key, (name, _) in NAMES.items():
        yield f"  {name:<36}{done.estimates[key]}"
    triplet, tuned = done.triplet, ", tuned on these very cases" if done.in_sample else ""
    yield f"  triplet {triplet.top_threshold:.3f} / {triplet.min_pixels} px / {triplet.bottom_threshold:.3f}{tuned}"
    if done.tuned["cross_fitted"] is not None:
        in_sample, honest = done.tuned["in_sample"], done.tuned["cross_fitted"]
        yield f"  tuning it here, at 22.15 % positives: {in_sample:.4f} in sample, {honest:.4f} cross-fitted"
    yield done.verdict
    yield str(done.report)


def folds(summary: FoldsSummary) -> Iterator[str]:
    """Mean and spread over folds, and the pooled scores of the cases that each model did not see."""
    from pleura.measure.report import NAMES

    yield f"{len(summary.folds)} folds; floor of all their cases {summary.floor:.6f}"
    yield f"  {'':<36}{'mean over folds (sd)':<24}pooled, by triplets tuned on the other folds"
    for key, (name, _) in NAMES.items():
        mean, sd = summary.spread(key)
        yield f"  {name:<36}{f'{mean:.4f} ({sd:.4f})':<24}{summary.cross_fitted[key]}"
    yield "  each model's epoch was chosen on the cases that it is scored on here"
    yield str(summary.file)
