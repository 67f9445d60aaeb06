"""csv files of run-length masks, as any tool or spreadsheet writes them: row by row, each with its fault."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pleura.data import rle
from pleura.data.columns import ID, RUNS, column
from pleura.data.ids import as_name
from pleura.errors import InputError, excerpt
from pleura.files import read_csv, without_suffix

BLANK = ("", "nan", "none", "null")
"""Cells that mean the empty mask, as -1 does: pandas writes nothing for what is not a number."""
CUT_CHARACTERS = (32_766, 32_767)
"""The most that a cell of a spreadsheet holds, with the blank that may stand before it and without."""
_NUMBER_AS_ID = re.compile(r"[+-]?\d+[.,]\d+[eE]\+\d+|#+|#[A-Z/0]+[!?]?")
_DAMAGE = (
    (re.compile(r"[+-]?\d+([.,]\d+)?[eE][+-]?\d+"), "a spreadsheet made one number of it"),
    (re.compile(r"\d{1,3}([.,'\u2019]\d{3})+"), "a spreadsheet wrote thousands apart"),
    (re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}|\d{1,2}[-. ][A-Za-z]{3,}\.?|[A-Za-z]{3,}[-. ]\d{1,4}"),
     "a spreadsheet made a date of it"),
    (re.compile(r"#+|#[A-Z/0]+[!?]?"), "a spreadsheet could not show it"),
    (re.compile(r"-?\d+[.,]0+"), "it was written as decimal numbers"),
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One row of a csv of masks."""

    line: int
    name: str
    """The image: its id or path without suffix; empty if the row has none."""
    runs: str
    """`-1` also for a blank cell; empty if there is none."""
    is_blank: bool
    is_cut: bool
    """Whether the cell is as long as a spreadsheet allows, so that its end may be missing."""
    fault: str
    """Why the row cannot be used, or empty; faults of the runs themselves show when they are decoded."""


@dataclass
class RunsTable:
    """A whole csv of masks."""

    runs: dict[str, list[str]] = field(default_factory=dict)
    """Name -> its run-length strings, in file order; exact duplicates count once."""
    blank: list[str] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)


def read_rows(path: Path) -> Iterator[Row]:
    """Read a csv of masks row by row, under any of the usual headers.

    Raises: InputError if it is no csv, or lacks a column.
    """
    lines = read_csv(path)
    _, header = next(lines, (1, []))
    at, is_after_cut = (column(path, header, ID), column(path, header, RUNS)), False
    for number, cells in lines:
        if cells:
            row = _row(number, cells, len(header), at, is_after_cut)
            is_after_cut = row.is_cut
            yield row


def read_table(path: Path) -> RunsTable:
    """Read a whole csv of masks; blank cells are empty masks.

    Raises: InputError as `read_rows` does, at the first row with a fault, for a csv without rows, and for an image that
    is both empty and not.
    """
    table = RunsTable()
    for row in read_rows(path):
        if row.fault:
            raise InputError(f"{path}, line {row.line}: {row.fault}")
        if row.is_blank:
            table.blank.append(row.name)
        if row.is_cut:
            table.cut.append(row.name)
        texts = table.runs.setdefault(row.name, [])
        if row.runs not in texts:
            texts.append(row.runs)
    if not table.runs:
        raise InputError(f"{path}: holds no row; is it the right file?")
    for name, texts in table.runs.items():
        if rle.EMPTY in texts and len(texts) > 1:
            raise InputError(f"{path}: {excerpt(name)} is empty in one row and has a mask in another; delete one")
    return table


def damage(runs: str) -> str:
    """Return how a spreadsheet damaged a cell of runs, with the way out; empty if it did not."""
    whole, words = runs.strip(), runs.split()
    if len(whole) in CUT_CHARACTERS:
        return "the cell was cut at 32,767 characters, the most that a spreadsheet keeps; take the csv from its source"
    if not whole.isascii() and any(letter.isdigit() for letter in whole):
        return "a spreadsheet or an editor put other letters for blanks or minus; take the csv from its source"
    for pattern, reason in _DAMAGE:
        if pattern.fullmatch(whole) or any(map(pattern.fullmatch, words)):
            return f"{reason}; take the csv from its source, and open it as text"
    if len(words) == 1 and whole.isdigit():
        return (
            "it is one number: a spreadsheet may have taken the blank in it for thousands; take the csv from its source"
        )
    return ""


def _row(line: int, cells: list[str], width: int, at: tuple[int, int], is_after_cut: bool) -> Row:
    name = cells[at[0]].strip() if len(cells) > at[0] else ""
    text = cells[at[1]] if len(cells) > at[1] else ""
    runs, fault = re.sub(r"[ \t\r\n]+", " ", text).strip(), ""
    is_blank = len(cells) > at[1] and runs.lower() in BLANK
    if not name or len(cells) <= at[1]:
        fault = "a row needs an image id and runs"
        if is_after_cut:
            fault += "; the cell above was cut at 32,767 characters by a spreadsheet, and this is its end"
    elif any(cell.strip() for cell in cells[width:]):
        fault = f"the row has {len(cells)} cells and the header {width}: runs are one cell, with blanks between numbers"
    elif _NUMBER_AS_ID.fullmatch(name):
        fault = f"a spreadsheet made the number {excerpt(name)} of an image id; take the csv from its source"
    name = without_suffix(as_name(name))
    return Row(line, name, rle.EMPTY if is_blank else runs, is_blank, len(text) in CUT_CHARACTERS, fault)
