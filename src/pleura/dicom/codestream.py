"""A codestream's own size, depth and coding, whatever the DICOM header around it states."""

from __future__ import annotations

from dataclasses import dataclass


class CodestreamError(ValueError):
    """A codestream that is cut short, damaged, or holds what no radiograph does; the message is the reason."""


@dataclass(frozen=True)
class Codestream:
    """One compressed image: its own size and depth, and its bytes without what follows them.

    `coding` names the compression as a reader of a refusal knows it. `is_lossy` is True where the decoded values are
    near the encoded ones, not equal.
    """

    coding: str
    rows: int
    columns: int
    samples: int
    bits: int
    is_signed: bool
    is_lossy: bool
    data: bytes


def refuse_surplus(rest: bytes, start: bytes) -> None:
    """Check what follows the end of a codestream: padding, and nothing else.

    Padding is zeros, or one byte of any value that makes the length even. `start` is how a codestream begins.

    Raises: CodestreamError. Source: DICOM PS3.5 A.4.
    """
    rest = rest.strip(b"\0")
    if rest.startswith(start):
        raise SeveralFramesError
    if len(rest) > 1:
        raise CodestreamError(f"{len(rest)} bytes follow the end of its pixels")


class SeveralFramesError(CodestreamError):
    """A second codestream follows the first."""
