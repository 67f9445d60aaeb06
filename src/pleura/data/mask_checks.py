"""Masks matched to images, and masks that are doubtful: exchanged colours, cells that a spreadsheet cut, blanks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pleura.data.dataset import Case
from pleura.data.ids import pair
from pleura.data.masks import AnyMask, MaskSource
from pleura.data.problems import Finding, Problem, some

EXCHANGED_SHARE = 0.5
"""No pneumothorax covers more of an image: SIIM's largest covers 0.154."""
EXCHANGED = (
    "the mask covers more than half of the image, and SIIM's largest 15.4 %: are black and white exchanged, mask and "
    "background?"
)


def exchanged(shares: Mapping[str, float], side: str = "") -> Finding | None:
    """Return a finding if masks cover more of their image than any pneumothorax does; shares in [0, 1] by name."""
    large = {name: share for name, share in shares.items() if share > EXCHANGED_SHARE}
    if not large:
        return None
    low, high = (100 * bound for bound in (min(large.values()), max(large.values())))
    cover = f"{low:.0f} %" if f"{low:.0f}" == f"{high:.0f}" else f"{low:.0f} to {high:.0f} %"
    return Finding(
        "warning",
        f"{len(large)} {side}masks cover {cover} of the image ({some(large)}); SIIM's largest covers 15.4 %",
        "black and white look exchanged, mask and background: invert these masks",
    )


def about_source(source: MaskSource, side: str = "") -> Iterator[Finding]:
    """Yield findings about a source of masks: cells that are blank or cut, and what segmentations leave open."""
    yield from about_cells(source.blank, source.cut, side)
    if without := source.without_segment:
        yield Finding(
            "note",
            f"{len(without)} segmentations {side}have no such segment: each counts as the empty mask ({some(without)})",
            "check that the segment is named there as in the others",
        )
    if without := source.without_frame:
        yield Finding(
            "note",
            f"{len(without)} images {side}are referenced by a segmentation and in none of its frames: each counts as "
            f"the empty mask ({some(without)})",
            "check that these images were looked at",
        )
    if source.fractional:
        yield Finding(
            "note",
            f"{len(source.fractional)} segmentations {side}are fractional: mask is where at least half is reached "
            f"({some(source.fractional)})",
            "for another threshold, export them as binary ones",
        )
    if source.united:
        yield Finding(
            "note",
            f"{len(source.united)} images {side}are outlined by several segmentations: their masks are united "
            f"({some(source.united)})",
            "if one corrects the other, keep the corrected file only",
        )


def about_cells(blank: Sequence[str], cut: Sequence[str], side: str = "") -> Iterator[Finding]:
    """Yield findings about a csv of masks, from the images whose cells are blank or cut."""
    if cut:
        yield Finding(
            "warning",
            f"{len(cut)} cells {side}have 32,767 characters, the most that a spreadsheet keeps: the masks of "
            f"{some(cut)} are cut",
            "take the csv from its source, and do not save it in a spreadsheet",
        )
    if blank:
        yield Finding(
            "note",
            f"{len(blank)} rows {side}have no runs: each counts as the empty mask ({some(blank)})",
            "write -1, as SIIM does",
        )


def masks_by_id(
    sources: Sequence[MaskSource], images: Mapping[str, str], problems: list[Problem]
) -> dict[str, tuple[AnyMask, str]]:
    """image_id -> its mask in the first source that has one, and that source; adds what is wrong with the names.

    images: image_id -> path below the folder of images. Raises: InputError where a name can be several images, or
    several names are one.
    """
    there = {image_id: (relative,) for image_id, relative in images.items()}
    found: dict[str, tuple[AnyMask, str]] = {}
    for source in sources:
        named = source.path.stem if source.kind == "csv" else source.path.name
        pairs = pair(source.names, there, source.path)
        for name, image_id in pairs.items():
            found.setdefault(image_id, (source.masks[name], named))
        for name in (name for name in source.masks if name not in pairs):
            problems.append(Problem("no image", name, "", "a csv row or mask without an image"))
        for finding in about_source(source):
            problems.append(Problem("doubtful mask", "", str(source.path), finding.what))
    return found


def doubtful(cases: Sequence[Case], entries: Sequence[Mapping[str, Any]]) -> list[Problem]:
    """Return the problems of radiographs and masks that could be read and are doubtful.

    entries: of the journal, one for each case.
    """
    problems = []
    for case, entry in zip(cases, entries, strict=True):
        if notes := entry.get("notes"):
            problems.append(Problem("note", case.image_id, case.source, f"kept: {'; '.join(notes)}"))
        if entry["share"] > EXCHANGED_SHARE:
            problems.append(Problem("doubtful mask", case.image_id, case.source, EXCHANGED))
        if entry["soft"]:
            reason = "a mask with grey edges, cut at half of full scale: was it resized with interpolation?"
            problems.append(Problem("doubtful mask", case.image_id, case.source, reason))
    return problems
