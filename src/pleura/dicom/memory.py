"""DICOM that is in memory already: as pydicom's Dataset, or as the bytes of a file."""

from __future__ import annotations

import io

import pydicom
from pydicom.dataset import Dataset

from pleura.dicom.parse import DAMAGE, collect_warnings
from pleura.errors import InputError, excerpt


def is_dataset(given: object) -> bool:
    """Whether it is a Dataset of pydicom."""
    return isinstance(given, Dataset)


def bytes_of_dataset(dataset: object) -> bytes:
    """A Dataset as the bytes of its file, so that it is read by the same rules as one; it stays as it is.

    Raises: InputError if it cannot be written, such as one without a transfer syntax.
    """
    if not isinstance(dataset, Dataset):
        raise InputError(f"a Dataset of pydicom is wanted here, not {type(dataset).__name__}")
    buffer = io.BytesIO()
    try:
        with collect_warnings(), pydicom.config.disable_value_validation():
            pydicom.dcmwrite(buffer, dataset, enforce_file_format=False)
    except DAMAGE as error:
        raise InputError(
            f"the Dataset cannot be read as a DICOM file ({excerpt(error)}); give it the file_meta of its file, with "
            "TransferSyntaxUID, or the file itself"
        ) from error
    return buffer.getvalue()
