"""`pleura predict`: many radiographs to masks, overlays and tables; streamed, resumable, and no bad file stops it.

Each finished radiograph is one line of OUT/journal.jsonl; the tables are written from it at the end, also after
Ctrl-C. The same command goes on where a killed one ended, and predicts anew what has changed since. Where OUT is a URL,
both are written on a desk and go up from there; see `pleura.urls`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from pleura import __version__
from pleura.data import rle
from pleura.data.finding import find_radiographs
from pleura.data.ids import Identified
from pleura.data.objects import INPUTS, Heads
from pleura.decision.calibration import Calibration
from pleura.decision.levels import refuse_unless_kept
from pleura.decision.triplet import Triplet
from pleura.errors import InputError, OutputError, StoreError, writing
from pleura.files import hash_files, held, write_csv
from pleura.inference.disclosure import MAY_SHOW
from pleura.inference.journal import JOURNAL, Journal, open_journal
from pleura.inference.model_files import find_model
from pleura.inference.part import BatchSettings, Failed, Read, ReadPart, parts, read_part, write_results
from pleura.inference.precision import Precision, in_words
from pleura.inference.predictor import Predictor
from pleura.inference.work import Work, left_to_do
from pleura.inference.writers import COLUMNS, TableRows
from pleura.models.default import is_default
from pleura.progress import track
from pleura.urls.desk import Desk, desk_for
from pleura.urls.url import is_url

TABLE, RUNS, PROBLEMS = "predictions.csv", "masks.csv", "problems.csv"
WRITERS = 2
"""Threads that write results, of which one may wait for the disk; a store of objects gets one for each of a batch."""
_WRITES = "writes its predictions there"


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


class Described(Protocol):
    """What a batch says of its model, without running it: a `Predictor` has it, and what describes one elsewhere."""

    @property
    def tta(self) -> str:
        """How a net sees an image: `none`, `flip`."""

    @property
    def precision(self) -> str:
        """What it computes in."""

    @property
    def precisions(self) -> Sequence[Precision]:
        """Of each net, with why."""

    @property
    def engine(self) -> str:
        """What runs it."""

    @property
    def triplet(self) -> Triplet:
        """The decision rule."""

    @property
    def calibration(self) -> Calibration | None:
        """Of what is reported."""

    @property
    def prevalence(self) -> float | None:
        """The share of positives that the calibration is of."""

    @property
    def doubts(self) -> Sequence[str]:
        """That each result repeats."""


Compute: TypeAlias = Callable[[BatchSettings, Sequence[Identified], Work], Generator[None]]
"""Writes the files of radiographs and keeps their entries and problems; yields as often as one is done, or has failed.
"""
Item = TypeVar("Item")


def predict_batch(predictor: Predictor, settings: BatchSettings) -> BatchResult:
    """Run a model over files, folders and patterns in this process. Returns and raises: as `predict_by`."""
    return predict_by(partial(_predicted, predictor), predictor, settings)


def predict_by(compute: Compute, model: Described, settings: BatchSettings) -> BatchResult:
    """Run a model over files, folders, patterns and URLs of those, and write the results to OUT, a folder or a URL.

    masks/ID.png, probabilities/ID.png and overlays/ID.png on the original grid, seg/ID.dcm, masks.csv (SIIM
    run-length), predictions.csv, problems.csv.
    Raises: InputError if an input names no radiograph, for a prevalence that cannot be, or probabilities that cannot be
    kept; OutputError if OUT cannot be written, another process writes to it, or it holds results of another model or
    other settings, or a damaged journal; StoreError if a store cannot be reached, or denies access.
    """
    check_prevalence(model, settings.prevalence)
    if "probabilities" in settings.write:
        refuse_unless_kept(model.triplet)
    with ExitStack() as stack:
        desk = stack.enter_context(desk_for(settings.out, _WRITES))
        journal, heads = None, None
        if has_urls := any(map(is_url, settings.inputs)):
            stack.enter_context(held(desk.folder, _WRITES))
            # Before anything is written there: it may hold de-identified results.
            journal = _earlier(settings, desk, model)
            heads = _heads(settings, desk)
        # OUT may lie inside an input folder, or be one.
        own = [settings.out / name for name in (JOURNAL, TABLE, RUNS, PROBLEMS, INPUTS)]
        with settings.disclosure.withholding():
            found = find_radiographs(settings.inputs, own, heads, says_all=settings.secret is None)
        if not has_urls:
            stack.enter_context(held(desk.folder, _WRITES))
        elif settings.secret is None:
            desk.put(INPUTS)
        journal = journal or _earlier(settings, desk, model)
        _refuse_names(settings, desk)
        work = Work(journal or _begin(settings, desk.folder, model))
        desk.put(JOURNAL)
        new = left_to_do(found, settings.disclosure, settings.out, work)
        earlier = len(work.journal.entries)
        with writing(desk.folder), work.journal:
            try:
                with closing(compute(settings, new, work)) as predicted:
                    for _ in track(predicted, "predict", total=earlier + len(new), done=earlier, images=1):
                        desk.follow(JOURNAL)
            finally:
                rows = _write_tables(settings, desk, model, work)
    positive = sum(bool(row["is_positive"]) for row in rows)
    prevalence = None if model.calibration is None else settings.prevalence or model.prevalence
    notes = [*model.doubts, *work.notes]
    counts, precisions = (len(rows) - earlier, positive, earlier), tuple(model.precisions)
    return BatchResult(*counts, work.problems, notes, rows, prevalence, model.precision, precisions)


def check_prevalence(model: Described, wanted: float | None) -> None:
    """Refuse a share of positives that is none, or that the model's calibration cannot be re-weighted to.

    Raises: InputError.
    """
    if wanted is None:
        return
    if not 0 < wanted < 1:
        raise InputError(f"--prevalence is a share of positives between 0 and 1, as 0.05, not {wanted:g}")
    if model.prevalence is None:
        raise InputError(
            "--prevalence: the model has no calibration, or it does not say on what share of positives it was fitted; "
            "write it anew with pleura tune"
        )


def _heads(settings: BatchSettings, desk: Desk) -> Heads:
    """Return what earlier runs learned of objects. De-identified results hold no such list: it has paths and UIDs."""
    if settings.secret is not None:
        return Heads()
    desk.take(INPUTS)
    return Heads(desk.folder / INPUTS, lambda: desk.follow(INPUTS), settings.out / INPUTS)


def _earlier(settings: BatchSettings, desk: Desk, model: Described) -> Journal | None:
    """Go on with the journal of OUT, where there is one. Raises: OutputError if it is of other settings."""
    desk.take(JOURNAL)
    return _begin(settings, desk.folder, model) if (desk.folder / JOURNAL).exists() else None


def _refuse_names(settings: BatchSettings, desk: Desk) -> None:
    """Refuse OUT for de-identified results where another run left names of objects. Raises: OutputError."""
    if settings.secret is None:
        return
    desk.take(INPUTS)
    if (desk.folder / INPUTS).exists():
        raise OutputError(
            f"{settings.out / INPUTS}: names files, which de-identified results do not; remove it, or choose another "
            "--out"
        )


def _begin(settings: BatchSettings, folder: Path, model: Described) -> Journal:
    """Open the journal of OUT, with what an earlier run of the same command has done."""
    asked = {
        "model": settings.model_name,
        "tta": model.tta,
        "write": sorted(settings.write),
        **settings.disclosure.settings,
        # float32 and torch are left out, because earlier versions had no others: their results are continued.
        **({} if model.precision == "float32" else {"precision": model.precision}),
        **({} if model.engine == "torch" else {"engine": model.engine}),
        # Tables are written anew by each run, and reports are not.
        **({"prevalence": settings.prevalence} if settings.prevalence and "sr" in settings.write else {}),
    }
    return open_journal(folder, asked, {"computed_in": in_words(model.precisions)}, settings.out)


def _predicted(predictor: Predictor, settings: BatchSettings, new: Sequence[Identified], work: Work) -> Generator[None]:
    """Predict, write the files of each and keep its entry; yields as often as that is done, or has failed.

    While the net runs on one batch, the next is read, and the results of the one before are written. An interrupt loses
    none of those, because the writing is waited for.
    """
    unsaid = 0
    threads = WRITERS if isinstance(settings.out, Path) else max(WRITERS, settings.batch_size)
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(threads) as writers:
        behind: list[Future[Failed | None]] = []
        for part in _ahead(reader, _batches(predictor, settings, new)):
            unsaid += part.unsaid(settings)
            found = iter(predictor.probabilities(np.stack([one.square for one in part.read])) if part.read else ())
            yield from _finished(behind, work)
            for each in part.failed:
                work.problems.append(each)
                yield
            behind = [writers.submit(_write, predictor, settings, work, one, next(found)) for one in part.read]
        yield from _finished(behind, work)
    note_unsaid(unsaid, work)


def note_unsaid(count: int, work: Work) -> None:
    """Note how many radiographs do not say whether text is burned into pixels that results show."""
    if count:
        work.notes.append(f"{count} {MAY_SHOW}")


def _ahead(reader: Executor, items: Iterator[Item]) -> Iterator[Item]:
    """Yield items, of which one is made by another thread while the one before is used."""
    ahead = reader.submit(next, items, None)
    while (item := ahead.result()) is not None:
        ahead = reader.submit(next, items, None)
        yield item


def _write(
    predictor: Predictor, settings: BatchSettings, work: Work, read: Read, found: NDArray[np.float32]
) -> Failed | None:
    """Return the problem of this file alone. Raises: OutputError, OSError, StoreError for what ends the batch."""
    if work.ended:  # the results before this one have raised why
        return None
    try:
        entry, problem = write_results(predictor, settings, read, found)
        if entry is not None:
            work.journal.add(entry)
    except (OutputError, OSError, StoreError):
        work.ended = True
        raise
    return problem


def _finished(written: Sequence[Future[Failed | None]], work: Work) -> Iterator[None]:
    for future in written:
        if failed := future.result():
            work.problems.append(failed)
        yield


def _batches(predictor: Predictor, settings: BatchSettings, cases: Sequence[Identified]) -> Iterator[ReadPart]:
    """Yield what can be read and what cannot, a batch at a time."""
    return (read_part(predictor, settings, part) for part in parts(cases, settings.batch_size))


def _write_tables(settings: BatchSettings, desk: Desk, model: Described, work: Work) -> TableRows:
    rows = TableRows(work.journal.entries, model.prevalence, settings.prevalence)
    write_csv(desk.folder / TABLE, chain([COLUMNS], ([row[column] for column in COLUMNS] for row in rows)))
    if "rle" in settings.write:
        rle.write_csv(desk.folder / RUNS, work.journal.runs())
    write_csv(desk.folder / PROBLEMS, [("file", "reason"), *work.problems])
    for name in (JOURNAL, TABLE, *([RUNS] if "rle" in settings.write else []), PROBLEMS):
        desk.put(name)
    return rows
