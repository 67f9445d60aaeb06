"""The sections of a model card that hold numbers: scores, groups, calibration and the decision rule."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pleura.decision.calibration import Calibration
from pleura.decision.triplet import SIIM_PREVALENCE, Triplet
from pleura.evaluation.metrics.bootstrap import Estimate
from pleura.evaluation.metrics.titles import METRICS, floors, outline_titles
from pleura.evaluation.report.document import EvaluationReport
from pleura.evaluation.report.markdown import fill, table
from pleura.evaluation.report.sections import DECISIONS, FEW

KEPT = (
    "pleura",
    "command",
    "split",
    "positives",
    "negatives",
    "floor",
    "verdict",
    "findings",
    "triplet",
    "triplet_tuned_on_these_cases",
    "tuned",
    "tta",
    "precision",
    "resamples",
    "metrics",
    "decisions",
    "surface",
    "strata",
    "prevalence",
    "data_sha256",
    "weights_sha256",
    "calibrations",
    "label_sources",
)
"""Of report.json, what travels with a model; of curves and calibration go the numbers alone."""
LISTED = ("siim_dice", "siim_dice_at_siim_prevalence", "dice_on_positives", "gain_over_empty", *DECISIONS[:2], "auroc")
AREAS = {
    "pr": "Area under precision and recall, of the image score",
    "froc": "Lesions found, mean over 1/8 to 8 false marks an image",
}
GROUPS = ("view", "sex", "age")


def kept(report: EvaluationReport) -> dict[str, Any]:
    """Return the part of a report that a model's header keeps: a few kilobytes, and no case by name."""
    document = report.to_json()
    calibration = {
        part: {score: found[score] for score in ("ece", "brier")} for part, found in document["calibration"].items()
    }
    curves = {name: {"area": document["curves"][name]["area"]} for name in ("roc", *AREAS)}
    curves["lesions"] = document["curves"]["lesions"]
    return {key: document[key] for key in KEPT} | {"calibration": calibration, "curves": curves}


def score_sections(
    name: str, header: Mapping[str, Any], evaluation: EvaluationReport | None, doubts: Sequence[str]
) -> Iterator[str]:
    """Yield scores, groups, calibration and the decision rule as pieces of Markdown; what was not measured is named."""
    yield "## Scores"
    if evaluation is None:
        yield "No evaluation is in its header, so that nothing can be said here. To measure it and to put it there:"
        yield (
            f"```sh\npleura evaluate {shlex.quote(name)} --data DATA --out report\n"
            f"pleura card {shlex.quote(name)} --evaluation report --out carded.safetensors\n```"
        )
        yield from _of_training(header["scores"])
    else:
        yield from (fill(f"**{doubt}**") for doubt in doubts)
        yield from _scores(name, evaluation)
        yield "## By size of the lesion and by group"
        yield from _groups(evaluation)
    yield "## Calibration"
    yield from _calibration(header["calibration"], evaluation)
    yield "## The decision rule"
    yield from _rule(header, evaluation)


def _of_training(scores: Mapping[str, Any]) -> Iterator[str]:
    known = [f"{METRICS[key].title} {scores[key]:.4f}" for key in LISTED if isinstance(scores.get(key), float)]
    if known:
        yield fill(
            f"What training wrote down ({scores.get('split', 'of which cases, it does not say')}), without intervals: "
            + "; ".join(known)
            + "."
        )


def _scores(name: str, found: EvaluationReport) -> Iterator[str]:
    words = shlex.split(found.command)
    words[2] = name  # of the same weights: where they are not, the doubts are printed
    out = [] if "--out" in words else ["--out", "report"]  # the default model's command has it: there it must be
    yield f"```sh\n{shlex.join([*words, *out])}\n```"
    cases = found.positives + found.negatives
    exact = "" if found.precision == "float32" else f", computed in {found.precision}"
    yield fill(
        f"On {found.split}; {found.positives:,} with a pneumothorax "
        f"({100 * found.positives / max(cases, 1):.1f} %; SIIM-ACR has {100 * SIIM_PREVALENCE:.2f} %), of a dataset "
        f"with the sha256 `{found.data_sha256}`. By the decision rule below; pleura {found.pleura}, mirror "
        f"image {'averaged in' if found.tta == 'flip' else 'not used'}{exact}. {found.summary}"
    )
    nothing = {
        **floors(found.floor),
        "dice_on_positives": 0.0,
        "sensitivity": 0.0,
        "specificity": 1.0,
        "auroc": 0.5,
    }
    rows = [
        _row(METRICS[key].title, found.metrics[key], f"{nothing[key]:.4f}" if key in nothing else "") for key in LISTED
    ]
    rows += [_row(title, getattr(found.curves, key).area) for key, title in AREAS.items()]
    surface = found.surface
    hd95, surface_dice = outline_titles(surface.unit, surface.tolerance)
    rows += [_row(surface_dice, surface.surface_dice, "0.0000"), _row(hd95, surface.hd95, form=".1f")]
    yield table(("score", "value", "95 % interval", "answering nothing"), rows)
    at = found.decisions
    yield fill(
        f"Of the images with a pneumothorax {at.true_positives} found, {at.false_negatives} missed; of those "
        f"without, {at.false_positives} predicted positive, {at.true_negatives} rightly empty. "
        f"{found.curves.lesions} lesions in all. HD95 leaves out "
        f"{surface.hd95_left_out} positives on which nothing is found; surface Dice counts them as 0. Intervals "
        f"resample patients {found.resamples} times; Wilson's for sensitivity and specificity."
    )
    yield from (fill(f"{each.severity.capitalize()}: {each.what}; {each.way_out}.", "* ") for each in found.findings)
    yield "The same decisions where another share of images is positive, with intervals by Jeffreys posteriors:"
    mixtures = [
        (
            f"{100 * row.prevalence:.4g} %",
            *(getattr(row, key).short() for key in ("ppv", "npv", "siim_dice")),
            f"{row.floor:.4f}",
        )
        for row in found.prevalence.rows
    ]
    yield table(
        ("positives", *(METRICS[key].title for key in ("ppv", "npv", "siim_dice")), "answering nothing"), mixtures
    )


def _row(title: str, estimate: Estimate, of_nothing: str = "", form: str = ".4f") -> tuple[str, ...]:
    return title, estimate.number(form), estimate.interval(form), of_nothing


def _groups(found: EvaluationReport) -> Iterator[str]:
    rows = []
    for row in found.subgroups:
        few = " (few)" if row.positives < FEW else ""
        numbers = [
            getattr(row, key).short() if of else "-"
            for key, of in (
                ("dice", row.positives),
                ("sensitivity", row.positives),
                ("specificity", row.negatives),
            )
        ]
        rows.append((row.by, row.group + few, row.positives, *numbers[:2], row.negatives or "-", numbers[2]))
    if rows:
        head = ("by", "group", "positives", "Dice on them", "sensitivity", "negatives", "specificity")
        yield table(head, rows)
    known = {row.by for row in found.subgroups}
    unknown = [by for by in GROUPS if by not in known]
    if unknown:
        yield f"By {', '.join(unknown)} nothing can be said: of no case here is it known."


def _calibration(header: Mapping[str, Any] | None, found: EvaluationReport | None) -> Iterator[str]:
    if header is None:
        yield "It has none: its image score orders images and is no probability. `pleura tune` fits one."
    fitted, measured = (header or {}).get("quality", {}), found.calibration if found else None
    rows = []
    for part, title in (("image", "images"), ("pixels", "pixels")):
        quality = fitted.get(title, {})
        before, after = (getattr(measured, key, None) for key in (part, f"{part}_calibrated"))
        numbers = (
            ("as the net gives them", vars(before) if before else quality.get("before")),
            ("calibrated", vars(after) if after else quality.get("after")),
            ("calibrated on other patients", quality.get("held_out")),
        )
        rows += [(title, how, f"{at['ece']:.4f}", f"{at['brier']:.4f}") for how, at in numbers if at]
    if rows:
        yield table(("probabilities of", "how", "ECE", "Brier score"), rows)
        yield fill(
            "ECE: the expected calibration error, the mean distance between probability and frequency over bins; lower "
            "is better for both."
            + (" The rows on other patients come from the fit itself (`pleura tune`, five folds)." if fitted else "")
            + ("" if found else " All rows do: no evaluation is in the header.")
        )
    if header is None:
        return
    share = f"{100 * header['prevalence']:.1f} %" if "prevalence" in header else "a share that is not known"
    yield fill(
        f"The image score becomes a probability by {header['method']} scaling, pixels by a temperature of "
        f"{header['temperature']:.3f}; fitted on {header.get('cases', 'some')} cases with {share} positives, and right "
        "for that share only: where pneumothorax is rarer, its probabilities are too high."
    )
    rule = Calibration.of(header).conformal
    yield fill(
        f"Below an image score of {rule.score} a pneumothorax is ruled out: under {100 * rule.alpha:g} % of patients "
        f"missed, with {100 * rule.confidence:g} % confidence, from {rule.patients} positive patients."
        if rule
        else "It has no threshold for ruling out: there were too few positive patients to set one."
    )


def _rule(header: Mapping[str, Any], found: EvaluationReport | None) -> Iterator[str]:
    triplet, tuned = Triplet.of(header["triplet"]), header["scores"].get("tuned")
    yield fill(triplet.in_words())
    if tuned and Triplet.of(tuned["triplet"]) == triplet:
        expected = Estimate(*tuned["nested"])
        yield fill(
            f"`pleura tune` chose it on {tuned['cases']} cases, {tuned['positives']} positive, as the best for "
            f"{tuned['in_words']}: {tuned['in_sample']:.4f} on those very cases. What to expect of such a choice on "
            f"patients that it has not seen is {expected}, by five nested folds, at a "
            f"specificity of {tuned['nested_specificity']:.4f}: the difference of {tuned['optimism']:+.4f} is optimism."
        )
    elif "recalibrated" in header["scores"]:
        yield "`pleura recalibrate` moved it towards a site's cases; `scores` in the header has what that gained."
    else:
        yield "Of its choice, the header holds no estimate on other patients: `pleura tune` makes one."
    if found is None:
        return
    if found.triplet_tuned_on_these_cases:
        yield fill("The scores above that depend on it are of cases that it was chosen on, and too good by that.")
    best = found.tuned
    if best.cross_fitted is not None and best.cross_fitted_interval is not None:
        honest = Estimate(best.cross_fitted, *best.cross_fitted_interval)
        yield fill(
            f"`pleura evaluate` makes the same estimate: the best rule for its cases scores {best.in_sample:.4f} at "
            f"{100 * SIIM_PREVALENCE:.2f} % positives; chosen on four fifths of the patients and scored on the fifth, "
            f"{honest}."
        )
