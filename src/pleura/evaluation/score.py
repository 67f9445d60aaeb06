"""`pleura score`: masks that any tool wrote -> scores with their floor, prevalence and intervals, and the checks.

One image is read at a time, and none that both sides know to be empty.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pleura import __version__
from pleura.data.folds import patients_or_own, read_patients
from pleura.data.ids import Names, pair
from pleura.data.mask_checks import about_source, exchanged
from pleura.data.mask_grid import read_pair
from pleura.data.masks import FoundMask, MaskSource, Shape, open_masks, refuse_unused_options
from pleura.data.problems import Finding, some
from pleura.decision.laterality import side_of
from pleura.errors import InputError
from pleura.evaluation.checks import OrientationCheck, empty_predictor, not_binary, pooled_dice
from pleura.evaluation.metrics.operating import Candidates
from pleura.evaluation.metrics.paired import Ratio, intervals, mask_metrics
from pleura.evaluation.metrics.siim import CaseResults, empty_floor, siim_dice
from pleura.evaluation.metrics.subgroups import Facts, subgroups
from pleura.evaluation.metrics.surface import SurfaceDistances
from pleura.evaluation.report.document import ScoreReport, plain
from pleura.evaluation.report.parts import Measured, decisions_of, prevalence_of, surface_of
from pleura.evaluation.scoring import REFERENCE_SIDE_PX, TOLERANCE_PX, CaseNumbers
from pleura.evaluation.summary import against_empty
from pleura.files import refuse_unwritable, write_csv, write_json
from pleura.progress import track
from pleura.urls.copies import said

Cases = Literal["truth", "both"]
FILE, TABLE = "score.json", "cases.csv"
COLUMNS = ("image_id", "positive", "called", "siim_dice", "hd95", "surface_dice", "area_share", "predicted")
TURNED_CASES = 400
"""How many pairs are looked at in all 8 orientations: a turned export is turned throughout."""
BINARY_LEVELS = (1, 255, 65535)
"""What mask pixels are written as without a word of it: arrays, and PNG files of 8 and 16 bits."""


@dataclass(frozen=True)
class ScoreSettings:
    """What `pleura score` was asked for."""

    truth: Path
    predicted: Path
    patients: Path | None = None
    out: Path | None = None
    cases: Cases = "truth"
    """truth: every image that has a true mask, and without a prediction it counts as predicted empty; both: only
    images that both sides have."""
    grid: Shape | None = None
    """(rows, columns) that the runs of csv files count, where they are not 1024 x 1024."""
    resamples: int = 1000
    segments: tuple[str, ...] = ()
    """Of DICOM-SEG: number or label of the segments that outline a pneumothorax, where files have several."""


@dataclass(frozen=True)
class Read:
    """N images after the one pass over their masks."""

    ids: list[str]
    results: CaseResults
    numbers: list[CaseNumbers]
    """HD95 and tolerance in pixels of an image scaled to 1024."""
    patients: NDArray[np.int64]
    """(N,) as numbers."""
    patients_known: int
    """How many of the images have a patient that is known."""
    missing: list[str]
    """Ids with a true mask and no prediction."""
    findings: list[Finding]
    pooled_dice: float
    """Of the pixels of all images together; NaN where no mask has any."""


@dataclass(frozen=True)
class Score:
    """How a set of masks scores."""

    read: Read
    report: ScoreReport


def score(settings: ScoreSettings) -> Score:
    """Score predicted masks against true ones; with `out`, write score.json and cases.csv there.

    Raises: InputError for a missing or wrong file, or if no image is on both sides; OutputError.
    """
    paths, grid = (settings.truth, settings.predicted), "--grid" if settings.grid else None
    refuse_unused_options(paths, grid, "--segment" if settings.segments else None)
    read = read_masks(settings)
    results, patients, resamples = read.results, read.patients, settings.resamples
    metrics = mask_metrics(results)
    metrics["gain_over_empty"] = Ratio.mean(results.dice - ~results.positive)
    decisions = decisions_of(results)
    shares = ("sensitivity", "specificity", "ppv", "npv")  # of cases: they have Wilson's intervals
    estimates = intervals(metrics, patients, resamples) | {name: getattr(decisions, name) for name in shares}
    floor, measured = empty_floor(results.positive), _measured(read)
    report = ScoreReport(
        pleura=__version__,
        truth=said(str(settings.truth)),
        predicted=said(str(settings.predicted)),
        images=len(read.ids),
        patients=len(np.unique(patients)),
        patients_known=read.patients_known,
        positives=int(results.positive.sum()),
        negatives=int((~results.positive).sum()),
        floor=floor,
        summary=against_empty(results, estimates, floor),
        findings=tuple(read.findings),
        cases=settings.cases,
        missing=tuple(read.missing),
        resamples=resamples,
        pooled_dice=read.pooled_dice,
        metrics=estimates,
        decisions=decisions,
        surface=surface_of(measured, resamples),
        subgroups=subgroups(measured.facts, results, patients, resamples),
        prevalence=prevalence_of(results, patients),
    )
    done = Score(read, report)
    if settings.out:
        _write(settings.out, done)
    return done


def read_masks(settings: ScoreSettings) -> Read:
    """Read every pair of masks once, and check them.

    Raises: InputError for a missing or wrong file, or if no image is on both sides; OutputError if nothing can be
    written to `settings.out`.
    """
    truth, predicted = (
        open_masks(path, settings.grid, settings.segments) for path in (settings.truth, settings.predicted)
    )
    if settings.out:
        refuse_unwritable(settings.out)
    pairs = pair(predicted.names, truth.names, settings.predicted)
    of_truth = {image_id: name for name, image_id in pairs.items()}
    ids, missing, extra = _common(truth, predicted, of_truth, settings.cases)
    named = truth.patients
    if settings.patients:
        named = Names((image_id, "") for image_id in ids).resolve(read_patients(settings.patients), settings.patients)
    known = sum(image_id in named for image_id in ids)
    if settings.patients and not known:
        raise InputError(f"{settings.patients}: has the patient of none of the {len(ids)} images")
    _, patients = np.unique(patients_or_own(ids, named), return_inverse=True)
    watch = _Watch()
    rows = list(_measure(truth, predicted, of_truth, ids, settings.grid, watch))
    positive, found, dice = (np.array([row[k] for row in rows]) for k in range(3))
    results = CaseResults(positive.astype(bool), found.astype(bool), dice.astype(np.float64), found.astype(np.float64))
    findings = [
        *_about_ids(settings, len(ids), missing, extra),
        *watch.findings(),
        *about_source(truth, "of the truth "),
        *about_source(predicted, "of the prediction "),
        empty_predictor(results),
        _the_same_twice(results),
    ]
    numbers, faults = [row[3] for row in rows], [each for each in findings if each]
    pooled = pooled_dice(results.dice, np.array([row[4] for row in rows], dtype=np.float64))
    return Read(ids, results, numbers, patients.astype(np.int64), known, missing, faults, pooled)


def _common(
    truth: MaskSource, predicted: MaskSource, of_truth: Mapping[str, str], cases: Cases
) -> tuple[list[str], list[str], list[str]]:
    """The ids to score, those of them without a prediction, and predictions of no use. of_truth: id -> prediction."""
    if not of_truth:
        raise InputError(
            f"{predicted.path}: has no image of {truth.path}; ids there look like {next(iter(predicted.masks))!r}, "
            f"here like {next(iter(truth.masks))!r}"
        )
    missing = truth.masks.keys() - of_truth.keys()
    extra = predicted.masks.keys() - set(of_truth.values())
    return sorted(of_truth if cases == "both" else truth.masks), sorted(missing), sorted(extra)


def _measure(
    truth: MaskSource,
    predicted: MaskSource,
    of_truth: Mapping[str, str],
    ids: Sequence[str],
    grid: Shape | None,
    watch: _Watch,
) -> Iterator[tuple[bool, bool, float, CaseNumbers, float]]:
    """For each image: positive, predicted positive, SIIM Dice, the numbers of outlines, and both masks' area."""
    none, nan = Candidates((), ()), float("nan")
    for image_id in track(ids, "score"):
        name = of_truth.get(image_id, "")
        what = f"{predicted.path}: {name}"
        mask, other, resized = read_pair(truth.masks[image_id], predicted.masks.get(name), grid, what)
        watch.add(image_id, mask, other, resized)
        share, predicted_share = _share(mask), _share(other)
        dice, side, distance, close = float(predicted_share == 0), None, nan, nan
        if mask is not None and share:
            dice, side, close = 0.0, side_of(mask.mask), 0.0
        if mask is not None and other is not None and share and predicted_share:
            box, pixel = _box(mask.mask | other.mask), REFERENCE_SIDE_PX / max(mask.mask.shape)
            outlines = SurfaceDistances.of(mask.mask[box], other.mask[box], (pixel, pixel))
            dice = float(siim_dice(mask.mask[box], other.mask[box])[0])
            distance, close = outlines.hd95(), outlines.dice(TOLERANCE_PX)
        numbers = CaseNumbers(none, share, side=side, hd95=distance, surface_dice=close)
        yield share > 0, predicted_share > 0, dice, numbers, share + predicted_share


def _share(found: FoundMask | None) -> float:
    return 0.0 if found is None else np.count_nonzero(found.mask) / max(found.mask.size, 1)


def _box(mask: NDArray[np.uint8]) -> tuple[slice, slice]:
    """The box around a mask that is not empty: no score looks at what lies outside it, and that is most of an image."""
    rows, columns = np.flatnonzero(mask.max(axis=1)), np.flatnonzero(mask.max(axis=0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


class _Watch:
    """What the checks need of every mask, kept small."""

    def __init__(self) -> None:
        self._turned, self._turned_left = OrientationCheck(), TURNED_CASES
        self._grey: dict[str, list[tuple[str, NDArray[np.generic]]]] = {"true": [], "predicted": []}
        self._resized: list[str] = []
        self._shares: dict[str, dict[str, float]] = {"true": {}, "predicted": {}}

    def add(self, image_id: str, mask: FoundMask | None, other: FoundMask | None, resized: bool) -> None:
        """Look at one pair of masks."""
        for side, found in (("true", mask), ("predicted", other)):
            if found is not None and not any(np.isin(found.levels, (0, one)).all() for one in BINARY_LEVELS):
                self._grey[side].append((image_id, found.levels))
            if found is not None:
                self._shares[side][image_id] = _share(found)
        if resized:
            self._resized.append(image_id)
        if mask is not None and other is not None and self._turned_left > 0:
            self._turned_left -= 1
            self._turned.add(mask.mask[None], other.mask[None])

    def findings(self) -> Iterator[Finding | None]:
        """Yield the faults of all pairs that were added."""
        yield self._turned.finding()
        for side, shares in self._shares.items():
            yield exchanged(shares, f"{side} ")
        for side, found in self._grey.items():
            if not found:
                continue
            image_id, levels = next((each for each in found if len(each[1]) > 2), found[0])
            seen = not_binary(levels, 255)
            many = f"{len(found)} {side} masks hold values besides 0 and 1 (or 255), such as {image_id}"
            how = "of two values the larger is taken for mask, greys from half of full scale up"
            yield Finding(
                "warning", f"{many}: {len(levels)} values up to {levels[-1]}; {how}", seen.way_out if seen else ""
            )
        if self._resized:
            yield Finding(
                "note",
                f"{len(self._resized)} predicted masks have another size than the true one, such as "
                f"{self._resized[0]}: they were resized to it",
                "write masks on the grid of the truth to be scored exactly",
            )


def _about_ids(
    settings: ScoreSettings, count: int, missing: Sequence[str], extra: Sequence[str]
) -> Iterator[Finding | None]:
    if missing and settings.cases == "truth":
        yield Finding(
            "warning",
            f"{len(missing)} of {count} images have no prediction ({some(missing)}): each counts as predicted empty",
            "if they were never predicted, leave them out with --cases both",
        )
    elif missing:
        yield Finding(
            "warning",
            f"{len(missing)} images of the truth have no prediction ({some(missing)}) and are left out",
            "a tool that writes no file where it finds nothing is scored with --cases truth",
        )
    if extra:
        yield Finding(
            "warning",
            f"{len(extra)} predictions are of images without a true mask ({some(extra)}) and are left out",
            "give the truth of them too, or check that both are of the same data",
        )


def _the_same_twice(results: CaseResults) -> Finding | None:
    if not results.positive.any() or not (results.dice == 1).all():
        return None
    return Finding(
        "warning", "every mask equals the truth, pixel by pixel", "check that the two files are not the same"
    )


def _measured(read: Read) -> Measured:
    unknown = [None] * len(read.ids)
    shares, sides = [each.area_share for each in read.numbers], [each.side for each in read.numbers]
    facts = Facts(shares, sides, unknown, unknown, unknown)
    unit = f"px of {REFERENCE_SIDE_PX}"
    return Measured(read.results, read.numbers, facts, read.patients, unit, TOLERANCE_PX)


def _write(out: Path, done: Score) -> None:
    read, results = done.read, done.read.results
    missing = set(read.missing)
    rows: list[tuple[Any, ...]] = [COLUMNS]
    for row, (image_id, numbers) in enumerate(zip(read.ids, read.numbers, strict=True)):
        flags = (int(results.positive[row]), int(results.predicted_positive[row]), round(float(results.dice[row]), 6))
        shares = (_cell(numbers.hd95), _cell(numbers.surface_dice), _cell(numbers.area_share))
        rows.append((image_id, *flags, *shares, int(image_id not in missing)))
    write_json(out / FILE, plain(done.report))
    write_csv(out / TABLE, rows)


def _cell(value: float) -> float | str:
    return round(value, 6) if np.isfinite(value) else ""
