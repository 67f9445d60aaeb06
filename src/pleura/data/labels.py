"""Where masks come from: SIIM csv files, or folders of mask PNGs."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pleura.data import rle
from pleura.data.finding import walk
from pleura.data.mask_png import read_mask_png
from pleura.data.radiograph import SquareGeometry
from pleura.errors import InputError, RLEError
from pleura.files import without_suffix


@dataclass(frozen=True)
class LabelSource:
    """The mask of one case, not read yet: run-length strings, or a PNG."""

    name: str
    """The csv or folder it comes from."""
    runs: tuple[str, ...] = ()
    png: str = ""

    def mask(self, shape: tuple[int, int], size_px: int, rle_grid: str, aspect: float = 1.0) -> NDArray[np.uint8]:
        """The mask on the square grid of a dataset, (size_px, size_px) uint8 in {0, 1}.

        shape: (rows, columns) of the image. rle_grid: `siim`, runs count pixels of a 1024 x 1024 copy of a square
        image; `image`, pixels of the image itself. aspect: how many times as high as wide these pixels are.
        Raises: InputError if the mask is damaged or has another size than the image.
        """
        if self.png:
            return SquareGeometry(*shape, size_px, aspect).mask_to_square(_read_png(Path(self.png), shape))
        if rle_grid == "image":
            grid = shape
        elif shape[0] == shape[1]:
            grid = (rle.SIIM_SIDE_PX, rle.SIIM_SIDE_PX)
        elif all(run == rle.EMPTY for run in self.runs):
            return np.zeros((size_px, size_px), dtype=np.uint8)
        else:
            raise InputError(
                f"the image has {shape[0]} x {shape[1]} px, SIIM's runs are on 1024 x 1024; if the runs count the "
                "image's own pixels, say --rle-grid image"
            )
        try:
            mask = rle.decode_union(self.runs, grid)
        except RLEError as error:
            raise InputError(f"{self.name}: {error}") from error
        return SquareGeometry(*grid, size_px, aspect).mask_to_square(mask)


def read_labels(sources: Sequence[Path]) -> dict[str, LabelSource]:
    """Read image_id -> label from SIIM csv files and folders of mask PNGs; an id counts in the first that has it.

    Raises: InputError for a missing source, a wrong csv, or a folder without PNGs or with two of one name.
    """
    labels: dict[str, LabelSource] = {}
    for source in sources:
        if source.is_dir():
            found = _pngs(source)
            if not found:
                raise InputError(f"{source}: holds no mask PNG")
        elif source.is_file():
            found = {key: LabelSource(source.stem, runs=tuple(runs)) for key, runs in rle.read_csv(source).items()}
        else:
            raise InputError(f"{source}: there is no such csv or folder of masks")
        labels = {**found, **labels}
    return labels


def _pngs(folder: Path) -> dict[str, LabelSource]:
    found: dict[str, LabelSource] = {}
    for path in sorted(walk(folder)):
        if path.suffix.lower() != ".png":
            continue
        name = without_suffix(unicodedata.normalize("NFC", path.relative_to(folder).as_posix()))
        if name in found:
            raise InputError(f"{path}: {found[name].png} is a mask of the same image too; keep one")
        found[name] = LabelSource(folder.name, png=str(path))
    return found


def _read_png(path: Path, shape: tuple[int, int]) -> NDArray[np.uint8]:
    mask, _ = read_mask_png(path)
    if mask.shape != shape:
        sizes = f"{mask.shape[0]} x {mask.shape[1]} px, its image {shape[0]} x {shape[1]}"
        raise InputError(f"{path}: the mask has {sizes}; save it on the image's grid")
    return mask
