"""Made-up outcomes of N cases, and the document that a report shows of them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from pleura.evaluation.metrics.bootstrap import bootstrap
from pleura.evaluation.metrics.operating import Candidates
from pleura.evaluation.metrics.siim import Outcomes, empty_floor
from pleura.evaluation.metrics.subgroups import Facts
from pleura.evaluation.report.document import Measured, account
from pleura.evaluation.scoring import CaseNumbers

NAN = float("nan")


def measured(positive: list[bool], called: list[bool] | None = None, **fields: Any) -> Measured:
    """Positives that are called have Dice 0.8, HD95 5 and a surface Dice of 0.7."""
    ill = np.array(positive, dtype=bool)
    told = ill if called is None else np.array(called, dtype=bool)
    scores = np.clip(np.random.default_rng(0).normal(0.4 + 0.2 * ill, 0.2), 0, 1).round(1)
    dice = np.where(ill & told, 0.8, (ill == told).astype(float))
    cases = []
    for one, found in zip(ill, told, strict=True):
        marks = Candidates((0.9,), ()) if one else Candidates((), (0.3,))
        surface = (5.0, 0.7) if one and found else (NAN, 0.0 if one else NAN)
        cases.append(CaseNumbers(marks, 0.01 * one, *surface))
    facts = Facts([case.area_share for case in cases], *[[None] * len(cases) for _ in range(4)])
    return Measured(Outcomes(ill, told, dice, scores), cases, facts, np.arange(len(cases)), **fields)


def document(given: Measured, resamples: int = 20) -> dict[str, Any]:
    """As `evaluate` writes it."""
    outcomes = given.outcomes
    columns = zip(outcomes.positive, outcomes.called, outcomes.dice, given.cases, strict=True)
    return {
        "pleura": "0.0.0",
        "split": "some <cases>",
        "positives": int(outcomes.positive.sum()),
        "negatives": int((~outcomes.positive).sum()),
        "floor": empty_floor(outcomes.positive),
        "verdict": "It beats & is beaten.",
        "findings": [{"severity": "error", "what": "it is <flipped>", "way_out": "turn it back"}],
        "triplet": {"top_threshold": 0.5, "min_pixels": 10, "bottom_threshold": 0.4},
        "triplet_tuned_on_these_cases": False,
        "tuned": {"in_sample": 0.9, "cross_fitted": None},
        "resamples": resamples,
        "metrics": {k: asdict(v) for k, v in bootstrap(outcomes.summary, given.patients, resamples).items()},
        **account(given, resamples),
        "data_sha256": "0" * 64,
        "checkpoint": {"fold": 0},
        "cases": [
            {
                "image_id": str(row),
                "positive": bool(positive),
                "called": bool(called),
                "siim_dice": float(dice),
                "area_share": case.area_share,
            }
            for row, (positive, called, dice, case) in enumerate(columns)
        ],
    }
