"""Which cases of a dataset a model has met."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pleura.errors import InputError
from pleura.learn.checkpoint import case_key

Split = Literal["train", "val", "all"]


@dataclass(frozen=True)
class Known:
    """Which of N cases a model has met: told by the cases themselves, so also after preparing them anew."""

    train: NDArray[np.bool_]
    val: NDArray[np.bool_]
    told: bool
    """Whether the model says what it has met: imported weights do not."""

    @classmethod
    def of(cls, seen: Sequence[Mapping[str, Sequence[str]]], image_ids: Sequence[str]) -> Known:
        """seen: of each checkpoint of the model, as its header has it; image_ids: of the dataset's cases."""
        keys = [case_key(image_id) for image_id in image_ids]
        met = {part: {key for one in seen for key in one.get(part, [])} for part in ("train", "val")}
        train, val = (np.array([key in met[part] for key in keys], dtype=bool) for part in ("train", "val"))
        return cls(train, val, all(any(one.values()) for one in seen))

    def choose(
        self, split: Split | None, folder: Path, scored: NDArray[np.bool_] | None = None
    ) -> tuple[Split, NDArray[np.int64]]:
        """The split, decided where it was not asked for, and its positions.

        scored: (N,) which cases have a mask that is truth to score by; None: all.
        Raises: InputError if the split has no case, or none to score by.
        """
        if (self.train & self.val).any():
            raise InputError(
                f"{folder}: the run holds several folds, and each case was training data of some; evaluate the folds "
                "one at a time, fold-K/best.safetensors; their pooled scores are in folds.json after --fold all"
            )
        if split is None:
            split = "val" if self.val.any() else "all"
        chosen = {"val": self.val, "train": self.train, "all": np.ones_like(self.val)}[split]
        if not chosen.any():
            raise InputError(f"{folder}: holds none of the model's {split} cases; evaluate it with --split all")
        if scored is not None:
            chosen = chosen & scored
        if not chosen.any():
            raise InputError(f"{folder}: its {split} cases are for training alone, and none is left to score by")
        return split, np.flatnonzero(chosen)

    def in_words(self, split: Split, positions: NDArray[np.int64]) -> str:
        """What is evaluated, in words that give away what the model has met before."""
        if not self.told:
            return f"{len(positions)} cases, of which the model does not tell those that it has met before"
        count, learned, tuned = len(positions), int(self.train[positions].sum()), int(self.val[positions].sum())
        if learned:
            return f"{count} cases, {learned} of which the model has learned from: this estimates nothing"
        if tuned:
            rest = "" if tuned == count else f", {count - tuned} of them new to it"
            return f"{count} cases that the model was chosen on ({split}){rest}"
        return f"{count} cases that are new to the model"


def by_source(
    sources: Sequence[str], positive: NDArray[np.bool_], patients: Sequence[str | None]
) -> list[dict[str, Any]]:
    """Counts of N cases by where their masks came from: label_source, positives, negatives, without_patient."""
    labels, unknown = np.array(sources, dtype=object), np.array([not patient for patient in patients], dtype=bool)
    rows = []
    for source in sorted(set(sources)):
        here = labels == source
        counts = {"positives": positive & here, "negatives": ~positive & here, "without_patient": unknown & here}
        rows.append({"label_source": source} | {name: int(cases.sum()) for name, cases in counts.items()})
    return rows
