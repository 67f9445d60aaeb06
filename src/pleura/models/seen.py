"""The cases that a model was trained and chosen on: as its header lists them, and as rows of a dataset.

A case is listed by a key made of its id, so that a dataset that was prepared anew is recognised, and no list of
patients' studies travels with a model.
"""

from __future__ import annotations

import functools
import hashlib
import operator
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pleura.data.dataset import Split
from pleura.errors import CheckpointError, InputError
from pleura.files import without_suffix

KEY_DIGITS, SHORT_DIGITS = 32, 8
"""Hexadecimal digits of a case's key, 128 bits; headers of format 1 have 32 bits, which strangers can share by chance.

A key is compared by its own length: a model of this version that goes back to one of format 1 lists both kinds.
"""
NAME_DIGITS = 16
"""The first of a key's digits, which are of the file's name alone, whatever folder it lies in."""
_UID, _UID_CHARACTERS = re.compile(r"[0-2](\.[0-9]+){2,}"), 16
"""Names that are of one image in the world; shorter ones may be versions or dates."""
_KEY = re.compile(f"[0-9a-f]{{{KEY_DIGITS}}}|[0-9a-f]{{{SHORT_DIGITS}}}")
IMPORTED, STARTED, TAUGHT, ENCODER = (
    "the imported weights",
    "the weights that it started from",
    "its teacher",
    "the encoder weights of {}",
)
"""Origins of which no list of cases may exist."""
WORTH_SAYING = 0.001
"""Cases that short keys match by chance alone: fewer than this are not mentioned."""


def case_key(image_id: str) -> str:
    """Return 32 hexadecimal digits for an image id, enough to recognise a case among billions.

    The first half is a hash of the id's last part, which was the whole id in version 0.1.0. The second half is a hash
    of the whole id, or of the last part alone if that is a UID, which names the same image in every folder.
    """
    name = _last_part(image_id)
    whole = name if _UID.fullmatch(name) and _UID_CHARACTERS <= len(name) <= 64 else image_id
    return _digest(name)[:NAME_DIGITS] + _digest(whole)[NAME_DIGITS:KEY_DIGITS]


def _last_part(path: str) -> str:
    return without_suffix(path.rpartition("/")[2])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


@dataclass(frozen=True)
class SeenCases:
    """The cases that a model was trained on and chosen on, each by its `case_key`."""

    train: tuple[str, ...] = ()
    val: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    """Origins whose cases are listed nowhere: imported weights, a teacher without lists."""

    @classmethod
    def of(cls, document: object, unknown: Iterable[str] = ()) -> SeenCases:
        """Read the JSON of a header. unknown: further origins, which headers of format 1 do not list.

        Raises: CheckpointError for another shape.
        """
        if not isinstance(document, Mapping) or not document.keys() <= {"train", "val", "unknown"}:
            raise CheckpointError(f"seen has the lists train, val and unknown, not {document!r:.60}")
        for part, items in document.items():
            if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
                raise CheckpointError(f"seen.{part} is a list of texts, not {items!r:.60}")
        parts = {part: tuple(document.get(part, ())) for part in ("train", "val")}
        for part, keys in parts.items():
            if wrong := next((key for key in keys if not _KEY.fullmatch(key)), None):
                raise CheckpointError(
                    f"seen.{part} has keys of {KEY_DIGITS} or {SHORT_DIGITS} hexadecimal digits, not {wrong!r:.40}"
                )
        return cls(**parts, unknown=tuple(dict.fromkeys([*document.get("unknown", ()), *unknown])))

    def header(self) -> dict[str, list[str]]:
        """Return the lists as JSON has them."""
        return {part: list(items) for part, items in asdict(self).items()}

    @property
    def is_complete(self) -> bool:
        """Whether every case that it learned from is listed."""
        return bool(self.train) and not self.unknown

    def doubt(self) -> str:
        """Return why a case that is not listed may not be new to the model; empty where it is new."""
        if self.unknown:
            return f"no list exists of the cases of {', '.join(self.unknown)}"
        return "" if self.train else "its header lists no case that it learned from"

    def and_chosen_on(self, keys: Iterable[str]) -> SeenCases:
        """Return the same with more cases that the model was chosen on."""
        return replace(self, val=tuple(sorted({*self.val, *keys})))

    def __or__(self, other: SeenCases) -> SeenCases:
        """Return what either has seen."""
        pairs = zip(asdict(self).values(), asdict(other).values(), strict=True)
        return SeenCases(*(tuple(dict.fromkeys([*ours, *theirs])) for ours, theirs in pairs))

    def in_both(self) -> NDArray[np.bool_]:
        """(n_val,) whether each case that the model was chosen on is a training case too."""
        return among(self.train, self.val)

    def by_chance(self, part: Literal["train", "val"], cases: int) -> str:
        """Say how many of so many unseen cases match a short key by chance; empty where none do."""
        short = sum(len(key) == SHORT_DIGITS for key in getattr(self, part))
        strangers = short * cases / 16**SHORT_DIGITS
        if strangers < WORTH_SAYING:
            return ""
        return (
            f" (an older header: its keys have {SHORT_DIGITS} digits, which {strangers:.2g} of so many cases share "
            "with another by chance)"
        )


@dataclass(frozen=True)
class SeenRows:
    """Which of the N cases of a dataset a model has seen, by their keys: also after the dataset was prepared anew."""

    train: NDArray[np.bool_]
    val: NDArray[np.bool_]
    doubt: str
    """Why the others may not be new to the model; empty where they are."""
    train_by_chance: str
    """How many of `train` match by chance, in words; empty where none do."""
    val_by_chance: str
    """As `train_by_chance`."""

    @classmethod
    def of(cls, seen: Sequence[SeenCases], image_ids: Sequence[str], sources: Sequence[str] = ()) -> SeenRows:
        """Find the cases of a dataset among those seen by each checkpoint of a model.

        image_ids, sources: of the dataset's cases, N of each; sources may be left out where `doubt` is not asked for.
        """
        together = functools.reduce(operator.or_, seen)
        keys = [case_key(image_id) for image_id in image_ids]
        train, val = among(together.train, keys), among(together.val, keys)
        doubts = list(dict.fromkeys(one.doubt() for one in seen if one.doubt()))[:1]
        alike = _namesakes([*together.train, *together.val], keys, sources) & ~(train | val)
        if count := int(alike.sum()):
            doubts.append(f"{count} of them may be, by their file names, images that it has seen in another folder")
        by_chance = [together.by_chance("train", len(keys)), together.by_chance("val", len(keys))]
        return cls(train, val, ", and ".join(doubts), *by_chance)

    def choose(
        self, split: Split | None, folder: Path, scored: NDArray[np.bool_] | None = None
    ) -> tuple[Split, NDArray[np.int64]]:
        """Return the split, `val` or else `all` where None is given, and the indices of its cases.

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

    def in_words(self, split: Split, indices: NDArray[np.int64]) -> str:
        """Return how many cases are evaluated, and how many of them the model has seen before."""
        count, learned, tuned = len(indices), int(self.train[indices].sum()), int(self.val[indices].sum())
        if learned:
            return (
                f"{count} cases, {learned} of which the model has learned from{self.train_by_chance}: this estimates "
                "nothing"
            )
        if tuned:
            words = f"{count} cases that the model was chosen on ({split}){self.val_by_chance}"
            if self.doubt:
                return f"{words}; whether it has learned from any of them is not known: {self.doubt}"
            return words if tuned == count else f"{words}, {count - tuned} of them new to it"
        if self.doubt:
            return f"{count} cases, of which it is not known whether they are new to the model: {self.doubt}"
        return f"{count} cases that are new to the model"

    def learned(self, image_ids: Sequence[str]) -> str:
        """Return how many cases the model has learned from, and the first of them, for a refusal; empty if none."""
        rows = np.flatnonzero(self.train)
        if not len(rows):
            return ""
        first = ", ".join(image_ids[row] for row in rows[:3]) + (", ..." if len(rows) > 3 else "")
        return f"{len(rows)} of its cases, {first}{self.train_by_chance}"


def listed(seen_keys: Iterable[str], image_ids: Sequence[str]) -> NDArray[np.bool_]:
    """(N,) whether each of N cases is one of those with `seen_keys`."""
    return among(seen_keys, [case_key(image_id) for image_id in image_ids])


def among(seen_keys: Iterable[str], keys: Sequence[str]) -> NDArray[np.bool_]:
    """(N,) whether each of N keys is among `seen_keys`; a short key equals every key that begins with it."""
    there = set(seen_keys)
    beginnings = {key[:SHORT_DIGITS] for key in there}
    found = [
        key in there or key[:SHORT_DIGITS] in there or (len(key) == SHORT_DIGITS and key in beginnings) for key in keys
    ]
    return np.array(found, dtype=bool)


def _namesakes(seen_keys: Iterable[str], keys: Sequence[str], sources: Sequence[str]) -> NDArray[np.bool_]:
    """(N,) whether each of N cases, by its key, has the file name of one among `seen_keys`.

    sources: the path of each; version 0.1.0 made the key from the name there, also where the id is a UID.
    """
    seen = set(seen_keys)
    names, short = {key[:NAME_DIGITS] for key in seen}, {key for key in seen if len(key) == SHORT_DIGITS}
    alike = np.array([key[:NAME_DIGITS] in names for key in keys], dtype=bool)
    if short and sources:
        files = [_digest(_last_part(source))[:SHORT_DIGITS] for source in sources]
        alike |= np.array([each in short for each in files], dtype=bool)
    return alike
