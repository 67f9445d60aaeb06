"""What a model found on one radiograph, and by what: what every DICOM object of it is made from."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pleura.dicom.uids import derived_uid

DicomObject: TypeAlias = Dataset
"""What is written: a dataset of pydicom, with `save_as`."""


@dataclass(frozen=True)
class Algorithm:
    """A model: what it is called, which weights it has, and the settings that decide what it finds."""

    name: str
    version: str
    """Of pleura."""
    weights_sha256: str
    settings: tuple[tuple[str, str], ...] = ()
    """(name, value): the decision rule and whatever else changes a result."""
    engine: str = ""
    """What ran the net. Engines differ by rounding: the same result by another one is the same object, by its UID."""

    @property
    def device_uid(self) -> str:
        """The UID of the model as a device: that of its weights, whatever its settings."""
        return derived_uid("device", self.weights_sha256)

    def parameters(self) -> list[str]:
        """Return the weights' hash and the settings in words, one line each."""
        engine = [f"engine: {self.engine}"] if self.engine else []
        return [*self.identity(), *engine]

    def identity(self) -> list[str]:
        """Return the lines of `parameters` that a result's UID follows from."""
        return [f"weights sha256: {self.weights_sha256}", *(f"{name}: {value}" for name, value in self.settings)]


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """What `algorithm` found on one radiograph. Nothing of a patient is in its repr."""

    source: Dataset
    """The radiograph's header."""
    algorithm: Algorithm
    mask: NDArray[np.uint8]
    """(rows, columns) in {0, 1}, on the file's own grid."""
    probabilities: NDArray[np.float32]
    """(rows, columns) in [0, 1]."""
    found: str
    """The result in words, for a reader."""
    score: float
    probability: float | None
    """Of a pneumothorax on the image by the model's calibration; None if it has none."""
    prevalence: float | None
    """The share of positives that `probability` is for, where it is known."""
    fitted_prevalence: float | None
    """The share of positives that the calibration was fitted on, where `probability` was moved from it to another."""
    area_mm2: float | None
    laterality: str | None
    """`R`, `L` or `B` by the header's Patient Orientation; None where nothing is found, the header has none, or it has
    that of a lateral radiograph."""
    made_at: datetime

    @property
    def is_positive(self) -> bool:
        """Whether the mask has a pixel."""
        return bool(self.mask.any())

    def uid(self, *what: str) -> str:
        """Return a UID that follows from the radiograph, the weights, the settings and `what`."""
        algorithm = self.algorithm
        return derived_uid(*what, str(self.source.SOPInstanceUID), algorithm.weights_sha256, *algorithm.identity())
