"""Maps of probabilities as grey PNG files of 8 bits: one for each radiograph, on its own grid.

The value of a pixel is its level (`decision.levels`), so that the decision rule finds in a file what it finds in the
probabilities themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pleura.data.png import GREY, png_bytes, read_png
from pleura.decision.levels import levels_of, probabilities_of, refuse_unless_kept
from pleura.decision.triplet import Triplet
from pleura.errors import InputError

SQUARE_AREA = "square_area_px"
"""The text chunk that a map is known by."""
MEANING = "probability of a pneumothorax: value / 256, rounded down; 255 is 255/256 to 1"


@dataclass(frozen=True, eq=False)
class ProbabilityMap:
    """The probabilities of one radiograph, on its own grid, as `pleura predict --write probabilities` keeps them."""

    levels: NDArray[np.uint8]
    """(rows, columns); level k holds probabilities from k/256 up to (k+1)/256."""
    square_area_px: int
    """Pixels of the square that the radiograph was padded to, by which `min_pixels` of a rule is scaled."""

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """(rows, columns) in [0, 1): level / 256, at most 1/256 below what the model gave."""
        return probabilities_of(self.levels)

    def mask(self, triplet: Triplet) -> NDArray[np.uint8]:
        """Return the mask, (rows, columns) in {0, 1}, that the rule finds in the model's own probabilities.

        Raises: InputError for a threshold of 1, which 8 bits do not keep.
        """
        refuse_unless_kept(triplet)
        return triplet.apply(self.probabilities, self.square_area_px)


def is_probability_map(texts: Mapping[str, str]) -> bool:
    """Return whether the text chunks of a PNG are those of a map. Its pixels alone can look like a mask."""
    return SQUARE_AREA in texts


def probability_png(probabilities: NDArray[np.float32], square_area_px: int, software: str) -> bytes:
    """Return the map of probabilities, (rows, columns) in [0, 1], as a PNG that every reader reads.

    square_area_px: as `ProbabilityMap` has it. software: who wrote it.
    """
    texts = {"Description": MEANING, SQUARE_AREA: str(square_area_px)}
    return png_bytes(levels_of(probabilities), software, texts)


def read_probabilities(path: Path | str) -> ProbabilityMap:
    """Read a file of `pleura predict --write probabilities`.

    Raises: InputError if it cannot be read, or is another PNG.
    """
    try:
        png = read_png(Path(path))
    except InputError as error:
        raise InputError(f"{path}: cannot be read as a map of probabilities ({error})") from error
    area = png.texts.get(SQUARE_AREA, "")
    is_map = png.colour_type == GREY and png.depth_bits == 8 and area.isascii() and area.isdigit()
    if not is_map or int(area) < png.samples.size:
        raise InputError(f"{path}: is no map of probabilities that pleura predict --write probabilities wrote")
    return ProbabilityMap(png.samples[..., 0].astype(np.uint8), int(area))
