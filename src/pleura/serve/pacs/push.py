"""`pleura push`: DICOM files to an archive, by C-STORE or STOW-RS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pleura.data.finding import walk
from pleura.dicom.parse import class_and_maker
from pleura.errors import InputError, PleuraError
from pleura.progress import track
from pleura.serve.pacs.delivery import AT_ONCE, Destination, UnreachableError
from pleura.serve.pacs.outbox import Parcel

_REPORTS = "1.2.840.10008.5.1.4.1.1.88."


@dataclass
class Pushed:
    """What came of it."""

    sent: int = 0
    passed_over: int = 0
    """Files that are no DICOM."""
    problems: list[tuple[Path, str]] = field(default_factory=list)
    """(file, why it was refused)."""


def push(inputs: Sequence[Path], destination: Destination) -> Pushed:
    """Send every DICOM file of files and folders, as it is; reports last, after what they may refer to.

    Raises: InputError where there is none; PleuraError if the destination is not reached, with how far it came.
    """
    done = Pushed()
    classes: dict[Path, str] = {}
    for named in inputs:
        files = [named] if named.is_file() else list(walk(named))
        if not files:
            raise InputError(f"{named}: there is no file; give DICOM files, or folders of them")
        for file in files:
            sop_class = class_and_maker(file)[0]
            if sop_class is None:
                done.passed_over += 1
            else:
                classes[file] = sop_class
    if not classes:
        raise InputError(f"{inputs[0]}: there is no DICOM file; give DICOM files, or folders of them")
    ordered = sorted(classes, key=lambda file: (classes[file].startswith(_REPORTS), file))
    parcels = [Parcel(number, file.name, destination.name, (file,), 0, 0.0) for number, file in enumerate(ordered)]
    batches = [parcels[first : first + AT_ONCE] for first in range(0, len(parcels), AT_ONCE)]
    try:
        for batch in track(batches, "push"):
            for parcel, refusal in destination.send(batch):
                if refusal is None:
                    done.sent += 1
                else:
                    done.problems.append((parcel.files[0], refusal))
    except UnreachableError as error:
        count = len(parcels)
        raise PleuraError(
            f"{destination.name}: {error}; {done.sent} of {count} sent, send all of them again"
        ) from error
    return done
