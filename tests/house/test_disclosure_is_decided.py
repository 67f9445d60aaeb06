"""What is new in a radiograph, or in what is written of it, is kept or withheld under `--deidentify` on purpose."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
from pydicom.dataset import Dataset

from pleura.dicom.deidentify import Secret
from pleura.dicom.read import Radiograph
from pleura.inference.disclosure import Disclosure
from pleura.inference.writers import SHOW_IT, WRITES

KEPT = {
    *("image", "image_id", "view", "pixel_spacing_mm", "pixel_aspect", "stored_shape", "burned_in_annotation"),
    *("patient_orientation", "grey"),
}
WITHHELD = {"patient_id", "sex", "age_years"}
CHANGED = {"sop_instance_uid", "study_instance_uid", "series_instance_uid", "notes", "header"}
SHOW_NO_PIXEL = {"mask", "rle", "probabilities", "seg", "seg-occupancy", "seg-fractional", "gsps", "sr"}


def test_every_attribute_of_a_radiograph_is_kept_withheld_or_changed_on_purpose() -> None:
    named = {field.name for field in fields(Radiograph)}
    assert named == KEPT | WITHHELD | CHANGED, "decide in inference/disclosure.py what becomes of it, and write it here"
    told = {name: f"1.{number}" for number, name in enumerate(named)}
    notes = ("Modality is SMITH: not the frontal chest radiograph that the model is made for",)
    header = Dataset()
    header.PatientName = "SMITH"
    whole = Radiograph(**{**told, "image": np.zeros((1, 1), np.float32), "notes": notes, "header": header})  # type: ignore[arg-type]
    after = Disclosure(Secret(b"0123456789abcdef")).radiograph(whole)
    assert {name for name in named if getattr(after, name) is None} == WITHHELD
    assert {name for name in named - WITHHELD if getattr(after, name) != getattr(whole, name)} == CHANGED


def test_every_word_of_write_shows_the_radiograph_or_none_of_its_pixels() -> None:
    assert set(WRITES) == SHOW_NO_PIXEL | set(SHOW_IT), "name it in SHOW_IT if it shows the radiograph, or else here"
