"""Titles of the metrics for tables, pages and messages, and what each means."""

from __future__ import annotations

from dataclasses import dataclass

from pleura.decision.triplet import SIIM_PREVALENCE


@dataclass(frozen=True)
class Metric:
    """A metric in words."""

    title: str
    meaning: str = ""


METRICS = {
    "siim_dice": Metric("SIIM mean Dice", "1 where both masks are empty, 0 where exactly one is"),
    "siim_dice_at_siim_prevalence": Metric(
        f"SIIM mean Dice at {100 * SIIM_PREVALENCE:.2f} % positives", "re-weighted to the share of SIIM-ACR 2019"
    ),
    "dice_on_positives": Metric("Dice on positives", "mean over the cases that have a pneumothorax"),
    "gain_over_empty": Metric("SIIM mean Dice above the floor", "the floor: what the empty predictor scores"),
    "sensitivity": Metric("Sensitivity", "of the positives, those on which anything is found"),
    "specificity": Metric("Specificity", "of the negatives, those on which nothing is found"),
    "ppv": Metric("PPV", "of the images on which anything is found, the positives, at this share of positives"),
    "npv": Metric("NPV", "of the images on which nothing is found, the negatives, at this share of positives"),
    "auroc": Metric("AUROC of the image score", "does not depend on the thresholds"),
    "pooled_dice": Metric(
        "Pooled Dice", "of the pixels of all images together: no mean over images, and not to be compared with one"
    ),
}
"""By the key of report.json, score.json and compare.json."""
SHOWN = ("siim_dice", "siim_dice_at_siim_prevalence", "dice_on_positives", "sensitivity", "specificity", "auroc")
"""The metrics of a model that are shown one below the other."""


OUTCOMES = {
    (True, True): "found",
    (True, False): "missed",
    (False, True): "false alarm",
    (False, False): "rightly empty",
}
"""A case in words, by whether it is positive and whether it is predicted positive."""


def floors(floor: float) -> dict[str, float]:
    """Scores of the empty predictor by metric; floor: its SIIM mean Dice on the cases, the share of negatives."""
    return {"siim_dice": floor, "siim_dice_at_siim_prevalence": 1 - SIIM_PREVALENCE}


def outline_titles(unit: str, tolerance: float) -> tuple[str, str]:
    """Titles of HD95 and of the surface Dice, by the unit and the tolerance of a report; px is of 1024 x 1024."""
    unit = "px of 1024 x 1024" if unit == "px" else unit
    return f"HD95, {unit}", f"Surface Dice within {tolerance:g} {unit}"
