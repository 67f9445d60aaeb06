"""Which cases of a dataset a model has seen."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pleura.errors import InputError
from pleura.models.seen import SeenCases, listed, namesakes

Split = Literal["train", "val", "all"]


@dataclass(frozen=True)
class Known:
    """Which of N cases a model has seen, by the cases themselves, so also after preparing them anew."""

    train: NDArray[np.bool_]
    val: NDArray[np.bool_]
    doubt: str
    """Why the others may not be new to it; empty where they are."""
    by_chance: str = ""
    """How many of them are taken for training cases by chance, in words; empty where that is none."""
    chosen_by_chance: str = ""
    """How many of them are taken for cases that it was chosen on by chance, as `by_chance`."""

    @classmethod
    def of(cls, seen: Sequence[SeenCases], image_ids: Sequence[str], sources: Sequence[str] = ()) -> Known:
        """seen: of each checkpoint of the model; image_ids and sources: of the dataset's cases."""
        together = functools.reduce(operator.or_, seen)
        train, val = listed(together.train, image_ids), listed(together.val, image_ids)
        doubts = list(dict.fromkeys(one.doubt() for one in seen if one.doubt()))[:1]
        alike = namesakes([*together.train, *together.val], image_ids, sources) & ~(train | val)
        if count := int(alike.sum()):
            doubts.append(f"{count} of them may be, by their file names, images that it has seen in another folder")
        doubt = ", and ".join(doubts)
        by_chance, chosen_by_chance = (together.by_chance(part, len(image_ids)) for part in ("train", "val"))
        return cls(train, val, doubt, by_chance, chosen_by_chance)

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
        """What is evaluated, in words that give away what the model has seen before."""
        count, learned, tuned = len(positions), int(self.train[positions].sum()), int(self.val[positions].sum())
        if learned:
            return (
                f"{count} cases, {learned} of which the model has learned from{self.by_chance}: this estimates nothing"
            )
        if tuned:
            words = f"{count} cases that the model was chosen on ({split}){self.chosen_by_chance}"
            if self.doubt:
                return f"{words}; whether it has learned from any of them is not known: {self.doubt}"
            return words if tuned == count else f"{words}, {count - tuned} of them new to it"
        if self.doubt:
            return f"{count} cases, of which it is not known whether they are new to the model: {self.doubt}"
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
