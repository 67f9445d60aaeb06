"""All that a viewer shows of one radiograph: the answer, its grey values, and the probability of each pixel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, TypeAlias

import numpy as np

from pleura.data.radiograph import geometry_of
from pleura.data.rle import SIIM_SIDE_PX
from pleura.decision.triplet import Triplet
from pleura.files import as_json
from pleura.inference.prediction import Prediction
from pleura.inference.writers import PICTURES

Piece: TypeAlias = bytes | memoryview
"""Of a body; a memoryview is of bytes."""
Part: TypeAlias = tuple[dict[str, str], Piece]
"""Headers and content of a part of a multipart."""


def view_parts(prediction: Prediction, triplet: Triplet, document: Mapping[str, Any]) -> list[Part]:
    """Return the parts `answer`, `grey` and `probabilities` of a form.

    answer: `document`, and with it `view`: how the other two are to be shown, and the rule. grey: the grey values of a
    radiograph that was read `with_grey`, row by row, 8 or 16 bits each, little-endian; they are not compressed, as
    their noise leaves a third to save and a second to spend. probabilities: a PNG, as `probability_png`.

    Raises: ValueError where it was read without.
    """
    grey, radiograph = prediction.radiograph.grey, prediction.radiograph
    if grey is None:
        raise ValueError("the radiograph was read without its grey values")
    bits = 8 * grey.values.dtype.itemsize
    view = {
        "grey_bits": bits,
        "window_center": grey.center,
        "window_width": grey.width,
        "window_curve": None if grey.curve is None else grey.curve.tolist(),
        "rescale_slope": grey.slope,
        "rescale_intercept": grey.intercept,
        "pixel_aspect": radiograph.pixel_aspect,
        "pixel_spacing_mm": radiograph.pixel_spacing_mm and list(radiograph.pixel_spacing_mm),
        "patient_orientation": radiograph.patient_orientation and list(radiograph.patient_orientation),
        "is_dicom": radiograph.header is not None,
        "square_area_px": geometry_of(radiograph, SIIM_SIDE_PX).whole_area_px,
        "triplet": asdict(triplet),
    }
    little = np.ascontiguousarray(grey.values, dtype=f"<u{bits // 8}")
    return [
        _part("answer", "answer.json", "application/json", as_json({**document, "view": view}).encode()),
        _part("grey", "grey.bin", "application/octet-stream", little.data.cast("B")),
        _part("probabilities", "probabilities.png", "image/png", PICTURES["probabilities"][1](prediction)),
    ]


def _part(name: str, file: str, media_type: str, content: Piece) -> Part:
    disposition = f'form-data; name="{name}"; filename="{file}"'
    return {"Content-Disposition": disposition, "Content-Type": media_type}, content
