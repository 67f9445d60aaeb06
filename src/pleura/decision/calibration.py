"""Calibration of probabilities: reliability, ECE, Brier; temperature, Platt and beta scaling; a conformal threshold.

All fits are logistic regressions on the logit of a net's probabilities, of one to three numbers: they keep the order of
images and of pixels, so that ROC curves do not change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Numbers: TypeAlias = NDArray[np.float64]
Method: TypeAlias = Literal["platt", "beta"]

BINS, IMAGE_BINS = 15, 10
"""Bins for pixels and for images. Images are few: with more bins, chance alone would raise their ECE."""
LOGIT_LEVELS, LOGIT_LIMIT = 128, 12.0
WIDEST, LIMIT = 100.0, 1e6
"""Limits of a temperature (1/100 to 100) and of the three numbers for images; beyond them a file is damaged."""
TINY = 1e-7
"""Probabilities are kept this far from 0 and 1, where logits would be infinite; float32 resolves no more."""


@dataclass(frozen=True)
class Reliability:
    """A calibration curve: bins of equal width over [0, 1], those without a case left out."""

    predicted: Numbers
    """(B,) mean probability of each bin."""
    observed: Numbers
    """(B,) share of positives in each bin."""
    counts: Numbers
    """(B,) cases, or their weight."""


def reliability(
    positive: NDArray[np.generic], probabilities: Numbers, weights: Numbers | None = None, bins: int = BINS
) -> Reliability:
    """Return the calibration curve of N cases.

    positive: (N,) in {0, 1}. probabilities: (N,) in [0, 1]. weights: (N,) at least 0; 1 by default.

    Raises: ValueError if there is no case.
    """
    if len(probabilities) == 0:
        raise ValueError("a calibration curve needs at least one case")
    share = np.ones(len(probabilities)) if weights is None else weights
    rows = np.minimum((np.asarray(probabilities) * bins).astype(np.int64), bins - 1)
    counts, predicted, observed = (
        np.asarray(np.bincount(rows, share * values, bins), dtype=np.float64)
        for values in (np.ones(len(share)), probabilities, np.asarray(positive, dtype=np.float64))
    )
    there = counts > 0
    return Reliability(predicted[there] / counts[there], observed[there] / counts[there], counts[there])


def ece(
    positive: NDArray[np.generic], probabilities: Numbers, weights: Numbers | None = None, bins: int = BINS
) -> float:
    """Return the expected calibration error in [0, 1]: mean distance of the curve from the diagonal, by cases.

    Depends on the bins, and is above 0 by chance alone in small samples. Raises: ValueError without a case.
    Source: Naeini, Cooper & Hauskrecht 2015.
    """
    curve = reliability(positive, probabilities, weights, bins)
    return float(np.average(np.abs(curve.predicted - curve.observed), weights=curve.counts))


def brier(positive: NDArray[np.generic], probabilities: Numbers, weights: Numbers | None = None) -> float:
    """Return the Brier score in [0, 1], lower is better: mean squared distance of the probability from 0 or 1.

    Source: Brier 1950.
    """
    return float(np.average((probabilities - np.asarray(positive, dtype=np.float64)) ** 2, weights=weights))


def logit(probabilities: NDArray[np.floating[Any]]) -> Numbers:
    """Return the logit of probabilities in [0, 1], of any shape; finite also for 0 and 1."""
    inside = np.clip(np.asarray(probabilities, dtype=np.float64), TINY, 1 - TINY)
    return np.asarray(np.log(inside) - np.log1p(-inside))


def pixel_counts(probabilities: NDArray[np.float32], masks: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Count pixels by the level of their logit: (N, H, W) in [0, 1] and {0, 1} -> (N, 128, 2) background and mask.

    Levels of probability, as in `Histograms`, would put nearly all of an image into the lowest one.
    """
    n = len(probabilities)
    step = 2 * LOGIT_LIMIT / LOGIT_LEVELS
    levels = np.clip((logit(probabilities) + LOGIT_LIMIT) / step, 0, LOGIT_LEVELS - 1).astype(np.int64)
    keys = levels * 2 + masks + np.arange(n)[:, None, None] * (2 * LOGIT_LEVELS)
    return np.bincount(keys.reshape(-1), minlength=n * 2 * LOGIT_LEVELS).reshape(n, LOGIT_LEVELS, 2)


def expit(logits: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the probabilities of logits, of any shape and in their own type; exact to rounding far below 0 too."""
    # scipy has it, but `pleura predict` needs nothing else of scipy, which takes longer to import than this to run.
    return np.asarray(np.exp(-np.logaddexp(0, -logits)))


def probability_at_prevalence(probability: float, fitted: float, wanted: float) -> float:
    """Move a probability from the prevalence `fitted` to the prevalence `wanted`, by Bayes' rule on the odds.

    The probability is in [0, 1], the prevalences strictly between. Source: Saerens, Latinne & Decaestecker 2002,
    equation 2.4.
    """
    odds = wanted * (1 - fitted), (1 - wanted) * fitted
    return probability * odds[0] / (probability * odds[0] + (1 - probability) * odds[1])


def level_logits() -> Numbers:
    """Return (128,) the logit in the middle of each level of `pixel_counts`."""
    return np.asarray((np.arange(LOGIT_LEVELS) + 0.5) * (2 * LOGIT_LIMIT / LOGIT_LEVELS) - LOGIT_LIMIT)


def pixel_cases(counts: NDArray[np.int64], by: float = 1.0) -> tuple[NDArray[np.bool_], Numbers, Numbers]:
    """Return `pixel_counts` as (positive, probabilities, weights) of `ece`, `brier` and `reliability`.

    by: temperature that the logits are divided by.
    """
    total = counts.reshape(-1, LOGIT_LEVELS, 2).sum(axis=0).astype(np.float64)
    probabilities = np.asarray(expit(level_logits() / by))
    positive = np.repeat(np.array([False, True]), LOGIT_LEVELS)
    return positive, np.tile(probabilities, 2), total.T.reshape(-1)


def temperature(counts: NDArray[np.int64]) -> float:
    """Fit the temperature by which to divide logits, for the highest likelihood; above 1 for an overconfident net.

    counts: (N, 128, 2) of `pixel_counts`. Returns 1 where no pixel, or each, belongs to a mask; kept in [1/20, 20].
    Source: Guo et al. 2017; the likelihood is concave in 1/T, so that the slope has one root, found by halving.
    """
    background, mask = counts.reshape(-1, LOGIT_LEVELS, 2).sum(axis=0).T.astype(np.float64)
    if mask.sum() == 0 or background.sum() == 0:
        return 1.0
    logits = level_logits()

    def slope(inverse: float) -> float:
        p = expit(logits * inverse)
        return float(logits @ (mask * (1 - p) - background * p))

    low, high = 1 / 20, 20.0
    for _ in range(60):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    return float(1 / np.sqrt(low * high))


def fit_scores(scores: Numbers, positive: NDArray[np.bool_], method: Method = "platt") -> tuple[float, float, float]:
    """Fit the image scores of N cases: the (a, b, c) of P(pneumothorax) = expit(a ln s - b ln(1 - s) + c).

    platt: a = b. beta: a and b independent, both at least 0. Targets are smoothed as Platt's, so that separable cases
    have a finite fit. Returns (0, 0, c), the share of positives, where a class is missing or scores do not rank cases.
    Source: Platt 1999 (Lin, Lin & Weng 2007); Kull, Silva Filho & Flach 2017.
    """
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    targets = np.where(positive, (n_positive + 1) / (n_positive + 2), 1 / (n_negative + 2))
    constant = float(logit(np.array([(n_positive + 1) / (len(positive) + 2)]))[0])
    if n_positive == 0 or n_negative == 0:
        return 0.0, 0.0, constant
    inside = np.clip(scores, TINY, 1 - TINY)
    up, down = np.log(inside), -np.log1p(-inside)
    if method == "platt":
        slope, intercept = _regress(np.stack([up + down], axis=1), targets)
        return (slope, slope, intercept) if slope > 0 else (0.0, 0.0, constant)
    a, b, c = _regress(np.stack([up, down], axis=1), targets)
    if a < 0 or b < 0:  # the curve would not rise everywhere: the negative term is left out
        a, c = _regress(up[:, None], targets) if b < 0 else (0.0, c)
        b, c = (0.0, c) if a > 0 else tuple(_regress(down[:, None], targets))
    return (a, b, c) if min(a, b) >= 0 and max(a, b) > 0 else (0.0, 0.0, constant)


def _regress(columns: Numbers, targets: Numbers) -> list[float]:
    """Logistic regression on (N, K) columns and a constant, by Newton's method with halved steps."""
    design = np.column_stack([columns, np.ones(len(columns))])
    centre, scale = design[:, :-1].mean(axis=0), np.maximum(design[:, :-1].std(axis=0), 1e-9)
    design[:, :-1] = (design[:, :-1] - centre) / scale

    def loss(values: Numbers) -> float:
        score = design @ values
        return float(np.sum(np.logaddexp(0, score) - targets * score))

    found = np.zeros(design.shape[1])
    for _ in range(100):
        p = expit(design @ found)
        curvature = design.T @ (design * (p * (1 - p))[:, None]) + 1e-9 * np.eye(len(found))
        step, size = np.linalg.solve(curvature, design.T @ (targets - p)), 1.0
        while size > 1e-6 and loss(found + size * step) > loss(found):
            size /= 2
        found = found + size * step
        if np.abs(size * step).max() < 1e-10:
            break
    slopes = found[:-1] / scale
    return [*map(float, slopes), float(found[-1] - slopes @ centre)]


@dataclass(frozen=True)
class RuleOut:
    """A threshold of the image score below which a pneumothorax is ruled out; not the decision rule, `Triplet`."""

    threshold: float
    """Images with a lower score are ruled out."""
    alpha: float
    """The largest share of positive patients that the threshold may miss."""
    confidence: float
    """Probability that it misses no larger share of all patients like those it was fitted on."""
    patients: int
    """Positive patients that it was fitted on."""

    @property
    def score(self) -> str:
        """The threshold with its first four digits that count: it may lie far below 0.0001."""
        return np.format_float_positional(self.threshold, precision=4, unique=False, fractional=False, trim="-")


def _rule_of(header: object) -> RuleOut:
    names = [each.name for each in fields(RuleOut)]
    if not isinstance(header, Mapping) or set(header) != set(names):
        raise ValueError(f"a calibration's rule for ruling out has just {', '.join(names)}, not {header!r:.60}")
    patients = header["patients"]
    if not isinstance(patients, int) or isinstance(patients, bool) or patients < 1:
        raise ValueError(f"conformal.patients is a whole number above 0, not {patients!r:.40}")
    threshold, alpha, confidence = (_within(f"conformal.{name}", header[name], 0, 1) for name in names[:3])
    return RuleOut(threshold, alpha, confidence, patients)


def _within(name: str, number: object, least: float, most: float) -> float:
    if not isinstance(number, int | float) or isinstance(number, bool) or not least <= number <= most:
        raise ValueError(f"the calibration's {name} is a number within {least:g} and {most:g}, not {number!r:.40}")
    return float(number)


@dataclass(frozen=True)
class Calibration:
    """How a checkpoint's probabilities are calibrated; the triplet applies to the uncalibrated ones."""

    temperature: float = 1.0
    image: tuple[float, float, float] = (1.0, 1.0, 0.0)
    method: str = "none"
    conformal: RuleOut | None = None

    @classmethod
    def of(cls, header: Mapping[str, Any]) -> Calibration:
        """Read the JSON of a checkpoint; further keys, such as measurements, are ignored. Raises: ValueError."""
        if not isinstance(header, Mapping):
            raise ValueError(f"a calibration is a mapping, not {header!r:.60}")
        image, rule, method = header.get("image"), header.get("conformal"), header.get("method")
        if not isinstance(image, list | tuple) or len(image) != 3 or not isinstance(method, str):
            raise ValueError(
                f"a calibration has a method and three numbers for images, not {method!r:.40}, {image!r:.60}"
            )
        a, b, c = (_within(f"image.{at}", each, -LIMIT if at == 2 else 0, LIMIT) for at, each in enumerate(image))
        degree = _within("temperature", header.get("temperature"), 1 / WIDEST, WIDEST)
        if "prevalence" in header:
            _within("prevalence", header["prevalence"], 0, 1)
        return cls(degree, (a, b, c), method, None if rule is None else _rule_of(rule))

    def header(self) -> dict[str, Any]:
        """Return the calibration as JSON for a checkpoint's header."""
        return {**asdict(self), "image": list(self.image)}

    def pixels(self, probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return calibrated probabilities of pixels, of any shape."""
        return np.asarray(expit(logit(probabilities) / self.temperature), dtype=np.float32)

    def images(self, scores: Numbers | float) -> Numbers:
        """Return probabilities of a pneumothorax for image scores in [0, 1], of any shape."""
        a, b, c = self.image
        inside = np.clip(np.asarray(scores, dtype=np.float64), TINY, 1 - TINY)
        return np.asarray(expit(a * np.log(inside) - b * np.log1p(-inside) + c))


def prevalence_of(header: Mapping[str, Any] | None) -> float | None:
    """Return the share of positives among the cases that a checkpoint's calibration was fitted on, in (0, 1).

    None where the header does not say it.
    """
    share = (header or {}).get("prevalence")
    return float(share) if isinstance(share, float) and 0 < share < 1 else None


def conformal(
    scores: Numbers,
    positive: NDArray[np.bool_],
    patients: Sequence[int] | NDArray[np.int64],
    alpha: float,
    confidence: float,
) -> RuleOut | None:
    """Return the highest threshold that misses less than `alpha` of positive patients, with `confidence`.

    None if the positive patients are too few. A patient counts once, by the lowest score of the positive images, since
    images of one patient are not independent. Of n such scores in order, the share of patients below the k-th has the
    distribution Beta(k, n - k + 1), whatever the distribution of the scores; with ties it is less.
    Source: Wilks 1941; the same number as the bound of Clopper & Pearson 1934 on k - 1 misses.
    """
    from scipy.special import betainc  # the distribution of Beta; imported late, for the reason in `expit`

    lowest: dict[int, float] = {}
    for patient, score in zip(np.asarray(patients)[positive].tolist(), scores[positive].tolist(), strict=True):
        lowest[patient] = min(score, lowest.get(patient, score))
    ordered = np.sort(np.array(list(lowest.values())))
    ranks = np.arange(1, len(ordered) + 1)
    kept = betainc(ranks, len(ordered) - ranks + 1, alpha) >= confidence
    if not kept.any():
        return None
    return RuleOut(float(ordered[int(np.flatnonzero(kept)[-1])]), alpha, confidence, len(ordered))


def positives_needed(alpha: float, confidence: float) -> int:
    """Return the least number of positive patients for which `conformal` finds a threshold."""
    return int(np.ceil(np.log1p(-confidence) / np.log1p(-alpha) - 1e-12))
