"""`pleura predict`: many radiographs to masks, overlays and tables; streamed, resumable, and no bad file stops it.

Each finished radiograph is one line of OUT/journal.jsonl; the tables are written from it at the end, also after
Ctrl-C. The same command goes on where a killed one ended, and predicts anew what has changed since.
"""

from __future__ import annotations

import errno
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from pleura import __version__
from pleura.data import rle
from pleura.data.finding import find_radiographs
from pleura.data.ids import Identified
from pleura.data.radiograph import pixels_of, read_radiograph
from pleura.decision.levels import refuse_unless_kept
from pleura.dicom.deidentify import Secret
from pleura.dicom.read import Radiograph
from pleura.errors import InputError, OutputError, PleuraError, writing
from pleura.files import hash_files, held, write_csv
from pleura.inference.disclosure import BURNED_IN, MAY_SHOW, Disclosure
from pleura.inference.journal import JOURNAL, Journal, open_journal
from pleura.inference.model_files import find_model
from pleura.inference.precision import Precision, in_words
from pleura.inference.predictor import Predictor
from pleura.inference.work import Work, left_to_do, stamp_of
from pleura.inference.writers import COLUMNS, TableRows, entry_of, write_files
from pleura.models.default import is_default
from pleura.progress import track

TABLE, RUNS, PROBLEMS = "predictions.csv", "masks.csv", "problems.csv"
PIXELS_IN_FLIGHT = 20_000_000
"""Of one batch, unless a single radiograph has more; while it is predicted the next one is read, and the results of the
one before are written."""
WRITERS = 2
"""Threads that write results, of which one may wait for the disk."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""What ends a batch: no other file could be written either."""


@dataclass(frozen=True)
class BatchSettings:
    """The options of `pleura predict`, besides the model."""

    inputs: tuple[str, ...]
    out: Path
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


@dataclass(frozen=True)
class BatchResult:
    """How a batch went."""

    predicted: int
    positive: int
    earlier: int
    """Done by an earlier run of the same command."""
    problems: list[tuple[str, str]]
    """(file, reason)."""
    notes: list[str]
    """Files that are no radiographs, and copies, in one line each."""
    rows: TableRows
    """Of predictions.csv."""
    prevalence: float | None
    """The share of positives that the probabilities are for; None without a calibration, or where it is not known."""
    precision: str
    """What the net computed in."""
    precisions: tuple[Precision, ...]
    """Of each net, with why."""


def model_name(model: Path) -> str:
    """Return the hash of a model's files, or words for the model that comes with pleura.

    Raises: CheckpointError, InputError.
    """
    files = find_model(model).all
    name = hash_files(*files)
    return f"the default model of pleura {__version__} (sha256 {name[:12]})" if is_default(files[0]) else name


class _Read(NamedTuple):
    """A radiograph that waits for the net, and then for its results to be written."""

    case: Identified
    stamp: dict[str, Any]
    radiograph: Radiograph
    square: NDArray[np.uint8]


_Failed: TypeAlias = tuple[str, str]
"""(file, reason)."""
Item = TypeVar("Item")


def predict_batch(predictor: Predictor, settings: BatchSettings) -> BatchResult:
    """Run a model over files, folders and patterns, and write the results to OUT.

    masks/ID.png, probabilities/ID.png and overlays/ID.png on the original grid, seg/ID.dcm, masks.csv (SIIM
    run-length), predictions.csv, problems.csv.
    Raises: InputError if an input names no radiograph, for a prevalence that cannot be, or probabilities that cannot be
    kept; OutputError if OUT cannot be written, another process writes to it, or it holds results of another model or
    other settings, or a damaged journal.
    """
    check_prevalence(predictor, settings.prevalence)
    if "probabilities" in settings.write:
        refuse_unless_kept(predictor.triplet)
    # OUT may lie inside an input folder, or be one.
    found = find_radiographs(settings.inputs, [settings.out / name for name in (JOURNAL, TABLE, RUNS, PROBLEMS)])
    with held(settings.out, "writes its predictions there"):
        work = Work(_begin(settings, predictor))
        new = left_to_do(found, settings.disclosure, settings.out, work)
        earlier = len(work.journal.entries)
        with writing(settings.out), work.journal:
            try:
                with closing(_predicted(predictor, settings, new, work)) as predicted:
                    for _ in track(predicted, "predict", total=earlier + len(new), done=earlier, images=1):
                        pass
            finally:
                rows = _write_tables(settings, predictor, work)
    positive = sum(bool(row["is_positive"]) for row in rows)
    prevalence = None if predictor.calibration is None else settings.prevalence or predictor.prevalence
    notes = [*predictor.doubts, *work.notes]
    counts, precisions = (len(rows) - earlier, positive, earlier), tuple(predictor.precisions)
    return BatchResult(*counts, work.problems, notes, rows, prevalence, predictor.precision, precisions)


def check_prevalence(predictor: Predictor, wanted: float | None) -> None:
    """Refuse a share of positives that is none, or that the model's calibration cannot be re-weighted to.

    Raises: InputError.
    """
    if wanted is None:
        return
    if not 0 < wanted < 1:
        raise InputError(f"--prevalence is a share of positives between 0 and 1, as 0.05, not {wanted:g}")
    if predictor.prevalence is None:
        raise InputError(
            "--prevalence: the model has no calibration, or it does not say on what share of positives it was fitted; "
            "write it anew with pleura tune"
        )


def _begin(settings: BatchSettings, predictor: Predictor) -> Journal:
    """Open the journal of OUT, with what an earlier run of the same command has done."""
    asked = {
        "model": settings.model_name,
        "tta": predictor.tta,
        "write": sorted(settings.write),
        **settings.disclosure.settings,
        # float32 and torch are left out, because earlier versions had no others: their results are continued.
        **({} if predictor.precision == "float32" else {"precision": predictor.precision}),
        **({} if predictor.engine == "torch" else {"engine": predictor.engine}),
        # Tables are written anew by each run, and reports are not.
        **({"prevalence": settings.prevalence} if settings.prevalence and "sr" in settings.write else {}),
    }
    return open_journal(settings.out, asked, {"computed_in": in_words(predictor.precisions)})


def _predicted(predictor: Predictor, settings: BatchSettings, new: Sequence[Identified], work: Work) -> Generator[None]:
    """Predict, write the files of each and keep its entry; yields as often as that is done, or has failed.

    While the net runs on one batch, the next is read, and the results of the one before are written. An interrupt loses
    none of those, because the writing is waited for.
    """
    unsaid = 0
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(WRITERS) as writers:
        behind: list[Future[_Failed | None]] = []
        for read, failed in _ahead(reader, _batches(predictor, settings, new)):
            unsaid += sum(settings.disclosure.shows_text(one.radiograph, settings.write) is None for one in read)
            found = iter(predictor.probabilities(np.stack([one.square for one in read])) if read else ())
            yield from _finished(behind, work)
            for each in failed:
                work.problems.append(each)
                yield
            behind = [writers.submit(_write, predictor, settings, work, one, next(found)) for one in read]
        yield from _finished(behind, work)
    if unsaid:
        work.notes.append(f"{unsaid} {MAY_SHOW}")


def _ahead(reader: Executor, items: Iterator[Item]) -> Iterator[Item]:
    """Yield items, of which one is made by another thread while the one before is used."""
    ahead = reader.submit(next, items, None)
    while (item := ahead.result()) is not None:
        ahead = reader.submit(next, items, None)
        yield item


def _write(
    predictor: Predictor, settings: BatchSettings, work: Work, read: _Read, found: NDArray[np.float32]
) -> _Failed | None:
    """Return the problem of this file alone. Raises: OutputError, OSError for what ends the batch."""
    if work.ended:  # the results before this one have raised why
        return None
    prediction = predictor.decide(read.radiograph, found)
    source = settings.disclosure.source(read.case)
    try:
        not_written = write_files(settings.out, settings.write, prediction.at_prevalence(settings.prevalence))
        more = {} if not_written is None else {"not_written": not_written}
        work.journal.add({**entry_of(prediction, source, settings.write), **read.stamp, **more})
    except (OutputError, OSError) as error:
        cause = error.__cause__
        if isinstance(error, OutputError) and not (isinstance(cause, OSError) and cause.errno in FULL):
            return source, str(error)
        work.ended = True
        raise
    return None if not_written is None else (source, not_written)


def _finished(written: Sequence[Future[_Failed | None]], work: Work) -> Iterator[None]:
    for future in written:
        if failed := future.result():
            work.problems.append(failed)
        yield


def _parts(cases: Sequence[Identified], batch_size: int) -> Iterator[list[Identified]]:
    """Batches of at most `batch_size` radiographs and of no more pixels than may be in flight, by their headers."""
    part: list[Identified] = []
    pixels = 0
    for case in cases:
        more = pixels_of(case.path)
        if part and (len(part) == batch_size or pixels + more > PIXELS_IN_FLIGHT):
            yield part
            part, pixels = [], 0
        part.append(case)
        pixels += more
    if part:
        yield part


def _batches(
    predictor: Predictor, settings: BatchSettings, cases: Sequence[Identified]
) -> Iterator[tuple[list[_Read], list[_Failed]]]:
    """Yield what can be read and what cannot, a batch at a time."""
    disclosure = settings.disclosure
    for part in _parts(cases, settings.batch_size):
        read: list[_Read] = []
        failed: list[_Failed] = []
        for case in part:
            stamp = stamp_of(case.path, disclosure)  # before it is read: what changes meanwhile is noticed next time
            try:
                radiograph = disclosure.radiograph(read_radiograph(case.path))
            except PleuraError as error:
                failed.append((disclosure.source(case), disclosure.reason(error)))
                continue
            if disclosure.shows_text(radiograph, settings.write):
                failed.append((disclosure.source(case), BURNED_IN))
                continue
            copied = (f"a copy of {disclosure.other(case.copy_of)}",) if case.copy_of else ()
            named = replace(radiograph, image_id=case.image_id, notes=(*radiograph.notes, *copied))
            read.append(_Read(case, stamp, named, predictor.square(named)))
        yield read, failed


def _write_tables(settings: BatchSettings, predictor: Predictor, work: Work) -> TableRows:
    rows = TableRows(work.journal.entries, predictor.prevalence, settings.prevalence)
    write_csv(settings.out / TABLE, chain([COLUMNS], ([row[column] for column in COLUMNS] for row in rows)))
    if "rle" in settings.write:
        rle.write_csv(settings.out / RUNS, work.journal.runs())
    write_csv(settings.out / PROBLEMS, [("file", "reason"), *work.problems])
    return rows
