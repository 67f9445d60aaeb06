"""Predictions without a net, and what checkers say of the DICOM objects made of them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from pleura.data.in_memory import radiograph_of
from pleura.decision.laterality import side_of
from pleura.dicom.instance import bytes_of
from pleura.dicom.read import Radiograph
from pleura.dicom.results import Algorithm
from pleura.inference.prediction import Prediction

ALGORITHM = Algorithm("pleura tests", "0.1.0", "0123456789abcdef" * 4, (("decision rule", "one that tests have"),))

FILED = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.1", "PatientID": "A-1", "PatientName": "Doe^Jane"}
"""What an archive files a radiograph by."""


def ramp(rows: int, columns: int) -> np.ndarray:
    """Grey values of 8 bits that differ from pixel to pixel."""
    return (np.add.outer(np.arange(rows), np.arange(columns)) % 251).astype(np.uint8)


def f_shape(rows: int, columns: int) -> np.ndarray:
    """An F that no flip and no rotation maps on itself, in the upper left of (rows, columns), of odd measures."""
    mask = np.zeros((rows, columns), dtype=np.uint8)
    top, left, thick = rows // 7, columns // 9, max(1, min(rows, columns) // 13)
    mask[top : top + 8 * thick - 1, left : left + thick] = 1
    mask[top : top + thick, left : left + 5 * thick] = 1
    mask[top + 3 * thick : top + 4 * thick, left : left + 3 * thick + 1] = 1
    return mask


def prediction_of(
    source: Path | Dataset, mask: np.ndarray | None = None, algorithm: Algorithm | None = ALGORITHM
) -> Prediction:
    """What a model might find on a radiograph: an F, or `mask`."""
    return found_on(radiograph_of(source), mask, algorithm)


def found_on(
    radiograph: Radiograph, mask: np.ndarray | None = None, algorithm: Algorithm | None = ALGORITHM
) -> Prediction:
    """The same of one that is read."""
    mask = f_shape(*radiograph.shape) if mask is None else mask
    area_px, spacing = int(mask.sum()), radiograph.pixel_spacing_mm
    return Prediction(
        image_id=radiograph.image_id,
        radiograph=radiograph,
        probabilities=(mask * np.float32(0.75) + np.float32(0.125)).astype(np.float32),
        predicted_mask=mask,
        is_positive=area_px > 0,
        score=0.75,
        probability=0.625,
        ruled_out=False,
        area_px=area_px,
        area_mm2=area_px * spacing[0] * spacing[1] if spacing else None,
        side=side_of(mask, radiograph.patient_orientation),
        prevalence=0.25,
        algorithm=algorithm,
    )


def numbers_in(report: Dataset) -> dict[str, float]:
    """What a structured report measures, by the code of each number."""
    found, inside = {}, [report]
    while inside:
        item = inside.pop()
        inside += item.get("ContentSequence", [])
        if item.ValueType == "NUM":
            found[str(item.ConceptNameCodeSequence[0].CodeValue)] = float(item.MeasuredValueSequence[0].NumericValue)
    return found


def needs(tool: str) -> str:
    """The path of a program; skips the test where it is not installed."""
    found = shutil.which(tool)
    if found is None:
        pytest.skip(f"{tool} is not installed: Debian has it in dicom3tools (dciodvfy) or dcmtk")
    return found


def faults(made: Dataset, folder: Path) -> list[str]:
    """The errors that dciodvfy finds in an object; skips the test where it is not installed."""
    file = folder / "object.dcm"
    file.write_bytes(bytes_of(made))
    done = subprocess.run([needs("dciodvfy"), str(file)], capture_output=True, text=True, timeout=60)
    return [line for line in (done.stdout + done.stderr).splitlines() if line.startswith(("Error", "Abort"))]
