"""Masks as files or as an array: wrong values, several ways to write a mask, masks that look inverted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pleura.data.ids import identified, pair
from pleura.data.mask_checks import about_source, exchanged
from pleura.data.masks import MaskSource, PngFile, open_masks
from pleura.doctor.examination import Against, Examination, some
from pleura.errors import InputError
from pleura.evaluation.checks import not_binary

PNG_ONE = 255


def examine_mask_files(path: Path, against: Against) -> Examination:
    """Examine PNG or DICOM-SEG files of masks: grey values, several ways to write a mask, inverted masks.

    Raises: InputError if the path holds no masks, or several kinds.
    """
    source = open_masks(path, segments=against.segments)
    what = "mask PNGs" if source.kind == "folder of PNG masks" else source.kind
    found = Examination(f"a folder of {what}" if path.is_dir() else what, [f"{len(source.masks)} files"])
    refused: dict[str, str] = {}
    soft, ones, shares = [], set[int](), dict[str, float]()
    for name, mask in source.masks.items():
        shown = mask.path.name if isinstance(mask, PngFile) else name
        try:
            one = mask.read()
        except InputError as error:
            refused[shown] = str(error)
            continue
        shares[shown] = np.count_nonzero(one.mask) / max(one.mask.size, 1)
        if len(one.levels) > 2:
            soft.append(shown)
        elif one.mask.any() and isinstance(mask, PngFile):
            ones.add(int(one.levels[-1]))
    if refused:
        first = next(iter(refused.values()))
        found.error(
            f"{len(refused)} files cannot be read: {some(refused)} ({first})",
            "follow the reason of each, and save it again",
        )
    if soft:
        found.error(
            f"{len(soft)} of {len(source.masks)} masks are grey at their edges: {some(soft)}; they were resized with "
            "interpolation, or were JPEG once",
            "make them again by nearest neighbour from the originals; as they are, they are cut at half of full scale",
        )
    _ways_to_write(ones, found)
    found.add(exchanged(shares), *about_source(source))
    if not any(shares.values()) and not refused:
        found.warn("every mask is empty", "is this the right folder?")
    if against.images:
        _without_mask(source, against.images, found)
    return found


def _ways_to_write(ones: set[int], found: Examination) -> None:
    if len(ones) > 1:
        found.error(
            f"mask pixels are written in {len(ones)} ways: {', '.join(map(str, sorted(ones)))}",
            "read every mask as mask > 0; a division by 255 makes some of them empty",
        )
    elif ones and ones != {PNG_ONE}:
        found.note(f"mask pixels are {min(ones)}, not {PNG_ONE}", "pleura reads > 0; a division by 255 would not")


def _without_mask(source: MaskSource, images: Path, found: Examination) -> None:
    there = {case.image_id: (case.relative,) for case in identified(images)}
    named = pair(source.names, there, source.path).values()
    if without := sorted(there.keys() - set(named)):
        found.warn(
            f"{len(without)} of {len(there)} images have no mask: {some(without)}",
            "a negative has an empty mask of its own; others are left out",
        )


def examine_mask_array(path: Path) -> Examination:
    """Examine masks in a .npy file, (N, H, W) in {0, 1}. Raises: InputError if it is no array of numbers."""
    try:
        masks: NDArray[np.generic] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: cannot be read as an array ({error})") from error
    if masks.dtype.kind not in "biuf" or masks.ndim < 2:
        raise InputError(f"{path}: is an array {masks.dtype} {masks.shape}, not masks (N, H, W)")
    parts = masks if masks.ndim > 2 else masks[None]
    levels = np.unique(np.concatenate([np.unique(part) for part in parts])) if len(parts) else np.zeros(0)
    found = Examination("an array of masks", [f"{masks.dtype} {masks.shape}"])
    if levels.dtype.kind == "f" and not np.isfinite(levels).all():
        found.error("it holds NaN or infinity", "write it again from the masks")
    else:
        found.add(not_binary(levels.astype(np.float64)))
    shares = {f"{row}": np.count_nonzero(part) / max(part.size, 1) for row, part in enumerate(parts)}
    found.add(exchanged(shares))
    return found
