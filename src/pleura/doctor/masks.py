"""Masks as PNG files or as an array: values that a mask does not have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pleura.data.finding import walk
from pleura.data.ids import Names, identified
from pleura.data.mask_png import read_mask_png
from pleura.doctor.examination import Against, Examination, some
from pleura.errors import InputError
from pleura.measure.guards import not_binary

PNG_ONE = 255


def mask_folder(folder: Path, against: Against) -> Examination:
    """PNG files of masks: grey values, colours, several ways to write a mask. Raises: InputError."""
    files = sorted(path for path in walk(folder) if path.suffix.lower() == ".png")
    found = Examination("a folder of mask PNGs", [f"{len(files)} files"])
    refused: dict[str, str] = {}
    soft, ones = [], set()
    for file in files:
        try:
            _, levels = read_mask_png(file)
        except InputError as error:
            refused[file.name] = str(error)
            continue
        if len(levels) > 2:
            soft.append(file.name)
        elif levels[-1]:
            ones.add(int(levels[-1]))
    if refused:
        first = next(iter(refused.values()))
        found.error(f"{len(refused)} files cannot be read: {some(refused)} ({first})", "save each of them as said")
    if soft:
        found.error(
            f"{len(soft)} of {len(files)} masks are grey at their edges: {some(soft)}; they were resized with "
            "interpolation, or were JPEG once",
            "make them again by nearest neighbour from the originals; as they are, they are cut at half of full scale",
        )
    _ways_to_write(ones, found)
    if not ones and not soft and not refused:
        found.warn("every mask is empty", "is this the right folder?")
    if against.images:
        _without_mask([file.relative_to(folder).as_posix() for file in files], against.images, found)
    return found


def _ways_to_write(ones: set[int], found: Examination) -> None:
    if len(ones) > 1:
        found.error(
            f"mask pixels are written in {len(ones)} ways: {', '.join(map(str, sorted(ones)))}",
            "read every mask as mask > 0; a division by 255 makes some of them empty",
        )
    elif ones and ones != {PNG_ONE}:
        found.note(f"mask pixels are {min(ones)}, not {PNG_ONE}", "pleura reads > 0; a division by 255 would not")


def _without_mask(names: list[str], images: Path, found: Examination) -> None:
    cases = identified(images)
    there, names_of = {case.image_id for case in cases}, Names((case.image_id, case.relative) for case in cases)
    if without := sorted(there - {names_of.find(name, images) for name in names}):
        found.warn(
            f"{len(without)} of {len(there)} images have no mask: {some(without)}",
            "a negative has an empty mask of its own; others are left out",
        )


def mask_array(path: Path) -> Examination:
    """Masks in a .npy file, (N, H, W) in {0, 1}. Raises: InputError if it is no array of numbers."""
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
    return found
