"""The figures of a report, drawn from its numbers alone."""

from __future__ import annotations

from math import isnan

from pleura.evaluation.metrics.operating import FROC_RATES, predictive_values
from pleura.evaluation.metrics.titles import METRICS
from pleura.evaluation.report.document import CurvePoints, EvaluationReport
from pleura.evaluation.report.svg import Chart, Series

DIAGONAL = Series((0, 1), (0, 1), colour="grey", style="dashed")


def figures(report: EvaluationReport) -> dict[str, Chart]:
    """Return the charts by the name of their file; one without numbers has a sentence in their place."""
    return {
        "dice": _dice(report),
        "roc": _roc(report),
        "pr": _pr(report),
        "froc": _froc(report),
        "calibration": _calibration(report),
        "prevalence": _prevalence(report),
    }


def _band(curve: CurvePoints) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]] | None:
    return (curve.band_x, curve.low, curve.high) if curve.low else None


def _one_class(report: EvaluationReport) -> str:
    missing = "negatives" if report.negatives == 0 else "positives"
    return f"There is no such curve: it takes both classes, and there are no {missing} here."


def _roc(report: EvaluationReport) -> Chart:
    curve, at = report.curves.roc, report.decisions
    series = []
    if curve.x:
        name = f"image score, AUROC {curve.area.short('.2f')}"
        series = [DIAGONAL, Series(curve.x, curve.y, name, "blue", band=_band(curve))]
        here = Series((1 - at.specificity.value,), (at.sensitivity.value,), "the decision rule", "orange", "dots")
        series.append(here)
    return Chart("ROC", "1 − specificity", "sensitivity", series, missing=_one_class(report))


def _pr(report: EvaluationReport) -> Chart:
    curve, at = report.curves.pr, report.decisions
    series = []
    if curve.x:
        share = report.positives / (report.positives + report.negatives)
        name = f"average precision {curve.area.short('.2f')}"
        series = [
            Series((0, 1), (share, share), f"by chance: the share of positives, {share:.2f}", "grey", "dashed"),
            Series(curve.x, curve.y, name, "blue", band=_band(curve)),
        ]
        if not isnan(at.ppv.value):
            point = ((at.sensitivity.value,), (at.ppv.value,))
            series.append(Series(*point, "the decision rule", "orange", "dots"))
    return Chart("Precision and recall", "recall (sensitivity)", "precision (PPV)", series, missing=_one_class(report))


def _froc(report: EvaluationReport) -> Chart:
    curve = report.curves.froc
    series, reach = [], 1.0
    if curve.x:
        reach = min(max(curve.x[-1] * 1.05, 0.25), FROC_RATES[-1])
        name = f"mean sensitivity {curve.area.short('.2f')}"
        series = [Series(curve.x, curve.y, name, "blue", "step", _band(curve))]
    missing = "There is no FROC: there is no lesion here."
    return Chart("FROC by lesion", "false alarms per image", "lesions found", series, (0.0, reach), missing=missing)


def _calibration(report: EvaluationReport) -> Chart:
    calibration, series = report.calibration, [DIAGONAL]
    for part, name, colour in (
        (calibration.image, "image score", "blue"),
        (calibration.image_calibrated, "image score, calibrated", "green"),
        (calibration.pixels, "pixels", "orange"),
        (calibration.pixels_calibrated, "pixels, calibrated", "purple"),
    ):
        if part is None:
            continue
        title = f"{name}: ECE {part.ece:.3f}, Brier {part.brier:.3f}"
        predicted, observed = [each.predicted for each in part.bins], [each.observed for each in part.bins]
        low = [each.low for each in part.bins if each.low is not None]
        high = [each.high for each in part.bins if each.high is not None]
        series.append(Series(predicted, observed, title, colour, bars=(low, high) if low else None))
    return Chart("Calibration", "probability or score", "share that is positive", series)


def _dice(report: EvaluationReport) -> Chart:
    shares = {case.image_id: case.area_share for case in report.cases if case.positive}
    series, low, high = [], 0.001, 0.1
    for predicted_positive, name, colour in ((True, "found", "blue"), (False, "missed", "orange")):
        rows = [case for case in report.cases if case.positive and case.predicted_positive == predicted_positive]
        if rows:
            x = [max(shares[case.image_id], 1e-5) for case in rows]
            series.append(Series(x, [case.siim_dice for case in rows], f"{name}: {len(rows)}", colour, "dots"))
            low, high = min(low, min(x) / 1.3), max(high, max(x) * 1.3)
    marks = [(10.0**power, f"{100 * 10.0**power:g} %") for power in range(-5, 1) if low <= 10.0**power <= high]
    return Chart(
        "Dice of each positive",
        "size of the lesion, share of the image",
        "Dice",
        series,
        (low, high),
        x_ticks=marks,
        log_x=True,
        missing="There are no positives here.",
    )


def _prevalence(report: EvaluationReport) -> Chart:
    at, dice = report.decisions, report.prevalence.dice_on_positives
    sensitivity, specificity = at.sensitivity.value, at.specificity.value
    series = []
    if not isnan(sensitivity) and not isnan(specificity):
        shares = [0.005 * 1.08**step for step in range(61)]
        values = [predictive_values(sensitivity, specificity, share) for share in shares]
        means = [share * dice + (1 - share) * specificity for share in shares]
        series = [
            Series(shares, [1 - share for share in shares], "SIIM Dice of answering nothing", "grey", "dashed"),
            Series(shares, [ppv for ppv, _ in values], "PPV", "blue"),
            Series(shares, [npv for _, npv in values], "NPV", "green"),
            Series(shares, means, METRICS["siim_dice"].title, "orange"),
        ]
    marks = [(share, f"{100 * share:g} %") for share in (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)]
    return Chart(
        "At another share of positives",
        "share of positives",
        "",
        series,
        (0.005, 0.5),
        x_ticks=marks,
        log_x=True,
        missing="It takes both classes to compute scores at another share of positives.",
    )
