"""Made-up results of N cases, and the report that shows them."""

from __future__ import annotations

from typing import Any

import numpy as np

from pleura.data.problems import Finding
from pleura.decision.triplet import Triplet
from pleura.evaluation.metrics.bootstrap import bootstrap
from pleura.evaluation.metrics.operating import Candidates
from pleura.evaluation.metrics.siim import CaseResults, empty_floor
from pleura.evaluation.metrics.subgroups import Facts, subgroups
from pleura.evaluation.report.document import CaseRow, EvaluationReport, TunedHere
from pleura.evaluation.report.parts import (
    Measured,
    calibration_of,
    curves_of,
    decisions_of,
    prevalence_of,
    surface_of,
)
from pleura.evaluation.scoring import CaseNumbers

NAN = float("nan")


def measured(positive: list[bool], predicted_positive: list[bool] | None = None) -> Measured:
    """Positives that are found have Dice 0.8, HD95 5 and a surface Dice of 0.7."""
    ill = np.array(positive, dtype=bool)
    found = ill if predicted_positive is None else np.array(predicted_positive, dtype=bool)
    scores = np.clip(np.random.default_rng(0).normal(0.4 + 0.2 * ill, 0.2), 0, 1).round(1)
    dice = np.where(ill & found, 0.8, (ill == found).astype(float))
    cases = []
    for one, is_found in zip(ill, found, strict=True):
        marks = Candidates((0.9,), ()) if one else Candidates((), (0.3,))
        surface = (5.0, 0.7) if one and is_found else (NAN, 0.0 if one else NAN)
        cases.append(CaseNumbers(marks, 0.01 * one, *surface))
    facts = Facts([case.area_share for case in cases], *[[None] * len(cases) for _ in range(4)])
    return Measured(CaseResults(ill, found, dice, scores), cases, facts, np.arange(len(cases)))


def report_of(given: Measured, resamples: int = 20, **calibration: Any) -> EvaluationReport:
    """As `evaluate` makes it; calibration: the options of `calibration_of`."""
    results = given.results
    columns = zip(results.positive, results.predicted_positive, results.dice, given.cases, strict=True)
    return EvaluationReport(
        pleura="0.0.0",
        split="some <cases>",
        positives=int(results.positive.sum()),
        negatives=int((~results.positive).sum()),
        floor=empty_floor(results.positive),
        summary="It beats & is beaten.",
        findings=(Finding("error", "it is <flipped>", "turn it back"),),
        triplet=Triplet(0.5, 10, 0.25),
        triplet_tuned_on_these_cases=False,
        tuned=TunedHere(triplet=Triplet(), in_sample=0.9, cross_fitted=None),
        tta="none",
        resamples=resamples,
        metrics=bootstrap(results.summary, given.patients, resamples),
        decisions=decisions_of(results),
        surface=surface_of(given, resamples),
        subgroups=subgroups(given.facts, results, given.patients, resamples),
        prevalence=prevalence_of(results, given.patients),
        curves=curves_of(given, resamples),
        calibration=calibration_of(results, **calibration),
        data_sha256="0" * 64,
        checkpoint={"fold": 0},
        cases=tuple(
            CaseRow(
                image_id=str(row),
                positive=bool(positive),
                predicted_positive=bool(found),
                siim_dice=float(dice),
                score=0.5,
                area_share=case.area_share,
                hd95=case.hd95,
                surface_dice=case.surface_dice,
            )
            for row, (positive, found, dice, case) in enumerate(columns)
        ),
        command="pleura evaluate model --data DATA",
    )
