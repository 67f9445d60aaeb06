"""What a model's file says of it besides its weights: JSON in, typed values out, and each fault by its key.

The same in a checkpoint and in what is exported from one; reading it takes no torch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from pleura.config.faults import check
from pleura.config.model import ModelConfig
from pleura.decision.calibration import Calibration
from pleura.decision.triplet import Triplet
from pleura.errors import CheckpointError, PleuraError
from pleura.models.bfloat16 import Bfloat16Change
from pleura.models.header_schema import PastPart
from pleura.models.preprocessing import Preprocessing
from pleura.models.seen import ENCODER, IMPORTED, STARTED, TAUGHT, SeenCases

FORMAT = 2
"""1 had keys of 8 digits in `seen`, and did not name the origins without a list of cases. Earlier versions cannot
compare the longer keys, so they must refuse the file."""
READABLE = (1, 2)
KEYS = ("preprocessing", "triplet", "recipe", "scores", "provenance", "calibration", "seen", "card", "bfloat16")
LATER_KEYS: dict[str, Any] = {"card": None, "bfloat16": None}
"""What checkpoints of earlier versions do not have, and what stands for it."""
WAY_OUT = "take an unchanged copy of the file, or train or import it again"
DEEPEST = 50
"""Levels of lists and mappings in a header; none of pleura's has ten."""


@dataclass(frozen=True)
class ModelHeader:
    """All that is needed to use and to judge a model, but its weights."""

    model: ModelConfig
    preprocessing: Preprocessing
    triplet: Triplet
    recipe: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    calibration: dict[str, Any] | None = None
    seen: SeenCases = field(default_factory=SeenCases)
    card: dict[str, Any] | None = None
    """What a user of the model needs to know, the fields of `config.card.Card`; None for most."""
    bfloat16: Bfloat16Change | None = None
    """What bfloat16 changes in its results; None: that was not measured."""

    @property
    def header(self) -> ModelHeader:
        """The same without what a subclass adds."""
        return ModelHeader(**{each.name: getattr(self, each.name) for each in fields(ModelHeader)})


def dump(values: Mapping[str, Any]) -> dict[str, str]:
    """Return values of a checkpoint, all or some of them, as the texts of a header, `format` included."""
    return {"format": json.dumps(FORMAT), **{key: json.dumps(_plain(value)) for key, value in values.items()}}


def _plain(value: Any) -> Any:
    if isinstance(value, SeenCases):
        return value.header()
    if isinstance(value, ModelConfig):
        # The encoder's weights are in the file: whoever loads it must not look for ImageNet's.
        return value.model_copy(update={"pretrained": False}).model_dump(mode="json")
    if isinstance(value, Bfloat16Change):
        return value.model_dump(mode="json")
    return asdict(value) if isinstance(value, Triplet | Preprocessing) else value


def parse(metadata: Mapping[str, str], origin: Path | str) -> dict[str, Any]:
    """Read the texts of a header as the values of a `ModelHeader`.

    Raises: CheckpointError that names the key and the value.
    """
    if metadata.get("format") not in {json.dumps(number) for number in READABLE}:
        raise CheckpointError(f"{origin}: is no checkpoint of this version of pleura (its header has no such format)")
    given = {key: _json(metadata, key, origin) for key in ("model", *KEYS)}
    past = {key: given[key] for key in PastPart.model_fields}
    checked, faults = check(PastPart, _as_unicode(past))
    if checked is None:
        raise _refusal(origin, "; ".join(faults[:3]))
    values = past | {
        "model": checked.model,
        "preprocessing": _typed(Preprocessing.of, given["preprocessing"], "preprocessing", origin),
        "triplet": _typed(Triplet.of, given["triplet"], "triplet", origin),
        "seen": _typed(lambda seen: SeenCases.of(seen, _more_origins(metadata, past)), given["seen"], "seen", origin),
        "calibration": given["calibration"],
        "bfloat16": checked.bfloat16,
    }
    if given["calibration"] is not None:
        _typed(Calibration.of, given["calibration"], "calibration", origin)
    made, taken = values["preprocessing"].in_channels, values["model"].in_channels
    if made != taken:
        raise CheckpointError(
            f"{origin}: header preprocessing.in_channels is {made}, and the net takes {taken}; {WAY_OUT}"
        )
    return values


def _as_unicode(document: Any) -> Any:
    """Return JSON with a `?` for each byte of a file name that is no UTF-8, such as in an evaluation's command."""
    return json.loads(json.dumps(document, ensure_ascii=False).encode("utf-8", "replace"))


def _json(metadata: Mapping[str, str], key: str, origin: Path | str) -> Any:
    if key not in metadata:
        if key in LATER_KEYS:
            return LATER_KEYS[key]
        raise CheckpointError(f"{origin}: the header is incomplete or of another version, it has no {key}; {WAY_OUT}")
    try:
        value = json.loads(metadata[key])
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{origin}: header {key} is no JSON: {metadata[key]!r:.60}; {WAY_OUT}") from error
    level: list[Any] = [value]
    for _ in range(DEEPEST):
        level = [
            item
            for each in level
            if isinstance(each, dict | list)
            for item in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return value
    raise CheckpointError(f"{origin}: header {key} has more than {DEEPEST} levels; {WAY_OUT}")


def _typed(read: Callable[[Any], Any], value: Any, key: str, origin: Path | str) -> Any:
    try:
        return read(value)
    except (PleuraError, ValueError) as error:
        raise _refusal(origin, f"{key}: {error}") from error


def _refusal(origin: Path | str, reason: str) -> CheckpointError:
    return CheckpointError(f"{origin}: header {' '.join(reason.split())[:300]}; {WAY_OUT}")


def _more_origins(metadata: Mapping[str, str], past: Mapping[str, Any]) -> list[str]:
    """Return the origins whose cases `seen` does not list; format 1 does not name them there."""
    if metadata["format"] == json.dumps(1):
        return unlisted(past["recipe"], past["provenance"])
    return unlisted({}, {key: value for key, value in past["provenance"].items() if key != "started_from"})


def unlisted(recipe: Mapping[str, Any], provenance: Mapping[str, Any]) -> list[str]:
    """Return the origins of a model that may have seen more cases than its header lists."""
    teacher, start = provenance.get("teacher") or {}, recipe.get("model", {}).get("pretrained")
    return [
        *([IMPORTED] if provenance.get("imported") else []),
        *([STARTED] if provenance.get("started_from") else []),
        *([TAUGHT] if not teacher.get("tells_what_it_has_seen", True) else []),
        *([ENCODER.format(Path(start).name)] if isinstance(start, str) else []),
    ]
