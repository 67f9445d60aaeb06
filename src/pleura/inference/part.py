"""A part of a batch: a few radiographs that one process reads, predicts together, and writes the files of.

The same parts, read and written by the same functions, are done by `pleura predict` in one process or on many machines.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pleura.data.ids import Identified
from pleura.data.radiograph import pixels_of, read_each
from pleura.dicom.deidentify import Secret
from pleura.dicom.read import Radiograph
from pleura.errors import OutputError, PleuraError, StoreError
from pleura.inference.disclosure import BURNED_IN, Disclosure
from pleura.inference.predictor import Predictor
from pleura.inference.work import stamp_of
from pleura.inference.writers import entry_of, write_files
from pleura.urls.url import Place

PIXELS_IN_FLIGHT = 20_000_000
"""Of one part, unless a single radiograph has more; while it is predicted the next one is read, and the results of the
one before are written."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""What ends a batch: no other file could be written either."""


@dataclass(frozen=True)
class BatchSettings:
    """The options of `pleura predict`, besides the model."""

    inputs: tuple[str, ...]
    out: Place
    model_name: str
    """OUT holds the results of one model, under this name."""
    write: tuple[str, ...] = ("mask", "rle", "overlay")
    batch_size: int = 4
    prevalence: float | None = None
    """The share of positives that reported probabilities are for; that of the calibration by default."""
    secret: Secret | None = None
    """Of de-identified results, which say nothing of whose they are but what it links; None: they say all."""

    @property
    def disclosure(self) -> Disclosure:
        """What the results may say of whose they are."""
        return Disclosure(self.secret)


class Read(NamedTuple):
    """A radiograph that waits for the net, and then for its results to be written."""

    case: Identified
    stamp: dict[str, Any]
    radiograph: Radiograph
    square: NDArray[np.uint8]


Failed: TypeAlias = tuple[str, str]
"""(file, reason)."""


@dataclass
class ReadPart:
    """What could be read of a part, and what could not."""

    read: list[Read] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)

    def unsaid(self, settings: BatchSettings) -> int:
        """How many radiographs do not say whether text is burned into pixels that results show."""
        return sum(settings.disclosure.shows_text(one.radiograph, settings.write) is None for one in self.read)


def parts(cases: Sequence[Identified], batch_size: int) -> Iterator[list[Identified]]:
    """Yield parts of at most `batch_size` radiographs and of no more pixels than may be in flight, by their headers."""
    part: list[Identified] = []
    pixels = 0
    for case in cases:
        more = pixels_of(case.path) if case.pixels is None else case.pixels
        if part and (len(part) == batch_size or pixels + more > PIXELS_IN_FLIGHT):
            yield part
            part, pixels = [], 0
        part.append(case)
        pixels += more
    if part:
        yield part


def read_part(predictor: Predictor, settings: BatchSettings, part: Sequence[Identified]) -> ReadPart:
    """Return what can be read and what cannot. Raises: StoreError, which under a secret names no object."""
    disclosure, done = settings.disclosure, ReadPart()
    read = read_each([case.path for case in part])
    for case in part:
        stamp = stamp_of(case.path, disclosure)  # before it is read: what changes meanwhile is noticed next time
        try:
            with disclosure.withholding():
                one = next(read)
            if isinstance(one, PleuraError):
                raise one
            radiograph = disclosure.radiograph(one)
        except StoreError:
            raise
        except PleuraError as error:
            done.failed.append((disclosure.source(case), disclosure.reason(error)))
            continue
        if disclosure.shows_text(radiograph, settings.write):
            done.failed.append((disclosure.source(case), BURNED_IN))
            continue
        copied = (f"a copy of {disclosure.other(case.copy_of)}",) if case.copy_of else ()
        named = replace(radiograph, image_id=case.image_id, notes=(*radiograph.notes, *copied))
        done.read.append(Read(case, stamp, named, predictor.square(named)))
    return done


def write_results(
    predictor: Predictor, settings: BatchSettings, read: Read, found: NDArray[np.float32]
) -> tuple[dict[str, Any] | None, Failed | None]:
    """Decide on a radiograph and write its files; returns its entry of the journal, and the problem of it alone.

    found: its probabilities, (size_px, size_px) in [0, 1]. Raises: OutputError, StoreError for what ends the batch.
    """
    prediction = predictor.decide(read.radiograph, found)
    source = settings.disclosure.source(read.case)
    try:
        not_written = write_files(settings.out, settings.write, prediction.at_prevalence(settings.prevalence))
    except OutputError as error:
        if not ends_a_batch(error):
            return None, (source, str(error))
        raise
    more = {} if not_written is None else {"not_written": not_written}
    entry = {**entry_of(prediction, source, settings.write), **read.stamp, **more}
    return entry, None if not_written is None else (source, not_written)


def ends_a_batch(error: OutputError) -> bool:
    """Whether no other file could be written either."""
    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno in FULL
