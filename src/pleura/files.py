"""Files that a killed run or a full disk leaves whole, csv and JSON, hashes, and folders with one writer."""

from __future__ import annotations

import csv
import hashlib
import importlib
import json
import math
import os
import tempfile
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, BinaryIO, NoReturn

from pleura.errors import InputError, OutputError, writing
from pleura.progress import track

DICOM_SUFFIXES = (".dcm", ".dicom")
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")
RADIOGRAPH_SUFFIXES = (*DICOM_SUFFIXES, *PICTURE_SUFFIXES)
LONGEST_CELL = 2**24
"""In characters: a mask of many runs is longer than the csv module's cautious 128 KiB."""
LARGE_BYTES, BLOCK_BYTES = 2_000_000_000, 1 << 24
"""From where on hashing shows a progress bar, and how much is read at a time."""


def without_suffix(name: str) -> str:
    """Drop a radiograph's suffix from a name; no other, because the UIDs of DICOM have dots themselves."""
    stem, dot, suffix = name.rpartition(".")
    return stem if stem and f"{dot}{suffix}".lower() in RADIOGRAPH_SUFFIXES else name


def name_of(path: Path) -> str:
    """A file's name without a radiograph's suffix, in the Unicode form NFC: some systems store names in another."""
    return without_suffix(unicodedata.normalize("NFC", path.name))


def write_atomically(path: Path, content: bytes | Iterable[bytes]) -> None:
    """Write a file so that a reader, or a killed run, sees the old content or the new, never a part.

    content: or its parts, in order, of which no more than one need be in memory.
    Raises: OutputError; the old file is then as it was.
    """
    # The name itself may be as long as a file system allows: what is added to it is not.
    digest = hashlib.sha256(path.name.encode("utf-8", "surrogateescape")).hexdigest()
    temporary = path.with_name(f".{digest[:16]}.part")
    with writing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                file.writelines([content] if isinstance(content, bytes) else content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            with suppress(OSError):  # it is there only where something failed
                temporary.unlink()


def sync_folder(folder: Path) -> None:
    """Wait until the names of a folder's files are on the disk, where the system can be asked. Raises: OSError."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_csv(path: Path, own: bool = False) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the cells of each line of a csv in UTF-8, the header first.

    own: pleura wrote it: its file names need not be UTF-8, and spaces are part of a cell. In any other csv, spaces
    after a comma are left out.
    Raises: InputError if it cannot be read, or is no csv.
    """
    csv.field_size_limit(LONGEST_CELL)
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape" if own else "strict") as file:
            reader = csv.reader(file, skipinitialspace=not own)
            for cells in reader:
                yield reader.line_num, cells
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as a csv ({getattr(error, 'strerror', None) or error})") from error


def read_records(path: Path) -> list[dict[str, str]]:
    """Return the rows of a csv that pleura wrote, each from column to cell. Raises: InputError as `read_csv` does."""
    lines = [cells for _, cells in read_csv(path, own=True) if cells]
    return [dict(zip(lines[0], cells, strict=False)) for cells in lines[1:]]


def write_csv(path: Path, rows: Iterable[Sequence[Any]]) -> None:
    """Write a csv, whole or not at all, row by row; the first row is the header, and None an empty cell.

    Raises: OutputError.
    """
    writer = csv.writer(_Encoded(), lineterminator="\n")
    write_atomically(path, (writer.writerow(row) for row in rows))


class _Encoded:
    """What `csv.writer` writes to: each row comes back from it as bytes."""

    def write(self, text: str) -> bytes:
        return text.encode("utf-8", "surrogateescape")  # a file name need not be UTF-8


def write_json(path: Path, document: Any, indent: int = 1, end: str = "") -> None:
    """Write a document as JSON, whole or not at all; see `as_json`. end: what follows it. Raises: OutputError."""
    write_atomically(path, (as_json(document, indent) + end).encode())


def as_json(document: Any, indent: int = 1) -> str:
    """Return a document as JSON, which has no NaN and no infinity: what could not be measured becomes null."""
    return json.dumps(_without_nan(document), indent=indent)


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def hash_files(*paths: Path) -> str:
    """Return the sha256 over the bytes of some files, in order, with a progress bar if they are large.

    Raises: InputError if one cannot be read.
    """
    digest = hashlib.sha256()
    try:
        sizes = [path.stat().st_size for path in paths]
        blocks: Iterable[bytes] = _blocks(paths)
        if sum(sizes) > LARGE_BYTES:
            blocks = track(blocks, "sha256", total=sum(-(-size // BLOCK_BYTES) for size in sizes))
        for block in blocks:
            digest.update(block)
    except OSError as error:
        raise InputError(f"{error.filename or paths[0]}: cannot be read ({error.strerror})") from error
    return digest.hexdigest()


def _blocks(paths: Iterable[Path]) -> Iterator[bytes]:
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(BLOCK_BYTES):
                yield block


def unnamed_file() -> IO[bytes]:
    """Open an empty file without a name; in memory on Linux, so that what is written to it never lies on a disk."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("pleura"), "w+b")
    return tempfile.TemporaryFile()


@contextmanager
def file_with(content: bytes | bytearray) -> Iterator[Path]:
    """Yield the path of a file with this content, for readers that take paths; it is gone afterwards.

    On Linux it is in memory, see `unnamed_file`; elsewhere a temporary file on a disk.
    """
    with unnamed_file() as file:
        path = Path(f"/proc/self/fd/{file.fileno()}")
        if path.exists():  # on Linux, where /proc is mounted
            file.write(content)
            file.flush()
            yield path
            return
    with tempfile.TemporaryDirectory(prefix="pleura-") as folder:
        path = Path(folder) / "content"
        path.write_bytes(content)
        yield path


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


# Locks of Unix, and of Windows; each is None on the other.
_fcntl, _msvcrt = _module("fcntl"), _module("msvcrt")
LOCK = ".lock"
CHECK = "check"
"""Of a line of a journal."""


@contextmanager
def held(folder: Path, what: str, name: str = LOCK) -> Iterator[None]:
    """Keep other processes from writing to a folder meanwhile; makes the folder. The lock of a killed process is void.

    what: ends the refusal "another process ...", such as "trains there". A file system without locks holds none.
    Raises: OutputError if another process holds it.
    """
    path = folder / name

    def refuse(cause: OSError | None) -> NoReturn:
        raise OutputError(f"{folder}: another process {what}; wait for it or stop it") from cause

    with writing(folder):
        path.parent.mkdir(parents=True, exist_ok=True)
        if _fcntl is None and _msvcrt is None:
            try:
                file = path.open("xb")
            except FileExistsError:
                raise OutputError(
                    f"{folder}: another process {what}; wait for it, or if there is none remove {path}"
                ) from None
        else:
            file = path.open("ab")
    with file:
        try:
            _lock(file)
        except BlockingIOError as error:
            refuse(error)
        if not (path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat())):
            refuse(None)  # the other one has ended between opening its file and taking the lock
        try:
            yield
        finally:
            if os.name == "nt":
                file.close()
            with suppress(OSError):
                path.unlink()


def _lock(file: BinaryIO) -> None:
    """Take the lock on an open file, or none where there is none to take. Raises: BlockingIOError if it is taken."""
    try:
        if _fcntl is not None:
            _fcntl.flock(file, _fcntl.LOCK_EX | _fcntl.LOCK_NB)
        elif _msvcrt is not None:
            file.seek(0)
            _msvcrt.locking(file.fileno(), _msvcrt.LK_NBLCK, 1)
    except BlockingIOError:
        raise
    except PermissionError as error:
        raise BlockingIOError from error  # what Windows says of a lock that is taken
    except OSError:
        return


def reserve(file: BinaryIO, first: int, count: int) -> None:
    """Take the space of `count` bytes from `first` on on the disk, with zeros. Raises: OSError if it is full.

    A memory-mapped file with holes kills the process when the disk fills up. Not every system can be asked for space
    (macOS and Windows cannot): there it is written.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), first, count)
        return
    file.seek(first)
    block = bytes(1 << 20)
    for start in range(0, count, len(block)):
        file.write(block[: count - start])
    file.flush()
    os.fsync(file.fileno())


def read_journal(path: Path, way_out: str, shown: object = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the lines of a file of `journal_line`s: where each begins, in bytes, and its entry; one is in memory.

    A last line that was cut off while it was written is left out.
    way_out: what to do about a damaged one. shown: what a refusal calls the file, by default `path`.
    Raises: OutputError.
    """
    place, shown = 0, path if shown is None else shown
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                cut = not line.endswith(b"\n")
                entry = None if cut or line == b"\n" else entry_of_line(line)
                if entry is not None:
                    yield place, entry
                elif line != b"\n" and not (cut and line.startswith(b"{")):
                    raise OutputError(f"{shown}: is damaged in line {number}; {way_out}")
                place += len(line)
    except OSError as error:
        raise OutputError(f"{shown}: cannot be read ({error.strerror or error}); {way_out}") from error


def entry_of_line(line: bytes) -> dict[str, Any] | None:
    """Return the entry of one line of a journal; None where it is not as it was written."""
    try:
        entry = json.loads(line.decode("utf-8"), parse_constant=_no_number)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) and entry.pop(CHECK, None) == _check(entry) else None


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")


def write_journal(path: Path, entries: Iterable[dict[str, Any]]) -> None:
    """Write a journal anew, so that a cut line does not swallow the next one. Raises: OutputError."""
    write_atomically(path, (journal_line(entry).encode() for entry in entries))


def journal_line(entry: dict[str, Any]) -> str:
    """One line of a journal: the entry as JSON, and a sum by which a line that is not as it was written is known."""
    return json.dumps({**entry, CHECK: _check(entry)}) + "\n"


def _check(entry: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(entry, sort_keys=True).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def refuse_unwritable(folder: Path) -> None:
    """Find out that nothing can be written to a folder before the work, not after it; makes the folder.

    Raises: OutputError.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".pleura-probe"
        probe.touch()
        probe.unlink()


def user_cache(name: str) -> Path:
    """Return the folder of what pleura keeps of one kind in the user's cache; it may not be there yet.

    Raises: RuntimeError where the user has no home.
    """
    place = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    return (Path(place) if place else Path.home() / ".cache") / "pleura" / name
