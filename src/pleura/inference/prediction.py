"""What a model finds on one radiograph: drawn, saved, or as JSON."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pleura.data import rle
from pleura.decision.calibration import probability_at_prevalence
from pleura.dicom.header import text
from pleura.dicom.read import Radiograph
from pleura.dicom.results import Algorithm, DicomObject, Result
from pleura.errors import InputError, OutputError
from pleura.files import as_json, write_atomically
from pleura.inference.overlay import overlay

if TYPE_CHECKING:  # a prediction that writes none imports no writer of DICOM
    from pleura.dicom.sc import ScCompression
    from pleura.dicom.seg_writing import SegType

_NO_DATE = datetime(1900, 1, 1)
"""Of objects of a radiograph without dates: today's would be near its own, and in one archive tell whose it is."""
SIDES = {"R": "right", "L": "left", "B": "both sides"}


@dataclass(frozen=True, eq=False, repr=False)
class Prediction:
    """What a model finds on one radiograph, on the radiograph's own grid."""

    image_id: str
    radiograph: Radiograph
    probabilities: NDArray[np.float32]
    """(rows, columns) in [0, 1]."""
    predicted_mask: NDArray[np.uint8]
    """(rows, columns) in {0, 1}: the probabilities after the triplet."""
    is_positive: bool
    score: float
    """In [0, 1]: mean probability of the highest 0.1 % of pixels. Orders images; not a probability of disease."""
    probability: float | None
    """Of a pneumothorax on the image, in [0, 1], from the score by the model's calibration; None if it has none."""
    ruled_out: bool | None
    """Whether the score is below the model's threshold of few misses; None if it has none. The mask may still find
    something: the two rules are for different questions."""
    area_px: int
    area_mm2: float | None
    """None where the spacing is not radiograph."""
    side: str | None
    """`R` or `L` of the patient, `B` for both, None where nothing is found. By Patient Orientation where the header has
    it, and None where that is of a lateral radiograph; else the usual display is assumed, the patient's right at the
    left of the image."""
    prevalence: float | None = None
    """The share of positives that `probability` is for, where it is known."""
    algorithm: Algorithm | None = None
    """What found it; None for a prediction that is not a `Predictor`'s."""
    fitted_prevalence: float | None = None
    """The share of positives that the calibration was fitted on, where `at_prevalence` has moved `probability` away."""

    def __repr__(self) -> str:
        rows, columns = self.predicted_mask.shape
        return f"Prediction({self.image_id!r:.80}, {rows} x {columns}, {self.found()})"

    def found(self) -> str:
        """Return what was found, in words."""
        if not self.is_positive:
            return f"no pneumothorax found, score {self.score:.2f}"
        area = f"{self.area_px} px"
        if self.area_mm2 is not None:
            # Mostly at the detector, which magnifies the chest before it; the header need not say where.
            area = f"{self.area_mm2 / 100:.1f} sq cm by its pixel spacing"
        side = SIDES[self.side] if self.side else "side not known"
        return f"pneumothorax, {side}, {area}, score {self.score:.2f}"

    def at_prevalence(self, wanted: float | None) -> Prediction:
        """Return the same with `probability` for another share of positives, by Bayes' rule on the odds.

        wanted: between 0 and 1; None changes nothing. Raises: InputError where it is none, or the share that the
        calibration was fitted on is not known. Source: as `probability_at_prevalence`.
        """
        if wanted is None:
            return self
        if not 0 < wanted < 1:
            raise InputError(f"a share of positives is between 0 and 1, as 0.05, not {wanted:g}")
        if self.probability is None or self.prevalence is None:
            raise InputError("the model does not say on what share of positives it was calibrated: run pleura tune")
        return replace(
            self,
            probability=probability_at_prevalence(self.probability, self.prevalence, wanted),
            prevalence=wanted,
            fitted_prevalence=self.prevalence if self.fitted_prevalence is None else self.fitted_prevalence,
        )

    def overlay(self, longest_px: int = 1024, may_be_grey: bool = False) -> Image.Image:
        """Draw the radiograph with the mask in red, and below it the result and the notes in words.

        Returns an RGB picture, at most `longest_px` on the longer side; may_be_grey: or a grey one (mode L), where
        nothing was found.
        """
        words = "; ".join((self.found(), *self.radiograph.notes))
        return overlay(
            self.radiograph.image,
            self.predicted_mask,
            caption=words,
            longest_px=longest_px,
            may_be_grey=may_be_grey,
        )

    def to_seg(self, seg_type: SegType = "binary") -> DicomObject:
        """Return the mask as a DICOM segmentation; see `pleura.dicom.seg_writing.segmentation`.

        Raises: InputError where the radiograph is no DICOM file, or lacks what an archive files it by.
        """
        from pleura.dicom.seg_writing import segmentation

        return segmentation(self.result(), seg_type)

    def to_sc(self, compression: ScCompression = "none") -> DicomObject:
        """Return the radiograph with the outline and the result in words, at most 2048 px, as a secondary capture.

        Raises: InputError as `to_seg`; OutputError where there is no room for the temporary files of "jpeg-lossless".
        """
        from pleura.dicom.instance import NOT_FOR_DIAGNOSIS
        from pleura.dicom.sc import secondary_capture

        result = self.result()
        caption = "; ".join((result.found, *self.radiograph.notes, result.algorithm.name))
        return secondary_capture(
            result,
            overlay(
                self.radiograph.image,
                self.predicted_mask,
                caption=caption,
                longest_px=2048,
                disclaimer=NOT_FOR_DIAGNOSIS,
                least_text_px=15,
            ),
            compression,
        )

    def to_gsps(self) -> DicomObject:
        """Return the outline as lines that a reader can switch off, a DICOM presentation state.

        Raises: InputError as `to_seg`.
        """
        from pleura.dicom.gsps import presentation_state

        return presentation_state(self.result())

    def to_sr(self, seg: DicomObject | None = None) -> DicomObject:
        """Return finding, probability, area, side and model as a DICOM structured report.

        seg: what `to_seg` returned, where it is kept too: the report then refers to it. Raises: InputError as `to_seg`.
        """
        from pleura.dicom.sr import structured_report

        return structured_report(self.result(), seg)

    def result(self) -> Result:
        """Return what DICOM objects are made from.

        Raises: InputError where the radiograph is no DICOM file, or no model is named.
        """
        header, algorithm = self.radiograph.header, self.algorithm
        if header is None:
            raise InputError("not a DICOM file: it has no study and no patient that a DICOM object could belong to")
        if algorithm is None:
            raise InputError("the prediction names no model; take one that a Predictor made")
        known = self.radiograph.patient_orientation is not None
        assumed = "; side as in the usual display" if self.side and not known else ""
        return Result(
            source=header,
            algorithm=algorithm,
            mask=self.predicted_mask,
            probabilities=self.probabilities,
            found=self.found() + assumed,
            score=float(self.score),
            probability=self.probability,
            prevalence=self.prevalence,
            fitted_prevalence=self.fitted_prevalence,
            area_mm2=self.area_mm2,
            laterality=self.side if known else None,
            made_at=_NO_DATE
            if text(header, "LongitudinalTemporalInformationModified") == "REMOVED"
            else datetime.now(),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON has it: numbers, text and None; `mask_rle` is on `rows` x `columns`."""
        rows, columns = self.predicted_mask.shape
        radiograph = self.radiograph
        return {
            "image_id": self.image_id,
            "is_positive": bool(self.is_positive),
            "score": float(self.score),
            "probability": None if self.probability is None else float(self.probability),
            "ruled_out": None if self.ruled_out is None else bool(self.ruled_out),
            "area_px": int(self.area_px),
            "area_mm2": None if self.area_mm2 is None else float(self.area_mm2),
            "side": self.side,
            "rows": int(rows),
            "columns": int(columns),
            "mask_rle": rle.encode(self.predicted_mask),
            "sop_instance_uid": radiograph.sop_instance_uid,
            "series_instance_uid": radiograph.series_instance_uid,
            "study_instance_uid": radiograph.study_instance_uid,
            "notes": list(radiograph.notes),
        }

    def save(self, path: Path | str) -> Path:
        """Write one file, whole or not at all, by its suffix (see `SAVES`), and return its path.

        Raises: OutputError for another suffix, or where it cannot be written.
        """
        path = Path(path)
        if path.suffix.lower() not in SAVES:
            kinds = ", ".join(f"{suffix} ({what})" for suffix, (what, _) in SAVES.items())
            raise OutputError(f"cannot write {path}: name a file that ends in {kinds}")
        write_atomically(path, SAVES[path.suffix.lower()][1](self))
        return path


def _png(prediction: Prediction) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(prediction.predicted_mask * np.uint8(255)).save(buffer, "PNG")
    return buffer.getvalue()


def _npy(prediction: Prediction) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, prediction.probabilities)
    return buffer.getvalue()


def _json(prediction: Prediction) -> bytes:
    return (as_json(prediction.to_dict()) + "\n").encode()


def _jpeg(prediction: Prediction) -> bytes:
    buffer = io.BytesIO()
    prediction.overlay().save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


SAVES: dict[str, tuple[str, Callable[[Prediction], bytes]]] = {
    ".png": ("the mask, 0 and 255", _png),
    ".npy": ("the probabilities", _npy),
    ".json": ("to_dict", _json),
    ".jpg": ("the overlay", _jpeg),
}
"""Suffix -> what `Prediction.save` writes, and how."""
