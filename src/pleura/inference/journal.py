"""The journal of a folder of predictions: the settings that its results have, and the entries to go on from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from pleura.errors import OutputError
from pleura.files import read_journal, write_journal
from pleura.inference.writers import NEEDED, TYPES

JOURNAL = "journal.jsonl"
CHOSEN = {"precision": "float32", "engine": "torch"}
"""Options that `auto` may choose, and what earlier versions had, which say nothing of them."""


def open_journal(out: Path, asked: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Begin the journal of OUT, or go on with it; returns the entries of an earlier run with these settings, by id.

    Raises: OutputError if OUT holds results of other settings, or the journal is damaged.
    """
    key = hashlib.sha256(json.dumps(asked).encode()).hexdigest()
    path, way_out = out / JOURNAL, f"remove {out} or choose another --out"
    if not path.exists():
        write_journal(path, [{"key": key, **asked}])
        return {}
    header, *entries = read_journal(path, way_out) or [{}]
    if header.get("key") != key:
        _refuse(out, header, asked, way_out)
    done: dict[str, dict[str, Any]] = {}
    latest: dict[Any, str] = {}
    for entry in entries:
        if any(type(entry.get(name)) not in kinds for name, kinds in TYPES.items() if name in entry or name in NEEDED):
            raise OutputError(f"{path}: holds what pleura did not write; {way_out}")
        file = entry.get("file", entry["source"])
        if file in latest:  # it was predicted again, perhaps under another id
            done.pop(latest[file], None)
        latest[file] = entry["image_id"]
        done[entry["image_id"]] = entry
    write_journal(path, [header, *done.values()])
    return done


def _refuse(out: Path, header: Mapping[str, Any], asked: Mapping[str, Any], way_out: str) -> NoReturn:
    """Raises: OutputError, with the options that lead on where nothing else differs: `auto` has chosen them."""
    before, now = ({key: said.get(key, first) for key, first in CHOSEN.items()} for said in (header, asked))
    rest, others = ({key: said[key] for key in said.keys() - {"key", *CHOSEN}} for said in (header, asked))
    options = [f"--{key} {name}" for key, name in before.items() if name != now[key]]
    if rest == others and "mixed" not in before.values():
        results, these = (f"computed in {said['precision']} by {said['engine']}" for said in (before, now))
        way_out = f"add {' '.join(options)}, or choose another --out"
        raise OutputError(f"{out}: holds results {results}, and these would be {these}; {way_out}")
    raise OutputError(f"{out}: holds results of another model or other settings; {way_out}")
