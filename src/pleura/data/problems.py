"""Findings about a dataset, csv or model as a whole; problems of single files, and their table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pleura.files import read_records, write_csv

Severity = Literal["error", "warning", "note"]

PROBLEMS = "problems.csv"
MOST_ABSENT = 20
"""Masks without an image that problems.csv names; the others it counts."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or worth knowing, and what to do about it."""

    severity: Severity
    what: str
    way_out: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.what}; {self.way_out}"


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings, errors first."""
    return sorted(findings, key=lambda finding: ("error", "warning", "note").index(finding.severity))


def some(names: Iterable[str]) -> str:
    """Return the first three names, and whether there are more."""
    every = list(names)
    return ", ".join(every[:3]) + (" ..." if len(every) > 3 else "")


@dataclass(frozen=True)
class Problem:
    """Something about one file that a person should know."""

    kind: Literal["quarantined", "unlabelled", "same id", "copy", "equal pixels", "no image", "doubtful mask", "note"]
    image_id: str
    file: str
    reason: str


def write_problems(path: Path, problems: Sequence[Problem]) -> None:
    """Write problems.csv; of masks without an image the first MOST_ABSENT, and how many more. Raises: OutputError."""
    # A part of a dataset is often prepared on purpose, with the csv of all of it.
    absent = [problem for problem in problems if problem.kind == "no image"]
    written = [problem for problem in problems if problem.kind != "no image"] + absent[:MOST_ABSENT]
    if len(absent) > MOST_ABSENT:
        written.append(Problem("no image", "", "", f"so are {len(absent) - MOST_ABSENT} more csv rows or masks"))
    rows = [(problem.kind, problem.image_id, problem.file, problem.reason) for problem in written]
    write_csv(path, [("kind", "image_id", "file", "reason"), *rows])


def read_problems(path: Path) -> list[Problem]:
    """Read problems.csv; none where there is no such file. Raises: InputError if it cannot be read."""
    rows = read_records(path) if path.exists() else []
    return [Problem(**row) for row in rows]  # type: ignore[arg-type]  # the kind was written by us
