"""`pleura predict`: many radiographs to masks, overlays and tables; streamed, resumable, and no bad file stops it.

Each finished radiograph is one line of OUT/journal.jsonl; the tables are written from it at the end, also after
Ctrl-C. The same command goes on where a killed one ended, and predicts anew what has changed since.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

from pleura import __version__
from pleura.data import rle
from pleura.data.finding import Found, find_radiographs
from pleura.data.ids import Identified, Identities
from pleura.data.radiograph import pixels_of, read_radiograph
from pleura.decision.levels import refuse_unless_kept
from pleura.dicom.deidentify import Secret
from pleura.dicom.read import Radiograph
from pleura.errors import InputError, OutputError, PleuraError, writing
from pleura.files import hash_files, held, journal_line, write_csv
from pleura.inference.disclosure import BURNED_IN, MAY_SHOW, TAKEN, Disclosure
from pleura.inference.journal import JOURNAL, open_journal
from pleura.inference.model_files import find_model
from pleura.inference.prediction import Prediction
from pleura.inference.predictor import Predictor
from pleura.inference.writers import COLUMNS, entry_of, remove_files, table_rows, write_files
from pleura.models.default import is_default
from pleura.progress import track

TABLE, RUNS, PROBLEMS = "predictions.csv", "masks.csv", "problems.csv"
PIXELS_IN_FLIGHT = 20_000_000
"""Of one batch, unless a single radiograph has more; while it is predicted the next one is read, and the results of the
one before are written."""
STAMP = ("file", "size", "mtime_ns")
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
    rows: list[dict[str, Any]]
    """Of predictions.csv."""
    prevalence: float | None
    """The share of positives that the probabilities are for; None without a calibration, or where it is not known."""
    precision: str
    """What the net computed in."""


def model_name(model: Path) -> str:
    """Return the hash of a model's files, or words for the model that comes with pleura.

    Raises: CheckpointError, InputError.
    """
    files = find_model(model).all
    name = hash_files(*files)
    return f"the default model of pleura {__version__} (sha256 {name[:12]})" if is_default(files[0]) else name


@dataclass
class _Work:
    """What a batch has done so far."""

    done: dict[str, dict[str, Any]]
    problems: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    ended: bool = False
    """Something came that ends the batch: nothing more is written."""


_Read: TypeAlias = tuple[Identified, dict[str, Any], Radiograph]
_Failed: TypeAlias = tuple[str, str]
_Keep: TypeAlias = Callable[[dict[str, Any]], None]


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
        work = _Work(_begin(settings, predictor))
        new = _new(found, settings, work)
        earlier = len(work.done)
        with writing(settings.out), (settings.out / JOURNAL).open("a", encoding="utf-8") as journal:

            def keep(entry: dict[str, Any]) -> None:
                work.done[entry["image_id"]] = entry
                journal.write(journal_line(entry))
                journal.flush()

            try:
                with closing(_predicted(predictor, settings, new, work, keep)) as predicted:
                    for _ in track(predicted, "predict", total=len(new)):
                        pass
            finally:
                rows = _write_tables(settings, predictor, work)
    positive = sum(bool(row["is_positive"]) for row in rows)
    prevalence = None if predictor.calibration is None else settings.prevalence or predictor.prevalence
    notes = [*predictor.doubts, *work.notes]
    return BatchResult(
        len(rows) - earlier, positive, earlier, work.problems, notes, rows, prevalence, predictor.precision
    )


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


def _begin(settings: BatchSettings, predictor: Predictor) -> dict[str, dict[str, Any]]:
    """Open OUT; returns the entries of an earlier run of the same command, by id."""
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
    return open_journal(settings.out, asked)


def _new(found: Found, settings: BatchSettings, work: _Work) -> list[Identified]:
    """The radiographs that are not done yet or have changed; forgets what was found on those, and their files."""
    disclosure = settings.disclosure
    who = disclosure.identify(found.radiographs, work.done)
    _report(found, who, disclosure, work)
    stamps = {case.image_id: _stamp(case.path, disclosure) for case in who.cases}
    here = {stamp["file"] for stamp in stamps.values()}
    by_file = {entry.get("file"): key for key, entry in work.done.items()}
    new = []
    for case in who.cases:
        stamp, entry = stamps[case.image_id], work.done.get(case.image_id)
        if entry is not None:
            moved = disclosure.has_moved(entry, here)
            if _unchanged(entry, stamp, moved):
                if "not_written" in entry:  # as long as it is so, each run says it
                    work.problems.append((disclosure.source(case), entry["not_written"]))
                continue
            if disclosure.secret is not None and moved:
                work.problems.append((disclosure.source(case), TAKEN))
                continue
        new.append(case)
        for key in {case.image_id, by_file.get(stamp["file"])}:
            if key is not None and work.done.pop(key, None) is not None:
                remove_files(settings.out, key)
    return new


def _report(found: Found, who: Identities, disclosure: Disclosure, work: _Work) -> None:
    """Add what is known before anything is read: folders without access, clashes, copies, and what was passed over."""
    named = {case.path: disclosure.source(case) for case in who.cases}
    work.problems += [(disclosure.folder(folder), reason) for folder, reason in found.unreadable]
    work.problems += [
        (named[path], f"goes by its path: {disclosure.other(other)} has its SOP Instance UID too, and is another image")
        for path, other in who.clashes
    ]
    if who.copies:
        path, other = who.copies[0]
        some = f"{len(who.copies)} {'copy' if len(who.copies) == 1 else 'copies'} of other files"
        more = " ..." if len(who.copies) > 1 else ""
        work.notes.append(f"{some}, predicted too: {named[path]} is {disclosure.other(other)} again{more}")
    if found.passed_over:
        work.notes.append(disclosure.passed_over(found))


def _unchanged(entry: dict[str, Any], stamp: dict[str, Any], moved: bool) -> bool:
    return all(entry.get(name) == stamp[name] for name in (STAMP[1:] if moved else STAMP))


def _stamp(path: Path, disclosure: Disclosure) -> dict[str, Any]:
    """Return the path, size and time of a file, which are equal while it is unchanged."""
    size = mtime_ns = -1
    with suppress(OSError):  # reading it will say why
        status = path.stat()
        size, mtime_ns = status.st_size, status.st_mtime_ns
    return disclosure.stamp({"file": os.path.realpath(path), "size": size, "mtime_ns": mtime_ns})


def _predicted(
    predictor: Predictor, settings: BatchSettings, new: Sequence[Identified], work: _Work, keep: _Keep
) -> Generator[None]:
    """Predict, write the files of each and keep its entry, in order; yields as often as that is done.

    Results are written while the next batch is predicted. An interrupt loses none, because the writing is waited for.
    """
    unsaid = 0
    with ThreadPoolExecutor(1) as writer:
        behind: list[Future[_Failed | None]] = []
        for read, failed in _read_ahead(_parts(new, settings.batch_size), settings):
            unsaid += sum(settings.disclosure.shows_text(one, settings.write) is None for _, _, one in read)
            predictions = predictor.predict_radiographs([one for _, _, one in read]) if read else []
            yield from _finished(behind, work.problems)
            work.problems.extend(failed)
            pairs = zip(read, predictions, strict=True)
            behind = [writer.submit(_write, settings, work, keep, *one[:2], found) for one, found in pairs]
        yield from _finished(behind, work.problems)
    if unsaid:
        work.notes.append(f"{unsaid} {MAY_SHOW}")


def _write(
    settings: BatchSettings, work: _Work, keep: _Keep, case: Identified, stamp: dict[str, Any], prediction: Prediction
) -> _Failed | None:
    """Return the problem of this file alone. Raises: OutputError, OSError for what ends the batch."""
    if work.ended:  # the results before this one have raised why
        return None
    source = settings.disclosure.source(case)
    try:
        not_written = write_files(settings.out, settings.write, prediction.at_prevalence(settings.prevalence))
        more = {} if not_written is None else {"not_written": not_written}
        keep({**entry_of(prediction, source, settings.write), **stamp, **more})
    except (OutputError, OSError) as error:
        cause = error.__cause__
        if isinstance(error, OutputError) and not (isinstance(cause, OSError) and cause.errno in FULL):
            return source, str(error)
        work.ended = True
        raise
    return None if not_written is None else (source, not_written)


def _finished(written: Sequence[Future[_Failed | None]], problems: list[_Failed]) -> Iterator[None]:
    for future in written:
        if failed := future.result():
            problems.append(failed)
        else:
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


def _read_ahead(
    parts: Iterator[list[Identified]], settings: BatchSettings
) -> Iterator[tuple[list[_Read], list[_Failed]]]:
    """Yield what can be read and what cannot, in batches; one is read while the one before is predicted."""
    with ThreadPoolExecutor(1) as reader:
        ahead = None
        for part in chain(parts, [None]):
            ready = ahead
            ahead = None if part is None else reader.submit(_read, part, settings)
            if ready is not None:
                yield ready.result()


def _read(cases: Sequence[Identified], settings: BatchSettings) -> tuple[list[_Read], list[_Failed]]:
    disclosure = settings.disclosure
    radiographs, failed = [], []
    for case in cases:
        stamp = _stamp(case.path, disclosure)  # before it is read: what changes meanwhile is noticed the next time
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
        radiographs.append((case, stamp, named))
    return radiographs, failed


def _write_tables(settings: BatchSettings, predictor: Predictor, work: _Work) -> list[dict[str, Any]]:
    rows = table_rows(list(work.done.values()), predictor.prevalence, settings.prevalence)
    write_csv(settings.out / TABLE, [COLUMNS, *([row[column] for column in COLUMNS] for row in rows)])
    if "rle" in settings.write:
        runs = [(key, work.done[key]["runs"]) for key in (row["image_id"] for row in rows)]
        rle.write_csv(settings.out / RUNS, runs)
    write_csv(settings.out / PROBLEMS, [("file", "reason"), *work.problems])
    return rows
