"""What bfloat16 changes in a model's results: the same cases in both precisions, for the header of its checkpoint.

`auto` predicts in bfloat16 only where that was measured (models/bfloat16.py has the limits): by `pleura tune` and
`pleura recalibrate`, and at the end of a training in bfloat16.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from pleura import __version__
from pleura.data.dataset import Dataset
from pleura.evaluation.scoring import CaseScores, measure_cases
from pleura.inference.device import pick_device
from pleura.inference.precision import asked_for, has_bfloat16
from pleura.inference.predictor import Predictor
from pleura.models.bfloat16 import Bfloat16Change
from pleura.models.checkpoint import Checkpoint
from pleura.models.identity import weights_hash


def precision_to_fit_in(checkpoint: Checkpoint) -> str:
    """Return what decision rules are fitted in: float32, the same on every machine, unless bfloat16 is asked for."""
    return "bfloat16" if asked_for(checkpoint) == "bfloat16" else "float32"


@dataclass(frozen=True)
class BothScores:
    """One checkpoint's scores of the same cases in float32 and in bfloat16."""

    exact: CaseScores
    fast: CaseScores
    tta: str
    device: str
    """Its kind."""

    @classmethod
    def measured(
        cls, checkpoint: Checkpoint, scores: CaseScores, dataset: Dataset, indices: NDArray[np.int64]
    ) -> BothScores | None:
        """Score cases in the other precision too.

        scores: of the checkpoint on the cases at `indices`, in the precision of `precision_to_fit_in`.
        Returns: None where float32 alone is asked for, and by default on a device without bfloat16.
        Raises: as `measure_cases`.
        """
        fitted_in, device = precision_to_fit_in(checkpoint), pick_device()
        by_itself = asked_for(checkpoint) == "auto" and has_bfloat16(device)
        if fitted_in == "float32" and not by_itself:
            return None
        other = "float32" if fitted_in == "bfloat16" else "bfloat16"
        twin = Predictor([checkpoint], precision=other)
        pair = {fitted_in: scores, other: measure_cases(twin, dataset, indices)}
        return cls(pair["float32"], pair["bfloat16"], twin.tta, device.type)

    def change(self, checkpoint: Checkpoint, data_sha256: str) -> Bfloat16Change | None:
        """Return the difference by a checkpoint's decision rule; None without a positive, which leaves it open."""
        exact, fast = (scores.by(checkpoint.triplet) for scores in (self.exact, self.fast))
        positive = exact.positive
        if not positive.any():
            return None
        dice = float(exact.dice[positive].mean())
        return Bfloat16Change(
            weights_sha256=weights_hash(checkpoint.weights),
            triplet=asdict(checkpoint.triplet),
            tta=self.tta,
            device=self.device,
            cases=len(positive),
            positives=int(positive.sum()),
            dice_on_positives=dice,
            dice_change=float(fast.dice[positive].mean()) - dice,
            decisions_changed=int((exact.predicted_positive != fast.predicted_positive).sum()),
            largest_score_change=float(np.abs(exact.scores - fast.scores).max()),
            data_sha256=data_sha256,
            pleura=__version__,
        )
