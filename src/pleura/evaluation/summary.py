"""How a model, or any predicted masks, stand to the predictor that finds nothing: one sentence for a person."""

from __future__ import annotations

from pleura.evaluation.metrics.bootstrap import Estimate
from pleura.evaluation.metrics.siim import CaseResults


def against_empty(results: CaseResults, estimates: dict[str, Estimate], floor: float, in_sample: bool = False) -> str:
    """Judge by the interval of the difference from the empty predictor's SIIM mean Dice.

    estimates: `siim_dice` and `gain_over_empty`; floor: the empty predictor's score, the share of negatives.
    in_sample: the decision rule was tuned on these very cases, which the sentence then names.
    """
    if not results.positive.any():
        return "No image here has a pneumothorax: how well one is found cannot be told, only the false alarms."
    if not results.predicted_positive.any():
        return (
            f"This is the empty predictor: it finds nothing on any image, and its SIIM Dice of {floor:.6f} is the "
            "share of negatives."
        )
    dice, gain = estimates["siim_dice"].value, estimates["gain_over_empty"]
    caveat = " That is by a rule tuned on these very cases." if in_sample else ""
    if gain.low > 0:
        return f"It beats the empty predictor: SIIM Dice {dice:.4f}, the empty predictor has {floor:.4f}.{caveat}"
    if gain.high < 0:
        return f"It is worse than the empty predictor: SIIM Dice {dice:.4f}, answering nothing has {floor:.4f}."
    return (
        f"Its SIIM Dice of {dice:.4f} cannot be told from the empty predictor's {floor:.4f}: the difference is "
        f"{gain:+.4f}."
    )
