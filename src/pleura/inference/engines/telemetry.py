"""OpenVINO with its telemetry switched off: nothing is sent from a hospital's machine."""

from __future__ import annotations

import sys
from typing import Any

SENDER = "openvino_telemetry"


def without_telemetry() -> None:
    """Keep OpenVINO and its tools, such as nncf, from sending anything; to be called before any is imported.

    `import openvino` alone sends an event to Google Analytics, unasked, and writes an id into the user's home. It does
    without the package that sends where that cannot be imported, and so it cannot.
    """
    sys.modules[SENDER] = None  # type: ignore[assignment]  # Python's own sign for a module that is not to be found


def import_openvino() -> Any:
    """Return the package of OpenVINO. Raises: ModuleNotFoundError if it is not installed."""
    without_telemetry()
    import openvino

    return openvino
