"""pleura finds and outlines pneumothorax on frontal chest radiographs. Research software, not a medical device.

predictor = pleura.load("run/fold-0/best.safetensors")
prediction = predictor.predict("radiograph.dcm")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["__version__", "build_model", "load", "metrics", "rle"]

if TYPE_CHECKING:
    from pleura.data import rle
    from pleura.measure import metrics
    from pleura.model import build_model
    from pleura.predict import Predictor

    load = Predictor.load

_MODULES = {"rle": "pleura.data.rle", "metrics": "pleura.measure.metrics"}


def __getattr__(name: str) -> Any:
    # Imported when first asked for: `pleura --help` and pleura.rle need no torch.
    if name == "load":
        return importlib.import_module("pleura.predict").Predictor.load
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    if name == "build_model":
        return importlib.import_module("pleura.model").build_model
    raise AttributeError(f"module 'pleura' has no attribute {name!r}")
