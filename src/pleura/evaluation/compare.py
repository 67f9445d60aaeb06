"""`pleura compare`: two models, or two sets of masks, on the same cases: which is better, by which metric."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pleura import __version__
from pleura.data.dataset import Dataset
from pleura.data.masks import refuse_unused_options
from pleura.errors import InputError
from pleura.evaluation.metrics.paired import Difference, adjusted, compare_scores, mask_metrics
from pleura.evaluation.metrics.paired import compare as compare_metrics
from pleura.evaluation.metrics.siim import CaseResults
from pleura.evaluation.metrics.titles import METRICS
from pleura.evaluation.score import ScoreSettings, read_masks
from pleura.files import refuse_unwritable, write_json
from pleura.urls.copies import said

FILE = "compare.json"


@dataclass(frozen=True)
class Comparison:
    """Two predictors on N cases."""

    cases: str
    """In words: which, and which of them the models have seen."""
    differences: list[Difference]
    summary: str
    """One sentence for a person."""


def compare_models(first: Path, second: Path, data: Path, resamples: int = 1000, out: Path | None = None) -> Comparison:
    """Compare two checkpoints or runs on the cases of a dataset that neither has learned from.

    Cases that one was chosen on count; `cases` has their number. With `out`, write compare.json there.
    Raises: CheckpointError, InputError if there is no such case, OutputError.
    """
    from pleura.evaluation.scoring import measure_cases, patient_numbers
    from pleura.inference.predictor import Predictor
    from pleura.models.seen import SeenRows

    dataset, models = Dataset(data), [Predictor.load(path) for path in (first, second)]
    sizes = [model.prepared_px for model in models]
    if sizes[0] != sizes[1]:
        raise InputError(
            f"{first} was trained on images prepared at {sizes[0]} px, {second} at {sizes[1]} px, and no dataset is "
            "right for both: write masks of each (pleura predict), then pleura compare MASKS MASKS --truth TRUTH"
        )
    seen = [SeenRows.of([header.seen for header in model.headers], *dataset.names) for model in models]
    indices = np.flatnonzero(dataset.scored & ~(seen[0].train | seen[1].train))
    if not len(indices):
        raise InputError(
            f"{data}: every case is training data of {first} or {second}, or always is; compare them on other cases"
        )
    if out:
        refuse_unwritable(out)
    results = [measure_cases(model, dataset, indices).by(model.triplet) for model in models]
    chosen = [int(each.val[indices].sum()) for each in seen]
    doubts = [f"the {which}: {each.doubt}" for which, each in zip(("first", "second"), seen, strict=True) if each.doubt]
    words = f"{len(indices)} cases that {'no header lists as training data' if doubts else 'neither has learned from'}"
    if any(chosen):
        words += f"; the first was chosen on {chosen[0]} of them, the second on {chosen[1]}"
    if doubts:
        words += f"; whether they are new to both is not known ({'; '.join(doubts)})"
    return _compared(results, patient_numbers(dataset, indices), words, resamples, True, (first, second), out)


def compare_masks(
    first: Path,
    second: Path,
    truth: Path,
    patients: Path | None = None,
    resamples: int = 1000,
    out: Path | None = None,
    segments: tuple[str, ...] = (),
) -> Comparison:
    """Compare two sets of masks that any tools wrote, on every image of the truth; see `pleura score`.

    An image without a prediction counts as predicted empty. With `out`, write compare.json there.
    Raises: InputError for a missing or wrong file, OutputError.
    """
    refuse_unused_options((truth, first, second), of_segments="--segment" if segments else None)
    read = [read_masks(ScoreSettings(truth, path, patients, out=out, segments=segments)) for path in (first, second)]
    missing = [len(each.missing) for each in read]
    words = f"{len(read[0].ids)} images"
    if any(missing):
        words += f"; {missing[0]} have no prediction in the first, {missing[1]} in the second: each counts as empty"
    results = [each.results for each in read]
    return _compared(results, read[0].patients, words, resamples, False, (first, second), out)


def in_words(differences: list[Difference]) -> str:
    """Return a sentence: which of two predictors is better by which metric, or that the data does not decide it."""
    if all(_same(each) for each in differences):
        return "The data cannot tell them apart: they score the same on every case."
    by = {side: _titles(differences, side) for side in ("first", "second")}
    if not any(by.values()):
        return "The data cannot tell them apart: no difference is larger than chance alone makes them."
    parts = [f"the {side} is better by {titles}" for side, titles in by.items() if titles]
    rest = _titles(differences, None)
    left = f"; the data cannot tell them apart by {rest}" if rest else ""
    sentence = " and ".join(parts) + left + "."
    return sentence[0].upper() + sentence[1:]


def _titles(differences: list[Difference], better: str | None) -> str:
    return ", ".join(METRICS[each.name].title for each in differences if each.better == better)


def _same(each: Difference) -> bool:
    ends = (each.difference.value, each.difference.low, each.difference.high)
    return all(end == 0 or not np.isfinite(end) for end in ends)


def _compared(
    results: list[CaseResults],
    patients: NDArray[np.int64],
    words: str,
    resamples: int,
    has_scores: bool,
    paths: tuple[Path, Path],
    out: Path | None,
) -> Comparison:
    differences = compare_metrics(mask_metrics(results[0]), mask_metrics(results[1]), patients, resamples)
    if has_scores:
        positive = results[0].positive
        scores = compare_scores(positive, results[0].scores, results[1].scores, patients, resamples)
        differences = adjusted([*differences, scores])
    cases = f"{words}, of {len(np.unique(patients))} patients; {int(results[0].positive.sum())} positive"
    done = Comparison(cases, differences, in_words(differences))
    if out:
        document: dict[str, Any] = {
            "pleura": __version__,
            "first": said(str(paths[0])),
            "second": said(str(paths[1])),
            "cases": done.cases,
            "verdict": done.summary,
            "resamples": resamples,
            "metrics": [asdict(each) | {"better": each.better} for each in differences],
        }
        write_json(out / FILE, document)
    return done
