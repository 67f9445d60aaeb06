"""The report of an evaluation as a tree of types, and as the JSON of report.json and score.json."""

from __future__ import annotations

import functools
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from typing import Any, Literal

from pleura.data.problems import Finding
from pleura.decision.triplet import Triplet
from pleura.errors import InputError
from pleura.evaluation.metrics.bootstrap import Estimate
from pleura.evaluation.metrics.subgroups import Subgroup

FORMAT = 1
"""Of report.json; what has no `format` was written before there were numbers, and has the same keys."""
NAN = float("nan")


def _key(name: str, **default: Any) -> Any:
    """A field that has another name in the JSON, where a word of format 1 is no longer the one used here."""
    return field(metadata={"key": name}, **default)


@dataclass(frozen=True, kw_only=True)
class Decisions:
    """How the decision rule did on the cases: four counts, and four shares with Wilson's intervals."""

    true_positives: int
    false_positives: int
    true_negatives: int
    false_negatives: int
    sensitivity: Estimate
    specificity: Estimate
    ppv: Estimate
    npv: Estimate


@dataclass(frozen=True, kw_only=True)
class Surface:
    """How far the outlines of both masks are apart, on the positives."""

    unit: str
    """Of the distances: `mm`, or `px` of an image of 1024 x 1024."""
    tolerance: float
    """Of the surface Dice, in the unit."""
    hd95: Estimate
    """Mean over the positives on which anything is found."""
    hd95_median: float
    hd95_cases: int
    hd95_left_out: int
    """Positives without a distance, because nothing is found on them."""
    surface_dice: Estimate
    """Mean over the positives, 0 where nothing is found."""


@dataclass(frozen=True, kw_only=True)
class AtPrevalence:
    """The same decisions where another share of images is positive."""

    prevalence: float
    floor: float
    ppv: Estimate
    npv: Estimate
    siim_dice: Estimate


@dataclass(frozen=True, kw_only=True)
class Prevalence:
    """What the decisions are worth at other shares of positives."""

    dice_on_positives: float
    rows: tuple[AtPrevalence, ...]
    slider: tuple[tuple[float, ...], ...] = ()
    """By even steps of the share's logarithm: the ends of the intervals of PPV, NPV and SIIM mean Dice."""


@dataclass(frozen=True, kw_only=True)
class CurvePoints:
    """A curve, thinned to what can be seen; no points where a class is missing, or where only the area was kept."""

    area: Estimate
    x: tuple[float, ...] = ()
    y: tuple[float, ...] = ()
    band_x: tuple[float, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Curves:
    """The curves of the image score, and of lesions."""

    roc: CurvePoints
    pr: CurvePoints
    froc: CurvePoints
    lesions: int


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Cases of similar probability: the mean of it, and the share that is positive."""

    predicted: float
    observed: float
    count: float
    low: float | None = None
    """Wilson's interval of the share observed, for images alone: pixels are not independent."""
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Quality:
    """How near probabilities are to frequencies."""

    ece: float
    brier: float
    bins: tuple[Bin, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CalibrationParts:
    """Reliability of images and pixels as the net gives them, and by the checkpoint's calibration where it has one."""

    image: Quality
    image_calibrated: Quality | None = None
    pixels: Quality | None = None
    pixels_calibrated: Quality | None = None


@dataclass(frozen=True, kw_only=True)
class TunedHere:
    """What tuning the triplet on these cases promises, and what is left of it on other patients."""

    triplet: Triplet
    in_sample: float
    cross_fitted: float | None
    """Tuned on four fifths of the patients, scored on the fifth; None for too few patients."""
    cross_fitted_interval: tuple[float, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class CaseRow:
    """One case of the report."""

    image_id: str
    positive: bool
    predicted_positive: bool = _key("called")
    siim_dice: float
    score: float
    area_share: float
    hd95: float = NAN
    surface_dice: float = NAN


@dataclass(frozen=True, kw_only=True)
class LabelSource:
    """How many cases have a mask of one origin."""

    label_source: str
    positives: int
    negatives: int
    without_patient: int


@dataclass(frozen=True, kw_only=True)
class EvaluationReport:
    """All that `pleura evaluate` measured; of a model's header the same without cases and points of curves.

    In the JSON, NaN is null, and an optional part that is None has no key.
    """

    pleura: str
    """The version that measured."""
    split: str
    """Which cases, in words."""
    positives: int
    negatives: int
    floor: float
    """SIIM mean Dice of the empty predictor on these cases."""
    summary: str = _key("verdict")
    """One sentence for a person."""
    findings: tuple[Finding, ...]
    """What the checks found, such as a flip."""
    triplet: Triplet
    triplet_tuned_on_these_cases: bool
    tuned: TunedHere
    tta: str
    precision: str = "float32"
    """What the net computed in; earlier versions had no other."""
    computed_in: str = ""
    """The same with why, and with what to do for another precision."""
    engine: str = "torch"
    """What ran the net; earlier versions had no other."""
    resamples: int
    metrics: dict[str, Estimate]
    """By the checkpoint's triplet."""
    pooled_dice: float = NAN
    """Of the pixels of all images together; no mean over images."""
    decisions: Decisions
    surface: Surface
    subgroups: tuple[Subgroup, ...] = _key("strata")
    prevalence: Prevalence
    curves: Curves
    calibration: CalibrationParts
    data_sha256: str
    checkpoint: dict[str, Any] = field(default_factory=dict)
    """Its provenance, of the first where a model has several."""
    cases: tuple[CaseRow, ...] = ()
    weights_sha256: tuple[str, ...] = ()
    """Of each checkpoint."""
    calibrations: tuple[dict[str, Any] | None, ...] = ()
    """Of each checkpoint, as its header has it."""
    label_sources: dict[str, tuple[LabelSource, ...]] = field(default_factory=dict)
    """Of the cases that were scored, and of those of the dataset that the model was trained and chosen on."""
    command: str
    """What gives these numbers again."""

    def to_json(self) -> dict[str, Any]:
        """Return the content of report.json, null for numbers that could not be measured."""
        return {"format": FORMAT, **plain(self)}

    @classmethod
    def from_json(cls, document: object) -> EvaluationReport:
        """Read the content of a report.json, or what of it is in a model's header.

        Raises: InputError, in one line, for a newer format, a missing key or a value of another type.
        """
        if not isinstance(document, Mapping):
            raise InputError("is no mapping of keys")
        written = document.get("format", 0)
        if not isinstance(written, int) or written > FORMAT:
            raise InputError(f"has the format {written!r:.20}, and this version of pleura reads up to {FORMAT}")
        return typing.cast("EvaluationReport", _parsed(cls, document, ""))


@dataclass(frozen=True, kw_only=True)
class ScoreReport:
    """All that `pleura score` measured: the content of score.json."""

    pleura: str
    truth: str
    predicted: str
    images: int
    patients: int
    patients_known: int
    """Images whose patient is known; each of the others counts as a patient."""
    positives: int
    negatives: int
    floor: float
    summary: str = _key("verdict")
    findings: tuple[Finding, ...]
    cases: Literal["truth", "both"]
    missing: tuple[str, ...]
    """Ids with a true mask and no prediction."""
    resamples: int
    pooled_dice: float
    metrics: dict[str, Estimate]
    decisions: Decisions
    surface: Surface
    subgroups: tuple[Subgroup, ...] = _key("strata")
    prevalence: Prevalence


def plain(value: Any) -> Any:
    """Return a value as JSON has it: null for NaN, and no key for a part that is None by default."""
    if is_dataclass(value) and not isinstance(value, type):
        parts = [(each, getattr(value, each.name)) for each in fields(value)]
        return {_name(each): plain(part) for each, part in parts if not (part is None and each.default is None)}
    if isinstance(value, Mapping):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _name(part: Any) -> str:
    return str(part.metadata.get("key", part.name))


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _parsed(kind: Any, value: Any, where: str) -> Any:
    """A value of JSON as a type. Raises: InputError that names the key."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        return (
            None
            if value is None
            else _parsed(next(each for each in arguments if each is not types.NoneType), value, where)
        )
    if is_dataclass(kind) and isinstance(value, Mapping):
        return _parsed_fields(kind, value, f"{where}." if where else "")
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_parsed(arguments[0], each, f"{where}[{number}]") for number, each in enumerate(value))
    if origin is dict and isinstance(value, Mapping):
        return {key: _parsed(arguments[1], each, f"{where}.{key}") for key, each in value.items()}
    if kind is float and (value is None or (isinstance(value, int | float) and not isinstance(value, bool))):
        return NAN if value is None else float(value)
    if kind is Any or (kind in (int, str, bool) and type(value) is kind) or (origin is Literal and value in arguments):
        return value
    raise InputError(f"{where} is {value!r:.40}, which is of another type")


def _parsed_fields(kind: Any, value: Mapping[str, Any], prefix: str) -> Any:
    found: dict[str, Any] = {}
    for each in fields(kind):
        name = _name(each)
        if name in value:
            found[each.name] = _parsed(_hints(kind)[each.name], value[name], prefix + name)
        elif each.default is MISSING and each.default_factory is MISSING:
            raise InputError(f"has no {prefix}{name}")
    return kind(**found)
