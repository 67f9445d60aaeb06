"""What DICOM objects say of a model: its name, the hash of its weights, and whatever else decides its results."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from pleura import __version__
from pleura.decision.calibration import Calibration
from pleura.decision.triplet import Triplet
from pleura.dicom.results import Algorithm
from pleura.models.header import ModelHeader


def hash_of(weights_sha256: Sequence[str]) -> str:
    """Return the sha256 of the weights of one net, or over those of several, in order."""
    joined = "".join(weights_sha256)
    return joined if len(weights_sha256) == 1 else hashlib.sha256(joined.encode()).hexdigest()


def algorithm_of(
    headers: Sequence[ModelHeader],
    weights_sha256: str,
    weights: NDArray[np.float64],
    triplet: Triplet,
    calibration: Calibration | None,
    *,
    tta: str,
    precision: str,
    engine: str,
) -> Algorithm:
    """Return the mean of nets as one model. weights: of each in the mean."""
    names = dict.fromkeys(str(one.recipe.get("name") or one.model.architecture) for one in headers)
    count = f" ({len(headers)} checkpoints)" if len(headers) > 1 else ""
    settings = {
        "decision rule": triplet.in_words(),
        "test-time augmentation": tta,
        "precision": precision,
        "prepared": ", ".join(f"{one.preprocessing.prepared_px} px" for one in headers),
        "shown": ", ".join(f"{one.preprocessing.size_px} px" for one in headers),
        "weight of each checkpoint": ", ".join(f"{weight:g}" for weight in weights),
        "calibration": json.dumps(asdict(calibration)) if calibration else "none",
    }
    name = f"pleura {' + '.join(names)}{count}"
    return Algorithm(name, __version__, weights_sha256, tuple(settings.items()), engine)
