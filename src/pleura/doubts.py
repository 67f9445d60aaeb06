"""Masks and the images that they are of, and those that may not be what they are taken for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pleura.data.dataset import Case
from pleura.data.masks import AnyMask, MaskSource
from pleura.data.pairing import pair
from pleura.data.problems import Problem
from pleura.measure.mask_guards import EXCHANGED, EXCHANGED_SHARE, about_source


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
        for name in source.masks.keys() - pairs.keys():
            problems.append(Problem("no image", name, "", "a csv row or mask without an image"))
        for finding in about_source(source.blank, source.cut, source.without_segment):
            problems.append(Problem("doubtful mask", "", str(source.path), finding.what))
    return found


def doubtful(cases: Sequence[Case], entries: Sequence[Mapping[str, Any]]) -> list[Problem]:
    """Radiographs and masks that were read, and may not be what they are taken for.

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
