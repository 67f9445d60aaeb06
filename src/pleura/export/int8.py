"""An export in int8: calibrated on images of its own, and what its certificate says of that."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pleura.errors import InputError
from pleura.export import int8_onnx, int8_openvino
from pleura.export.certificate import Int8
from pleura.export.float_layers import Likeness, Quantised
from pleura.export.sample import Sample, of_calibration, refuse_shared
from pleura.inference.cpu import int8_units
from pleura.inference.engines.torch import TorchEngine
from pleura.models.checkpoint import Checkpoint

MAKERS: dict[str, Callable[[bytes, Likeness, str], Quantised]] = {
    "onnx": int8_onnx.quantised,
    "openvino": int8_openvino.quantised,
}
"""The formats that have int8 -> an ONNX graph, what float32 gives on calibration images, and what it is, in words."""


@dataclass(frozen=True)
class Made:
    """A graph in int8."""

    parts: tuple[bytes, ...]
    """As `Form.convert` returns them."""
    said: Int8


def calibration_of(
    form: str, checkpoint: Checkpoint, sample: Sample, inputs: Sequence[str], int8: bool
) -> Sample | None:
    """Return the images to calibrate on; None where nothing is to be int8. sample: the images to certify on.

    Raises: InputError for a format without int8, one of inputs and int8 without the other, too few images, and images
    of `sample`.
    """
    if int8 != bool(inputs):
        raise InputError("an int8 export takes both --int8 and --calibration IMAGES; one alone does nothing")
    if not int8:
        return None
    if form not in MAKERS:
        raise InputError(f"--int8 is for --format {' and '.join(MAKERS)}, not for {form}")
    calibration = of_calibration(inputs, checkpoint)
    refuse_shared(calibration, sample)
    return calibration


def in_int8(form: str, graph: bytes, checkpoint: Checkpoint, tta: str, calibration: Sample, what: str) -> Made:
    """Return an ONNX graph in int8, in one of the formats. what: it is, for a refusal.

    Raises: CheckpointError if it cannot be made, or no layer bears it.
    """
    squares = np.stack([calibration.case(number)[0] for number in range(calibration.count)])
    found = TorchEngine(checkpoint, tta, "cpu", "float32").probabilities(squares)
    made = MAKERS[form](graph, Likeness(squares, found, checkpoint.triplet), what)
    said = Int8(
        calibration=calibration.what,
        int8_layers=made.int8_layers,
        float_layers=made.float_layers,
        machine=platform.machine(),
        units=int8_units(),
        gain=made.gain,
    )
    return Made(made.parts, said)
