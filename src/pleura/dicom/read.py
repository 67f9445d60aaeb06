"""One radiograph of a DICOM file: grey values as a radiologist sees them, and attributes of its header.

An empty, missing or impossible attribute becomes None. A file that does not hold exactly one greyscale radiograph is
refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pleura.dicom.decode import decode
from pleura.dicom.frontal import not_frontal_chest
from pleura.dicom.grayscale import of_each_pixel, tones_of
from pleura.dicom.grey_values import GreyValues, grey_values_of
from pleura.dicom.header import age_years, patient_orientation, pixel_aspect, pixel_spacing_mm, sex, text
from pleura.dicom.parse import DAMAGE, collect_warnings, open_dataset, refuse_unless_one_grey_image, valid_uid
from pleura.dicom.source import header_of
from pleura.dicom.square_pixels import with_square_pixels
from pleura.errors import InputError, excerpt
from pleura.files import name_of


@dataclass(frozen=True, eq=False)
class Radiograph:
    """One radiograph and the attributes of its file; None for those that the file lacks.

    `image` is float32 (rows, columns) in [0, 1], bright = dense (MONOCHROME2), with square pixels. Where those of the
    file are not square, `stored_shape` is its own grid, and `pixel_aspect` how many times as high as wide they are
    there. `image_id` is the SOP Instance UID, else the file's name without a radiograph's suffix; for the files of a
    command see `pleura.data.ids`. `view` is View Position ("PA", "AP", ...), `sex` is "M", "F" or "O".
    `burned_in_annotation` is whether the pixels may name the patient, by Burned In Annotation.
    `pixel_spacing_mm` is (between rows, between columns) of the file's own grid, in the patient where the
    file is calibrated, else at the detector. `patient_orientation` is the patient's directions along a row and down a
    column, ("L", "F") in the usual display. `header` is that of a DICOM file as read, without its pixels. `notes` are
    sentences without a full stop: reasons to doubt the result, although the file could be read. `grey` is what the
    image was before its window, where that was asked for.
    Source: DICOM PS3.3 C.7.1.1, C.7.2.2, C.12.1, 10.7.
    """

    image: NDArray[np.float32]
    image_id: str
    patient_id: str | None = None
    view: str | None = None
    sex: str | None = None
    age_years: float | None = None
    pixel_spacing_mm: tuple[float, float] | None = None
    sop_instance_uid: str | None = None
    study_instance_uid: str | None = None
    series_instance_uid: str | None = None
    notes: tuple[str, ...] = ()
    pixel_aspect: float = 1.0
    stored_shape: tuple[int, int] | None = None
    burned_in_annotation: bool | None = None
    patient_orientation: tuple[str, str] | None = None
    header: Dataset | None = None
    grey: GreyValues | None = None

    def __repr__(self) -> str:
        rows, columns = self.image.shape
        return f"Radiograph({self.image_id!r:.80}, {rows} x {columns})"  # no pixels, and nothing of a patient

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of the file's own grid, on which its masks are."""
        rows, columns = self.stored_shape or self.image.shape
        return rows, columns


def read_dicom(path: Path | str, with_grey: bool = False) -> Radiograph:
    """Read the one greyscale radiograph of a DICOM file, shown as its header prescribes.

    Stored values pass the modality LUT, the first VOI LUT or else the first window, and the inversion of MONOCHROME1;
    padding is shown black. After a window or VOI LUT, 0 and 1 are the ends of its output range. Without one, they are
    the ends of the stored range for up to 8 bits (so that the image is value / 255, as in a PNG made from it), and the
    lowest and highest value present for more, because detectors fill an unknown part of their 10 to 16 bits. Pixels
    that are not square are resampled to square ones. with_grey: keep what the image was before its window, too.

    Raises: InputError, one line with the file, the reason and the way out.
    Source: DICOM PS3.3 C.7.6.3, C.7.5.1.1.2, C.11.1, C.11.2, C.11.6, C.8.11.3.
    """
    path = Path(path)
    try:
        with collect_warnings() as caught:
            dataset = open_dataset(path, caught)
            refuse_unless_one_grey_image(dataset)
            offsets, tones = tones_of(_stored_values(dataset), dataset)
            stored = of_each_pixel(tones.shown.astype(np.float32), offsets)
            aspect, aspect_notes = pixel_aspect(dataset)
            return Radiograph(
                image=with_square_pixels(stored, aspect),
                image_id=valid_uid(text(dataset, "SOPInstanceUID")) or name_of(path),
                patient_id=text(dataset, "PatientID"),
                view=text(dataset, "ViewPosition"),
                sex=sex(dataset),
                age_years=age_years(dataset),
                pixel_spacing_mm=pixel_spacing_mm(dataset),
                sop_instance_uid=text(dataset, "SOPInstanceUID"),
                study_instance_uid=text(dataset, "StudyInstanceUID"),
                series_instance_uid=text(dataset, "SeriesInstanceUID"),
                notes=(*not_frontal_chest(dataset), *tones.notes, *aspect_notes),
                pixel_aspect=aspect,
                stored_shape=(stored.shape[0], stored.shape[1]),
                burned_in_annotation={"YES": True, "NO": False}.get(text(dataset, "BurnedInAnnotation") or ""),
                patient_orientation=patient_orientation(dataset),
                header=header_of(dataset),
                grey=grey_values_of(offsets, tones, dataset) if with_grey else None,
            )
    except InputError as error:
        # A reason may quote the file, and with it a line break.
        raise InputError(f"cannot read {path}: {' '.join(str(error).split())}") from error
    except DAMAGE as error:
        reason = excerpt(error) or type(error).__name__
        raise InputError(f"cannot read {path}: damaged or not standard DICOM ({reason}); export it again") from error


def _stored_values(dataset: Dataset) -> NDArray[np.int32]:
    """Return the stored values, (rows, columns), and free what they were decoded from. Raises: as `decode`."""
    stored = decode(dataset)
    del dataset.PixelData
    return stored
