"""pleura finds and outlines pneumothorax on frontal chest radiographs. Research software, not a medical device.

predictor = pleura.load("run/fold-0/best.safetensors")
prediction = predictor.predict("radiograph.dcm")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = [
    "CheckpointError",
    "ConfigError",
    "InputError",
    "MissingExtraError",
    "NonFiniteLossError",
    "OutputError",
    "PleuraError",
    "Prediction",
    "Predictor",
    "RLEError",
    "__version__",
    "build_model",
    "list_encoders",
    "load",
    "losses",
    "metrics",
    "preprocessing_of",
    "read_probabilities",
    "rle",
]

if TYPE_CHECKING:
    from pleura.data import rle
    from pleura.data.probability_png import read_probabilities
    from pleura.errors import (
        CheckpointError,
        ConfigError,
        InputError,
        MissingExtraError,
        NonFiniteLossError,
        OutputError,
        PleuraError,
        RLEError,
    )
    from pleura.evaluation.metrics import siim as metrics
    from pleura.inference.prediction import Prediction
    from pleura.inference.predictor import Predictor
    from pleura.models.build import build_model, preprocessing_of
    from pleura.models.encoders import list_encoders
    from pleura.training import losses

    load = Predictor.load

_MODULES = {"rle": "pleura.data.rle", "metrics": "pleura.evaluation.metrics.siim", "losses": "pleura.training.losses"}
_HOMES = {
    "Prediction": "pleura.inference.prediction",
    "Predictor": "pleura.inference.predictor",
    "build_model": "pleura.models.build",
    "list_encoders": "pleura.models.encoders",
    "preprocessing_of": "pleura.models.build",
    "read_probabilities": "pleura.data.probability_png",
}


def __getattr__(name: str) -> Any:
    # Imported when first asked for: `pleura --help` and pleura.rle need no torch.
    if name == "load":
        return importlib.import_module("pleura.inference.predictor").Predictor.load
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    if name in __all__:
        return getattr(importlib.import_module(_HOMES.get(name, "pleura.errors")), name)
    raise AttributeError(f"module 'pleura' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
