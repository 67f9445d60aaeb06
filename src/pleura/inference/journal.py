"""The journal of a folder of predictions: the settings that its results have, and the entries to go on from.

What the tables say of a radiograph is in memory; the runs of its mask, most of an entry, stay in the file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, BinaryIO, NoReturn

from pleura.errors import OutputError
from pleura.files import entry_of_line, journal_line, read_journal, write_atomically, write_journal
from pleura.inference.writers import NEEDED, TYPES
from pleura.urls.url import Place

JOURNAL = "journal.jsonl"
CHOSEN = {"precision": "float32", "engine": "torch"}
"""Options that `auto` may choose, and what earlier versions had, which say nothing of them."""
RUNS = "runs"


class Journal:
    """The finished radiographs of OUT, by id. Inside `with` more can be added, from any thread."""

    def __init__(self, path: Path, out: Place) -> None:
        """out: the folder or URL of the results, as their user knows it."""
        self.path, self.out = path, out
        self.way_out = f"remove {out} or choose another --out"
        self.entries: dict[str, dict[str, Any]] = {}
        """Without the runs."""
        self._places: dict[str, int] = {}
        """Where the line of each begins, in bytes."""
        self._lock = Lock()
        self._file: BinaryIO | None = None

    def __enter__(self) -> Journal:
        """Raises: OSError if the file cannot be opened."""
        self._file = self.path.open("ab")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, entry: dict[str, Any]) -> None:
        """Write a line. Raises: OSError if it cannot be written, ValueError outside `with`."""
        if self._file is None:
            raise ValueError("the journal is not open")
        with self._lock:
            place = self._file.tell()
            self._file.write(journal_line(entry).encode())
            self._file.flush()
            self._remember(entry, place)

    def forget(self, image_id: str) -> bool:
        """Drop the entry of an id; returns whether there was one. Its line stays until the next run."""
        self._places.pop(image_id, None)
        return self.entries.pop(image_id, None) is not None

    def runs(self) -> Iterator[tuple[str, str]]:
        """Yield the run-length mask of each radiograph, by id, from the file. Raises: OutputError if it is damaged."""
        with self.path.open("rb") as file:
            for image_id in sorted(self.entries):
                file.seek(self._places[image_id])
                entry = entry_of_line(file.readline())
                if entry is None or entry["image_id"] != image_id:
                    raise OutputError(f"{self.out / JOURNAL}: is damaged in the line of {image_id}; {self.way_out}")
                yield image_id, entry[RUNS]

    def go_on(self, asked: Mapping[str, Any], key: str, noted: Mapping[str, Any]) -> None:
        """Read what an earlier run has written, and write it anew without what counts no more.

        noted: what may be otherwise in its first line.
        Raises: OutputError, as `open_journal`.
        """
        lines = read_journal(self.path, self.way_out, self.out / JOURNAL)
        _, header = next(lines, (0, {}))
        if header.get("key") != key:
            said = {name: value for name, value in header.items() if name not in noted}
            _refuse(self.out, said, asked, self.way_out)
        latest: dict[Any, str] = {}
        for place, entry in lines:
            if any(
                type(entry.get(name)) not in kinds for name, kinds in TYPES.items() if name in entry or name in NEEDED
            ):
                raise OutputError(f"{self.out / JOURNAL}: holds what pleura did not write; {self.way_out}")
            file = entry.get("file", entry["source"])
            if file in latest:  # it was predicted again, perhaps under another id
                self.forget(latest[file])
            latest[file] = entry["image_id"]
            self._remember(entry, place)
        write_atomically(self.path, self._lines(header))

    def _remember(self, entry: Mapping[str, Any], place: int) -> None:
        image_id = entry["image_id"]
        self.entries[image_id] = {name: value for name, value in entry.items() if name != RUNS}
        self._places[image_id] = place

    def _lines(self, header: Mapping[str, Any]) -> Iterator[bytes]:
        """Yield the lines that count, and note where each will begin."""
        line = journal_line({**header}).encode()
        yield line
        end = len(line)
        with self.path.open("rb") as file:
            for image_id, place in self._places.items():
                file.seek(place)
                line = file.readline()
                yield line
                self._places[image_id] = end
                end += len(line)


def open_journal(
    folder: Path, asked: Mapping[str, Any], noted: Mapping[str, Any] | None = None, out: Place | None = None
) -> Journal:
    """Begin the journal in a folder, or go on with it where an earlier run had these settings.

    noted: what its first line says besides, and a later run may have otherwise. out: OUT, where that is not the folder.
    Raises: OutputError if OUT holds results of other settings, or the journal is damaged.
    """
    key = hashlib.sha256(json.dumps(asked).encode()).hexdigest()
    journal = Journal(folder / JOURNAL, folder if out is None else out)
    if journal.path.exists():
        journal.go_on(asked, key, noted or {})
    else:
        write_journal(journal.path, [{"key": key, **asked, **(noted or {})}])
    return journal


def _refuse(out: Place, header: Mapping[str, Any], asked: Mapping[str, Any], way_out: str) -> NoReturn:
    """Raises: OutputError, with the options that lead on where nothing else differs: `auto` has chosen them."""
    before, now = ({key: said.get(key, first) for key, first in CHOSEN.items()} for said in (header, asked))
    rest, others = ({key: said[key] for key in said.keys() - {"key", *CHOSEN}} for said in (header, asked))
    options = [f"--{key} {name}" for key, name in before.items() if name != now[key]]
    if rest == others and "mixed" not in before.values():
        results, these = (f"computed in {said['precision']} by {said['engine']}" for said in (before, now))
        way_out = f"add {' '.join(options)}, or choose another --out"
        raise OutputError(f"{out}: holds results {results}, and these would be {these}; {way_out}")
    raise OutputError(f"{out}: holds results of another model or other settings; {way_out}")
