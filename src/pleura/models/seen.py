"""Which cases a model was trained and chosen on, as its header lists them, and whether that is all.

A case is listed by a key made of its id, so that a dataset that was prepared anew is recognised, and no list of
patients' studies travels with a model.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pleura.errors import CheckpointError
from pleura.files import without_suffix

KEY_DIGITS, SHORT_DIGITS = 32, 8
"""Hexadecimal digits of a case's key, 128 bits; headers of format 1 have 32 bits, which strangers can share by chance.

A key is compared by its own length: a model of this version that goes back to one of format 1 lists both kinds.
"""
NAME_DIGITS = 16
"""The first of a key's digits, which are of the file's name alone, whatever folder it lies in."""
_UID, _UID_CHARACTERS = re.compile(r"[0-2](\.[0-9]+){2,}"), 16
"""Names that are of one image in the world; shorter ones may be a version's, or a date's."""
_KEY = re.compile(f"[0-9a-f]{{{KEY_DIGITS}}}|[0-9a-f]{{{SHORT_DIGITS}}}")
IMPORTED, STARTED, TAUGHT, ENCODER = (
    "the imported weights",
    "the weights that it started from",
    "its teacher",
    "the encoder weights of {}",
)
"""What may go without a list of its cases."""
WORTH_SAYING = 0.001
"""Cases that short keys match by chance alone: below this many nothing is said of it."""


def case_key(image_id: str) -> str:
    """32 hexadecimal digits for an image id: enough to recognise a case among billions.

    Half are of the last part of the id, which is all that ids of version 0.1.0 had, and half of the whole id, or of a
    UID alone: it names the image in whatever folder that lies, and however far above it a dataset was prepared from.
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
    """Where it has more from, of which no list exists: imported weights, a teacher that has none."""

    @classmethod
    def of(cls, document: object, unknown: Iterable[str] = ()) -> SeenCases:
        """From the JSON of a header. unknown: what headers of format 1 do not say themselves.

        Raises: CheckpointError if it is none.
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
        """As JSON has it."""
        return {part: list(items) for part, items in asdict(self).items()}

    @property
    def is_complete(self) -> bool:
        """Whether every case that it learned from is listed."""
        return bool(self.train) and not self.unknown

    def doubt(self) -> str:
        """Why a case that is not listed may not be new to it; empty where it is."""
        if self.unknown:
            return f"no list exists of the cases of {', '.join(self.unknown)}"
        return "" if self.train else "its header lists no case that it learned from"

    def and_chosen_on(self, keys: Iterable[str]) -> SeenCases:
        """With more cases that it was chosen on."""
        return replace(self, val=tuple(sorted({*self.val, *keys})))

    def __or__(self, other: SeenCases) -> SeenCases:
        """What both have seen."""
        pairs = zip(asdict(self).values(), asdict(other).values(), strict=True)
        return SeenCases(*(tuple(dict.fromkeys([*ours, *theirs])) for ours, theirs in pairs))

    def by_chance(self, part: str, cases: int) -> str:
        """How many of so many cases that it has never seen its short keys match, in words; empty where that is none."""
        short = sum(len(key) == SHORT_DIGITS for key in getattr(self, part))
        strangers = short * cases / 16**SHORT_DIGITS
        if strangers < WORTH_SAYING:
            return ""
        return (
            f" (an older header: its keys have {SHORT_DIGITS} digits, which {strangers:.2g} of so many cases share "
            "with another by chance)"
        )


def listed(keys: Iterable[str], image_ids: Sequence[str]) -> NDArray[np.bool_]:
    """(N,) whether each of N cases is among keys, each key compared by its own length."""
    return among(keys, [case_key(image_id) for image_id in image_ids])


def namesakes(keys: Iterable[str], image_ids: Sequence[str], sources: Sequence[str]) -> NDArray[np.bool_]:
    """(N,) whether each of N cases has the file name of one among keys, and is not known to be that one.

    sources: the path of each; version 0.1.0 made the key from the name there, also where the id is a UID.
    """
    keys = set(keys)
    names, short = {key[:NAME_DIGITS] for key in keys}, {key for key in keys if len(key) == SHORT_DIGITS}
    whole = [case_key(image_id) for image_id in image_ids]
    files = [_digest(_last_part(source))[:SHORT_DIGITS] for source in sources]
    alike = np.array([key[:NAME_DIGITS] in names for key in whole], dtype=bool)
    if short and files:
        alike |= np.array([each in short for each in files], dtype=bool)
    return alike & ~among(keys, whole)


def among(keys: Iterable[str], whole: Sequence[str]) -> NDArray[np.bool_]:
    """(N,) whether each of N keys is among others, the shorter of two compared with the beginning of the longer."""
    there = set(keys)
    beginnings = {key[:SHORT_DIGITS] for key in there}
    found = [
        key in there or key[:SHORT_DIGITS] in there or (len(key) == SHORT_DIGITS and key in beginnings) for key in whole
    ]
    return np.array(found, dtype=bool)


def refused(seen: SeenCases, image_ids: Sequence[str]) -> str:
    """How many of these cases a model has learned from, and the first of them, for a refusal; empty if none."""
    learned = np.flatnonzero(listed(seen.train, image_ids))
    if not len(learned):
        return ""
    first = ", ".join(image_ids[row] for row in learned[:3]) + (", ..." if len(learned) > 3 else "")
    return f"{len(learned)} of its cases, {first}{seen.by_chance('train', len(image_ids))}"
