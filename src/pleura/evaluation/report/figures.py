"""The figures of a report, drawn from report.json's content alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pleura.evaluation.metrics.bootstrap import Estimate
from pleura.evaluation.metrics.operating import FROC_RATES, predictive_values
from pleura.evaluation.metrics.titles import METRICS
from pleura.evaluation.report.svg import Chart, Series

DIAGONAL = Series((0, 1), (0, 1), colour="grey", style="dashed")


def figures(document: Mapping[str, Any]) -> dict[str, Chart]:
    """The charts by the name of their file; what there are no numbers for says so in its place.

    document: as `evaluate` writes it. Without scores there are no curves and no calibration.
    """
    found = {"dice": _dice(document)}
    if "curves" in document:
        found |= {"roc": _roc(document), "pr": _pr(document), "froc": _froc(document)}
    if "calibration" in document:
        found |= {"calibration": _calibration(document)}
    return found | {"prevalence": _prevalence(document)}


def _known(value: float | None) -> bool:
    return value is not None and value == value


def _band(curve: Mapping[str, Any]) -> tuple[list[float], list[float], list[float]] | None:
    return (curve["band_x"], curve["low"], curve["high"]) if curve["low"] else None


def _one_class(document: Mapping[str, Any]) -> str:
    missing = "negatives" if document["negatives"] == 0 else "positives"
    return f"There is no such curve: it takes both classes, and there are no {missing} here."


def _roc(document: Mapping[str, Any]) -> Chart:
    curve, at = document["curves"]["roc"], document["decisions"]
    series = []
    if curve["x"]:
        name = f"image score, AUROC {Estimate.of(curve['area']).short('.2f')}"
        series = [DIAGONAL, Series(curve["x"], curve["y"], name, "blue", band=_band(curve))]
        here = Series(
            (1 - at["specificity"]["value"],), (at["sensitivity"]["value"],), "the decision rule", "orange", "dots"
        )
        series.append(here)
    return Chart("ROC", "1 − specificity", "sensitivity", series, missing=_one_class(document))


def _pr(document: Mapping[str, Any]) -> Chart:
    curve, at = document["curves"]["pr"], document["decisions"]
    series = []
    if curve["x"]:
        share = document["positives"] / (document["positives"] + document["negatives"])
        name = f"average precision {Estimate.of(curve['area']).short('.2f')}"
        series = [
            Series((0, 1), (share, share), f"by chance: the share of positives, {share:.2f}", "grey", "dashed"),
            Series(curve["x"], curve["y"], name, "blue", band=_band(curve)),
        ]
        if _known(at["ppv"]["value"]):
            point = ((at["sensitivity"]["value"],), (at["ppv"]["value"],))
            series.append(Series(*point, "the decision rule", "orange", "dots"))
    return Chart(
        "Precision and recall", "recall (sensitivity)", "precision (PPV)", series, missing=_one_class(document)
    )


def _froc(document: Mapping[str, Any]) -> Chart:
    curve = document["curves"]["froc"]
    series, reach = [], 1.0
    if curve["x"]:
        reach = min(max(curve["x"][-1] * 1.05, 0.25), FROC_RATES[-1])
        name = f"mean sensitivity {Estimate.of(curve['area']).short('.2f')}"
        series = [Series(curve["x"], curve["y"], name, "blue", "step", _band(curve))]
    missing = "There is no FROC: there is no lesion here."
    return Chart("FROC by lesion", "false alarms per image", "lesions found", series, (0.0, reach), missing=missing)


def _calibration(document: Mapping[str, Any]) -> Chart:
    calibration, series = document["calibration"], [DIAGONAL]
    for key, name, colour in (
        ("image", "image score", "blue"),
        ("image_calibrated", "image score, calibrated", "green"),
        ("pixels", "pixels", "orange"),
        ("pixels_calibrated", "pixels, calibrated", "purple"),
    ):
        if key not in calibration:
            continue
        part = calibration[key]
        told = f"{name}: ECE {part['ece']:.3f}, Brier {part['brier']:.3f}"
        columns = {
            column: [row.get(column) for row in part["bins"]] for column in ("predicted", "observed", "low", "high")
        }
        bars = (columns["low"], columns["high"]) if key.startswith("image") else None
        series.append(Series(columns["predicted"], columns["observed"], told, colour, bars=bars))
    return Chart("Calibration", "probability or score told", "share that is positive", series)


def _dice(document: Mapping[str, Any]) -> Chart:
    shares = {case["image_id"]: case["area_share"] for case in document["cases"] if case["positive"]}
    series, low, high = [], 0.001, 0.1
    for called, name, colour in ((True, "found", "blue"), (False, "missed", "orange")):
        rows = [case for case in document["cases"] if case["positive"] and case["called"] == called]
        if rows:
            x = [max(shares[case["image_id"]], 1e-5) for case in rows]
            series.append(Series(x, [case["siim_dice"] for case in rows], f"{name}: {len(rows)}", colour, "dots"))
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


def _prevalence(document: Mapping[str, Any]) -> Chart:
    at, dice = document["decisions"], document["prevalence"]["dice_on_positives"]
    sensitivity, specificity = at["sensitivity"]["value"], at["specificity"]["value"]
    series = []
    if _known(sensitivity) and _known(specificity):
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
        missing="It takes both classes to tell what holds where another share of images is positive.",
    )
