"""What commands print: results in words, as lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pleura.models.default import as_typed

if TYPE_CHECKING:  # the verbs import torch, which `pleura --help` must not
    from pleura.config.recipe import Recipe
    from pleura.data.prepare import Prepared
    from pleura.doctor import Examination
    from pleura.evaluation.compare import Comparison
    from pleura.evaluation.evaluate import Evaluation
    from pleura.evaluation.recalibrate import Recalibrated
    from pleura.evaluation.score import Score
    from pleura.evaluation.tune import Tuned
    from pleura.export.pack import Packed
    from pleura.inference.batch import BatchResult, BatchSettings
    from pleura.training.folds import FoldsSummary


def prepared(made: Prepared, out: Path) -> Iterator[str]:
    """A dataset in counts, its leaks, and the first problem of each kind."""
    card = made.dataset.card
    share = 100 * card["positive"] / card["cases"]
    yield f"{out}: {card['cases']} cases of {card['patients']} patients, {card['positive']} positive ({share:.1f} %)"
    if always := card.get("always_train"):
        yield f"  {always} of them are always trained on, and scored by in no fold"
    if made.passed_over:
        yield f"  {made.passed_over}"
    for leak in made.leaks:
        yield f"  {leak}"
    for kind, count in card["problems"].items():
        first = next(problem for problem in made.problems if problem.kind == kind)
        more = " ..." if count > 1 else ""
        yield f"  {count} {kind}: {first.file or first.image_id} ({first.reason}){more}"
    if card["problems"]:
        yield f"  all of them with reasons: {out / 'problems.csv'}"


def resolved(recipe: Recipe) -> Iterator[str]:
    """What a recipe comes to: its net, and by stage the settings that matter or are not the default."""
    from pleura.config.idle import idle_settings
    from pleura.config.training import StageConfig

    net = ", ".join(f"{key} {value}" for key, value in recipe.model.model_dump().items() if key in _NET)
    yield f"{recipe.name}: {net}; seed {recipe.seed}, tta {recipe.tta}"
    stages = [_flat(stage.model_dump(exclude={"name"})) for stage in recipe.stages]
    defaults = _flat(StageConfig(name="a").model_dump(exclude={"name"}))
    idle = idle_settings(recipe)
    keys = [key for key in defaults if key in _ALWAYS or any(stage.get(key) != defaults[key] for stage in stages)]
    width = max(map(len, keys)) + 2
    yield f"  {'stage':<{width}}" + "".join(f"{stage.name:<14} " for stage in recipe.stages).rstrip()
    for key in keys:
        yield f"  {key:<{width}}" + "".join(f"{_short(stage.get(key)):<14} " for stage in stages).rstrip()
    yield from (f"  {each}" for each in idle)


_NET = ("architecture", "encoder", "pretrained", "in_channels", "decoder_widths", "normalisation", "output_stride")
_ALWAYS = (
    *("size_px", "epochs", "batch_size", "optimizer", "lr", "positive_rate", "loss.bce", "loss.dice"),
    *("schedule.name", "select"),
)


def _flat(document: dict[str, Any], path: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in document.items():
        flat |= _flat(value, f"{path}{key}.") if isinstance(value, dict) and value else {path + key: value}
    return flat


def _short(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    return f"{value:g}" if isinstance(value, float) else f"{value}"


DISCLAIMER = "research software, not a medical device"


def predicted(done: BatchResult, settings: BatchSettings, is_default: bool) -> Iterator[str]:
    """How many radiographs, on how many something was found, and what to know of the others."""
    count = f"{done.predicted} radiograph{'' if done.predicted == 1 else 's'}"
    was = "was" if done.earlier == 1 else "were"
    earlier = f", {done.earlier} {was} done by an earlier run" if done.earlier else ""
    yield f"{settings.out}: {count}{earlier}; pneumothorax found on {done.positive} of {len(done.rows)}"
    if is_default:
        yield f"found by {settings.model_name}"
    if done.prevalence is not None:
        mixture = "as asked for" if settings.prevalence else "as the cases of the calibration; --prevalence for others"
        yield f"probabilities hold where {100 * done.prevalence:.3g} % are positive, {mixture}"
    yield from done.notes
    if noted := [row for row in done.rows if row["notes"]]:
        more = " ..." if len(noted) > 1 else ""
        yield f"{len(noted)} with a note in predictions.csv: {noted[0]['image_id']} ({noted[0]['notes']}){more}"
    yield DISCLAIMER


def predicted_document(done: BatchResult, settings: BatchSettings) -> dict[str, Any]:
    """The same for scripts."""
    return {
        "out": str(settings.out),
        "model": settings.model_name,
        "predicted": done.predicted,
        "earlier": done.earlier,
        "positive": done.positive,
        "prevalence": done.prevalence,
        "predictions": done.rows,
        "problems": [{"file": file, "reason": reason} for file, reason in done.problems],
        "notes": done.notes,
        "disclaimer": DISCLAIMER,
    }


def doubtful(made: Prepared) -> Iterator[str]:
    """A warning for each reason for which masks may not be what they are taken for, and how many."""
    by_reason: dict[str, list[str]] = {}
    for problem in made.problems:
        if problem.kind == "doubtful mask":
            by_reason.setdefault(problem.reason, []).append(problem.image_id or problem.file)
    for reason, names in by_reason.items():
        yield f"pleura: warning: {len(names)} ({', '.join(names[:3])}{' ...' if len(names) > 3 else ''}): {reason}"


def trained(model: Path, run: Path, data: Path) -> Iterator[str]:
    """Where the model is, and what to do with it."""
    yield str(model)
    yield f"next: pleura evaluate {as_typed(run)} --data {data}"


def evaluation(done: Evaluation) -> Iterator[str]:
    """Scores with their floor and intervals, the rule behind them, and the verdict."""
    from pleura.evaluation.report.page import NAMES

    yield f"{done.split}: {done.positives} positive, {done.negatives} negative; floor {done.floor:.6f}"
    rows = [(name, done.estimates[key].value, f"  {name:<36}{done.estimates[key]}") for key, (name, _) in NAMES.items()]
    rows.insert(3, _pooled(done.pooled_dice, 36))
    yield from _measurable(rows, done.positives, done.negatives)
    tuned = ", tuned on these very cases" if done.in_sample else ""
    yield f"  triplet {done.triplet}{tuned}"
    if done.tuned["cross_fitted"] is not None:
        in_sample, honest = done.tuned["in_sample"], done.tuned["cross_fitted"]
        yield f"  tuning it here, at 22.15 % positives: {in_sample:.4f} in sample, {honest:.4f} cross-fitted"
    yield from map(str, done.findings)
    yield done.verdict
    yield str(done.report)


def folds(summary: FoldsSummary) -> Iterator[str]:
    """Mean and spread over folds, and the pooled scores of the cases that each model did not see."""
    from pleura.evaluation.report.page import NAMES

    yield f"{len(summary.folds)} folds; floor of all their cases {summary.floor:.6f}"
    yield f"  {'':<36}{'mean over folds (sd)':<24}pooled, by triplets tuned on the other folds"
    for key, (name, _) in NAMES.items():
        mean, sd = summary.spread(key)
        yield f"  {name:<36}{f'{mean:.4f} ({sd:.4f})':<24}{summary.cross_fitted[key]}"
    yield "  each model's epoch was chosen on the cases that it is scored on here"
    yield str(summary.file)


def tuned(done: Tuned) -> Iterator[str]:
    """The old and the new triplet, what to expect of the new one, how much it wavers, calibration, and the files."""
    yield f"{done.cases} cases, {done.positives} positive; the best for {done.objective}"
    yield f"  triplet before   {done.old}: {done.old_score:.4f}"
    yield f"  triplet now      {done.new}: {done.in_sample:.4f} in sample"
    yield f"  to expect of it  {done.nested}, on patients it was not tuned on; optimism {done.optimism:.4f}"
    if done.objective.name == "dice_on_positives":
        yield f"                   at a specificity of {done.specificity:.4f} on other patients"
    nothing = len(done.spread.triplets) - len(done.spread.finding)
    parts = (("top", "top_threshold", ".3f"), ("pixels", "min_pixels", ".0f"), ("bottom", "bottom_threshold", ".3f"))
    ranges = [(name, done.spread.interval(part), form) for name, part, form in parts]
    told = [f"{name} {found[0]:{form}} to {found[1]:{form}}" for name, found, form in ranges if found]
    if told:
        yield f"  90 % of {len(done.spread.finding)} resamples choose {', '.join(told)}"
    if nothing:
        yield f"  on {nothing} of {len(done.spread.triplets)} resamples the best rule is to find nothing"
    if done.doubt:
        yield f"  whether these cases are new to the model is not known: {done.doubt}"
    yield from _calibration(done.calibration)
    for file in done.written:
        yield f"wrote {file}"


def packed(done: Packed) -> Iterator[str]:
    """The sizes before and after, what rounding did, and the file."""
    before, after = done.source_bytes / 1e6, done.out_bytes / 1e6
    yield f"{done.source}: {before:.2f} MB, packed {after:.2f} MB"
    yield f"  largest difference of a probability on two phantoms: {done.difference:.2g}"
    yield f"wrote {done.out}, sha256 {done.sha256}"


def recalibrated(done: Recalibrated) -> Iterator[str]:
    """What a site's cases changed, and what to expect of it."""
    share = f"{100 * done.weight:.0f} %"
    yield f"{done.cases} local cases, {done.positives} positive: they weigh {share}, the shipped values the rest"
    yield f"  triplet shipped  {done.shipped}"
    yield f"  best locally     {done.local}, for {done.objective}"
    yield f"  triplet now      {done.new}"
    doubt = "" if done.gain.low > 0 else "; it cannot be told from none"
    if done.gain.high < 0:
        doubt = "; that is a loss, and the shipped one stays"
    yield f"  gain by moving   {done.gain}, on patients it was not fitted on{doubt}"
    yield f"  image probabilities: Brier score lower by {done.brier_gain}, on the same"
    if done.doubt:
        yield f"  whether these cases are new to the model is not known: {done.doubt}"
    yield from _calibration(done.calibration)
    yield f"wrote {done.out}"


def _calibration(header: dict[str, Any]) -> Iterator[str]:
    from pleura.decision.calibration import positives_needed

    yield f"  calibration at {100 * header['prevalence']:.1f} % positives{'':<9}ECE before, after, held out; Brier"
    names = (("images", f"{header['method']} scaling"), ("pixels", f"temperature {header['temperature']:.3f}"))
    for part, how in names:
        found = header["quality"][part]
        numbers = (" ".join(f"{found[when][score]:.4f}" for when in found) for score in ("ece", "brier"))
        yield f"    {part}, {how:<34}{';  '.join(numbers)}"
    asked, rule = header["asked"], header["conformal"]
    within = f"under {100 * asked['alpha']:g} % of patients missed, with {100 * asked['confidence']:g} % confidence"
    if rule:
        yield f"  rules out below score {rule['threshold']:.4f}: {within} (from {rule['patients']} positive patients)"
    else:
        needed = positives_needed(asked["alpha"], asked["confidence"])
        yield f"  the data is too few to rule out with {within}: it takes {needed} positive patients"


def scored(done: Score, out: Path | None) -> Iterator[str]:
    """Masks of any tool: who they are of, the floor, findings, each number with its interval, and the verdict."""
    from pleura.decision.triplet import SIIM_PREVALENCE

    facts, estimates = done.document, done.estimates
    share = 100 * facts["positives"] / facts["images"]
    yield f"{facts['images']} images, {facts['positives']} positive (prevalence {share:.1f} %); floor {done.floor:.6f}"
    known = f"{facts['patients_known']} of them told" if facts["patients_known"] else "none told: each image is one"
    yield f"  intervals are 95 %, by {facts['patients']} patients ({known})"
    for finding in done.read.findings:
        yield f"  {finding}"
    floors = {"siim_dice": done.floor, "siim_dice_at_siim_prevalence": 1 - SIIM_PREVALENCE}
    names = {
        "siim_dice": "SIIM mean Dice",
        "siim_dice_at_siim_prevalence": "SIIM mean Dice at 22.15 % positives",
        "dice_on_positives": "Dice on positives",
        "sensitivity": "Sensitivity",
        "specificity": "Specificity",
        "ppv": "PPV",
        "npv": "NPV",
    }
    rows = [
        (
            name,
            estimates[key].value,
            f"  {name:<38}{estimates[key]}{f', floor {floors[key]:.4f}' if key in floors else ''}",
        )
        for key, name in names.items()
    ]
    rows.insert(3, _pooled(done.read.pooled_dice, 38))
    rows += _outlines(facts["surface"])
    for row in facts["strata"]:
        if row["by"] == "lesion size":
            name = f"Dice, lesion {row['group']}"
            line = f"  {name:<38}{_estimate(row['dice'])}, {row['positives']} images"
            rows.append((name, row["dice"]["value"], line))
    for row in facts["prevalence"]["rows"]:
        at = f"at {100 * row['prevalence']:g} % positives"
        line = f"  {'SIIM mean Dice ' + at:<38}{_estimate(row['siim_dice'])}, floor {row['floor']:.4f}"
        rows.append(("PPV at other shares", row["ppv"]["value"], f"  {'PPV ' + at:<38}{_estimate(row['ppv'])}"))
        rows.append(("SIIM mean Dice at other shares", row["siim_dice"]["value"], line))
    yield from _measurable(rows, facts["positives"], facts["negatives"])
    yield done.verdict
    if out:
        yield f"{out / 'score.json'}, {out / 'cases.csv'}"


def _pooled(value: float, width: int) -> tuple[str, float, str]:
    note = "of the pixels of all images together: not a mean, and not to be compared with one"
    return "pooled Dice", value, f"  {'pooled Dice':<{width}}{value:.4f}, {note}"


def _measurable(rows: Sequence[tuple[str, float, str]], positives: int, negatives: int) -> Iterator[str]:
    """The lines of what has a value, and one sentence on the rest. rows: name, value, line."""
    yield from (line for _, value, line in rows if value == value)
    without = list(dict.fromkeys(name for name, value, _ in rows if value != value))
    if without:
        missing = [name for name, count in (("positives", positives), ("negatives", negatives)) if not count]
        why = f"there are no {missing[0]} here" if missing else "nothing is found where it would be measured"
        yield f"  {why}, and so no {', no '.join(without)}"


def _outlines(surface: dict[str, Any]) -> Iterator[tuple[str, float, str]]:
    counted = f"{surface['hd95_cases']} positives, {surface['hd95_left_out']} without a prediction left out"
    median = f"median {surface['hd95_median']:.1f}; {counted}"
    name = f"HD95, {surface['unit']}"
    yield name, surface["hd95"]["value"], f"  {name:<38}{_estimate(surface['hd95'], 1)}, {median}"
    name = f"Surface Dice within {surface['tolerance']:g} {surface['unit']}"
    yield name, surface["surface_dice"]["value"], f"  {name:<38}{_estimate(surface['surface_dice'])}"


def _estimate(found: dict[str, float], digits: int = 4) -> str:
    value, low, high = (f"{found[key]:.{digits}f}" for key in ("value", "low", "high"))
    return f"{value} (95 % {low} to {high})"


def compared(done: Comparison) -> Iterator[str]:
    """Two predictors metric by metric, and whether the data can tell them apart."""
    yield done.cases
    yield f"  {'':<30}{'first':>9}{'second':>9}   first - second, 95 %              p, adjusted for all"
    for each in done.differences:
        difference = f"{each.difference.value:+.4f} ({each.difference.low:+.4f} to {each.difference.high:+.4f})"
        ps = f"{each.p:.4f}, {each.p_adjusted:.4f}"
        told = f"  {each.better} is better" if each.better else ""
        yield f"  {each.name:<30}{each.first:>9.4f}{each.second:>9.4f}   {difference:<32}  {ps}{told}"
    yield done.verdict


def examination(path: Path, found: Examination) -> Iterator[str]:
    """What a path is, and each finding with its way out, errors first."""
    yield f"{path}: {found.kind}"
    yield from (f"  {line}" for line in found.told)
    for finding in found.sorted:
        yield f"{finding.severity}: {finding.what}"
        yield f"  -> {finding.way_out}"
    if not found.findings:
        yield "nothing is wrong that the doctor looks for"
