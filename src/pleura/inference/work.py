"""What of a batch is done, and which radiographs are left: those that are new, or have changed since."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from pleura.data.finding import Found, real_name
from pleura.data.ids import Identified, Identities
from pleura.inference.disclosure import TAKEN, Disclosure
from pleura.inference.journal import Journal
from pleura.inference.writers import remove_files
from pleura.urls.url import Place, Url

STAMP = ("file", "size", "mtime_ns", "etag")


@dataclass
class Work:
    """What a batch has done so far."""

    journal: Journal
    problems: list[tuple[str, str]] = field(default_factory=list)
    """(file, reason)."""
    notes: list[str] = field(default_factory=list)
    ended: bool = False
    """Something came that ends the batch: nothing more is written."""


def left_to_do(found: Found, disclosure: Disclosure, out: Place, work: Work) -> list[Identified]:
    """Return the radiographs that are new or have changed; forgets what was found on these, and removes their files."""
    done = work.journal.entries
    who = disclosure.identify(found.radiographs, done)
    _report(found, who, disclosure, work)
    stamps = {case.image_id: stamp_of(case.path, disclosure) for case in who.cases}
    here = {stamp["file"] for stamp in stamps.values()}
    by_file = {entry.get("file"): key for key, entry in done.items()}
    new = []
    for case in who.cases:
        stamp, entry = stamps[case.image_id], done.get(case.image_id)
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
            if key is not None and work.journal.forget(key):
                remove_files(out, key)
    return new


def stamp_of(path: Place, disclosure: Disclosure) -> dict[str, Any]:
    """Return the path, size and time of a file, which are equal while it is unchanged; of an object its ETag, if known.

    A copy of an object has another time, and the same ETag.
    """
    if isinstance(path, Url):
        time = {"mtime_ns": 0, "etag": path.etag} if path.etag else {"mtime_ns": path.mtime_ns}
        return disclosure.stamp({"file": str(path), "size": path.size, **time})
    size = mtime_ns = -1
    with suppress(OSError):  # reading it will say why
        status = path.stat()
        size, mtime_ns = status.st_size, status.st_mtime_ns
    return disclosure.stamp({"file": real_name(path), "size": size, "mtime_ns": mtime_ns})


def _report(found: Found, who: Identities, disclosure: Disclosure, work: Work) -> None:
    """Add what is known before anything is read: folders without access, clashes, copies, and what was passed over."""
    named = {case.path: disclosure.source(case) for case in who.cases}
    work.problems += [(disclosure.folder(folder), disclosure.reason_of(reason)) for folder, reason in found.unreadable]
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


def _unchanged(entry: Mapping[str, Any], stamp: Mapping[str, Any], moved: bool) -> bool:
    return all(entry.get(name) == stamp.get(name) for name in (STAMP[1:] if moved else STAMP))
