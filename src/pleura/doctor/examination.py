"""What the doctor is asked, and what it answers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pleura.data.problems import Finding


@dataclass(frozen=True)
class Against:
    """What a path is held against; each makes more guards apply."""

    patients: Path | None = None
    """csv of patients: whether folds leak."""
    masks: Path | None = None
    """Masks in any form: which cases of a csv of folds are positive."""
    images: Path | None = None
    """Folder of radiographs: which have no mask, and which masks no radiograph."""
    truth: Path | None = None
    """Masks in any form: what predictions should be."""
    data: Path | None = None
    """Dataset folder that a checkpoint is run on."""
    segments: tuple[str, ...] = ()
    """Number or label of the DICOM segments that outline a pneumothorax."""
    reported: float | None = None
    """What was reported as the mean Dice of predictions."""


@dataclass
class Examination:
    """What a path is, facts about it, and what is wrong with it, the gravest first once it is `sorted`."""

    kind: str
    told: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def add(self, *findings: Finding | None) -> None:
        """Take what guards found; None is nothing."""
        self.findings += [finding for finding in findings if finding]

    def error(self, what: str, way_out: str) -> None:
        """Something that makes results wrong."""
        self.findings.append(Finding("error", what, way_out))

    def warn(self, what: str, way_out: str) -> None:
        """Something that may."""
        self.findings.append(Finding("warning", what, way_out))

    def note(self, what: str, way_out: str) -> None:
        """Something to know."""
        self.findings.append(Finding("note", what, way_out))

    @property
    def sorted(self) -> list[Finding]:
        """The findings, errors first."""
        return sorted(self.findings, key=lambda finding: ("error", "warning", "note").index(finding.severity))

    @property
    def failed(self) -> bool:
        """Whether there is any error."""
        return any(finding.severity == "error" for finding in self.findings)


def some(names: Iterable[str], most: int = 3) -> str:
    """The first few names, and how many more there are."""
    every = list(names)
    return ", ".join(every[:most]) + (f" and {len(every) - most} more" if len(every) > most else "")
