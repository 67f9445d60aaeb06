"""What a path is compared with, and what an examination found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pleura.data.problems import Finding, by_severity


@dataclass(frozen=True)
class Against:
    """What a path is compared with; each part adds checks."""

    patients: Path | None = None
    """csv of patients, to find whether folds leak."""
    masks: Path | None = None
    """Masks in any form, for the positives of a csv of folds."""
    images: Path | None = None
    """Folder of the radiographs of masks, to find those without a mask and masks without a radiograph."""
    truth: Path | None = None
    """Masks in any form: the truth of predictions."""
    data: Path | None = None
    """Dataset folder that a checkpoint is run on."""
    segments: tuple[str, ...] = ()
    """Number or label of the DICOM segments that outline a pneumothorax."""
    reported: float | None = None
    """The mean Dice that was reported for predictions."""


@dataclass
class Examination:
    """What a path is, facts about it, and what is wrong with it."""

    kind: str
    facts: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def add(self, *findings: Finding | None) -> None:
        """Add the findings of checks; None is no finding."""
        self.findings += [finding for finding in findings if finding]

    def error(self, what: str, way_out: str) -> None:
        """Add a fault that makes results wrong."""
        self.findings.append(Finding("error", what, way_out))

    def warn(self, what: str, way_out: str) -> None:
        """Add a fault that may make results wrong."""
        self.findings.append(Finding("warning", what, way_out))

    def note(self, what: str, way_out: str) -> None:
        """Add something that is worth knowing."""
        self.findings.append(Finding("note", what, way_out))

    @property
    def sorted(self) -> list[Finding]:
        """Findings, errors first."""
        return by_severity(self.findings)

    @property
    def failed(self) -> bool:
        """Whether there is any error."""
        return any(finding.severity == "error" for finding in self.findings)


def some(names: Iterable[str], most: int = 3) -> str:
    """Return the first few names, and how many more there are."""
    every = list(names)
    return ", ".join(every[:most]) + (f" and {len(every) - most} more" if len(every) > most else "")
