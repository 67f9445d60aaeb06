"""What `pleura predict` writes for each radiograph, and the tables of all of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pleura.data import rle
from pleura.data.classify import OWN_SOFTWARE
from pleura.data.geometry import SquareGeometry
from pleura.data.png import png_bytes
from pleura.data.probability_png import probability_png
from pleura.data.radiograph import geometry_of
from pleura.decision.calibration import probability_at_prevalence
from pleura.dicom.results import DicomObject
from pleura.errors import InputError, OutputError
from pleura.inference.prediction import Prediction
from pleura.urls.places import remove, write
from pleura.urls.url import Place

# Each with the name of the writer, so that none is ever taken for a radiograph.
PICTURES: dict[str, tuple[str, Callable[[Prediction], bytes]]] = {
    "mask": ("masks", lambda prediction: png_bytes(prediction.predicted_mask * np.uint8(255), OWN_SOFTWARE)),
    "overlay": ("overlays", lambda prediction: _overlay_png(prediction)),
    "probabilities": ("probabilities", lambda prediction: _probability_png(prediction)),
}
"""Word of --write -> the folder of its PNG files, one for each radiograph, and what makes them."""
DICOM_OBJECTS: dict[str, Callable[[Prediction, Sequence[DicomObject]], DicomObject]] = {
    "seg": lambda prediction, _: prediction.to_seg(),
    "seg-occupancy": lambda prediction, _: prediction.to_seg("occupancy"),
    "seg-fractional": lambda prediction, _: prediction.to_seg("fractional"),
    "sc": lambda prediction, _: prediction.to_sc(),
    "sc-jpeg-lossless": lambda prediction, _: prediction.to_sc("jpeg-lossless"),
    "gsps": lambda prediction, _: prediction.to_gsps(),
    "sr": lambda prediction, made: prediction.to_sr(next((one for one in made if one.Modality == "SEG"), None)),
}
"""Word of --write, and the folder of its DICOM files -> what makes the object of one radiograph, from those above."""
DEFAULT_WRITES = ("mask", "rle", "overlay")
"""`rle` is a table."""
WRITES = (*DEFAULT_WRITES, "probabilities", *DICOM_OBJECTS)
"""The words of --write."""
SHOW_IT = ("overlay", "sc", "sc-jpeg-lossless")
"""Those of which the results show the radiograph itself."""
COLUMNS = (
    "image_id",
    "is_positive",
    "score",
    "probability",
    "prevalence",
    "ruled_out",
    "area_px",
    "area_mm2",
    "side",
    "rows",
    "columns",
    "sop_instance_uid",
    "series_instance_uid",
    "study_instance_uid",
    "notes",
    "source",
)
# Of an entry of the journal; what may be missing is None.
TYPES: dict[str, tuple[type, ...]] = {
    "image_id": (str,),
    "is_positive": (int,),
    "score": (int, float),
    "probability": (int, float, type(None)),
    "ruled_out": (int, type(None)),
    "area_px": (int,),
    "area_mm2": (int, float, type(None)),
    "side": (str, type(None)),
    "rows": (int,),
    "columns": (int,),
    "sop_instance_uid": (str, type(None)),
    "series_instance_uid": (str, type(None)),
    "study_instance_uid": (str, type(None)),
    "notes": (str,),
    "source": (str,),
    "runs": (str,),
    "file": (str,),
    "size": (int,),
    "mtime_ns": (int,),
    "etag": (str,),
    "not_written": (str,),
}
NEEDED = ("image_id", "is_positive", "score", "area_px", "rows", "columns", "source", "runs")
"""What entries of every version have."""
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
_UNSAFE = re.compile(r'[<>:"|?*\\\x00-\x1f]|%(?=[0-9A-F]{2})|[. ]$|^\.\.?$')


def file_of(folder: Place, image_id: str, suffix: str = ".png") -> Place:
    """Return the file of an id below a folder: folders as the id has them, each name one that every system takes.

    What Windows does not take, and `..`, is written as in addresses: `%3A` for a colon.
    """
    parts = [_UNSAFE.sub(_escape, part) for part in image_id.split("/") if part]
    parts = [f"%{ord(part[0]):02X}{part[1:]}" if _RESERVED.fullmatch(part) else part for part in parts]
    return folder.joinpath(*parts[:-1], f"{parts[-1]}{suffix}")


def _escape(match: re.Match[str]) -> str:
    return "".join(f"%{ord(letter):02X}" for letter in match[0])


def write_files(out: Place, words: Sequence[str], prediction: Prediction) -> str | None:
    """Write the files of one prediction that are asked for; all or none.

    Returns why there are no DICOM objects of it, where some are asked for and there can be none: the rest is written.
    words: of --write. Raises: OutputError; StoreError, after which some may be there.
    """
    try:
        for word, (folder, png_of) in PICTURES.items():
            if word in words:
                write(file_of(out / folder, prediction.image_id), png_of(prediction))
        return _write_objects(out, [word for word in DICOM_OBJECTS if word in words], prediction)
    except OutputError:
        remove_files(out, prediction.image_id)
        raise


def _overlay_png(prediction: Prediction) -> bytes:
    # Grey is drawn and compressed in less than half the time.
    return png_bytes(np.asarray(prediction.overlay(may_be_grey=True)), OWN_SOFTWARE)


def _probability_png(prediction: Prediction) -> bytes:
    area_px = geometry_of(prediction.radiograph, rle.SIIM_SIDE_PX).whole_area_px
    return probability_png(prediction.probabilities, area_px, OWN_SOFTWARE)


def _write_objects(out: Place, words: Sequence[str], prediction: Prediction) -> str | None:
    try:
        files = objects_of(prediction, words)
    except InputError as error:
        return f"no {', '.join(words)}: {error}"
    for word, content in files.items():
        write(file_of(out / word, prediction.image_id, ".dcm"), content)
    return None


def objects_of(prediction: Prediction, words: Sequence[str]) -> dict[str, bytes]:
    """Return the DICOM files of one prediction by their words, in the order in which one may refer to another.

    Raises: InputError where there can be none.
    """
    if not words:
        return {}
    from pleura.dicom.instance import bytes_of

    made: list[DicomObject] = []
    ordered = [word for word in DICOM_OBJECTS if word in words]
    for word in ordered:
        made.append(DICOM_OBJECTS[word](prediction, made))
    return {word: bytes_of(one) for word, one in zip(ordered, made, strict=True)}


def remove_files(out: Place, image_id: str) -> None:
    """Remove the files of an id, where they are. Raises: StoreError."""
    files = [file_of(out / folder, image_id) for folder, _ in PICTURES.values()]
    for file in (*files, *(file_of(out / word, image_id, ".dcm") for word in DICOM_OBJECTS)):
        remove(file)


def entry_of(prediction: Prediction, source: str, words: Sequence[str]) -> dict[str, Any]:
    """Return the fields of one prediction for the journal and the tables.

    source: how its file is named there. words: of --write.
    """
    rows, columns = prediction.predicted_mask.shape
    radiograph = prediction.radiograph
    return {
        "image_id": prediction.image_id,
        "is_positive": int(prediction.is_positive),
        "score": round(prediction.score, 6),
        "probability": None if prediction.probability is None else round(prediction.probability, 6),
        "ruled_out": None if prediction.ruled_out is None else int(prediction.ruled_out),
        "area_px": prediction.area_px,
        "area_mm2": None if prediction.area_mm2 is None else round(prediction.area_mm2, 2),
        "side": prediction.side,
        "rows": rows,
        "columns": columns,
        "sop_instance_uid": radiograph.sop_instance_uid,
        "series_instance_uid": radiograph.series_instance_uid,
        "study_instance_uid": radiograph.study_instance_uid,
        "notes": "; ".join(radiograph.notes),
        "source": source,
        "runs": rle.encode(on_siim_grid(prediction)) if "rle" in words else "",
    }


def on_siim_grid(prediction: Prediction) -> Any:
    """Return the mask for SIIM's csv: on 1024 x 1024 for a square image, on the image's own grid for any other."""
    rows, columns = prediction.predicted_mask.shape
    if rows != columns or rows == rle.SIIM_SIDE_PX:
        return prediction.predicted_mask
    return SquareGeometry(rows, columns, rle.SIIM_SIDE_PX).mask_to_square(prediction.predicted_mask)


class TableRows:
    """The rows of predictions.csv, by id, each made when it is asked for."""

    def __init__(
        self, entries: Mapping[str, Mapping[str, Any]], fitted: float | None, wanted: float | None = None
    ) -> None:
        """entries: of the journal, by id.

        fitted: the share of positives among the cases that the calibration is of. wanted: another one that
        `probability` is to be for, by Bayes' rule on the odds; None keeps it.
        """
        self.entries, self.fitted, self.wanted = entries, fitted, wanted

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self._row(self.entries[image_id]) for image_id in sorted(self.entries))

    def _row(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        row = {column: entry.get(column) for column in COLUMNS}
        if row["probability"] is not None:
            row["prevalence"] = None if self.fitted is None else round(self.wanted or self.fitted, 6)
            if self.fitted is not None and self.wanted is not None:
                moved = probability_at_prevalence(float(row["probability"]), self.fitted, self.wanted)
                row["probability"] = round(moved, 6)
        return row
