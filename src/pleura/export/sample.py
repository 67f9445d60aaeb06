"""The images that an export is compared with its checkpoint on: a dataset's, radiographs, or phantoms."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pleura.data.dataset import CARD, Dataset, Split
from pleura.data.finding import find_radiographs
from pleura.data.phantoms.radiographs import make_phantom
from pleura.data.radiograph import geometry_of, read_radiograph
from pleura.errors import InputError
from pleura.models.header import ModelHeader
from pleura.models.seen import SeenRows

LEAST_IMAGES = 32
PHANTOMS, FIRST_SEED = 40, 101
"""Every other one has a pneumothorax."""
LEAST_CALIBRATION, MOST_CALIBRATION = 8, 64
"""Images that the ranges of an int8 export are found on."""
Kind = Literal["dataset", "radiographs", "phantoms"]
Case: TypeAlias = tuple[NDArray[np.uint8], NDArray[np.uint8]]


@dataclass(frozen=True)
class Sample:
    """Images to measure on, read one at a time."""

    kind: Kind
    what: str
    """In words, without the name of any image."""
    count: int
    has_truth: bool
    case: Callable[[int], Case]
    """Number -> image (S, S), S = prepared_px, and its true mask (S, S) in {0, 1}, empty where none is known."""

    def chunks(self, size: int) -> Iterator[Case]:
        """Yield the images in order with their masks, at most `size` of each at a time."""
        for first in range(0, self.count, size):
            squares, masks = zip(*map(self.case, range(first, min(first + size, self.count))), strict=True)
            yield np.stack(squares), np.stack(masks)


def of_dataset(folder: Path, split: Split | None, header: ModelHeader) -> Sample:
    """Take the cases of a dataset. split: val, the cases that the model was chosen on, where there are any; else all.

    Raises: InputError for a dataset of another size, too few cases, or none of the split.
    """
    dataset = Dataset(folder)
    chosen, indices = SeenRows.of([header.seen], *dataset.names).choose(split, dataset.folder, dataset.scored)
    return _enough(_of_rows(dataset, indices, chosen, header))


def _of_rows(dataset: Dataset, indices: NDArray[np.int64], which: str, header: ModelHeader) -> Sample:
    folder, prepared_px = dataset.folder, header.preprocessing.prepared_px
    if dataset.size_px != prepared_px:
        raise InputError(
            f"{folder}: was prepared at {dataset.size_px} px, the model at {prepared_px} px; prepare it with "
            f"--size {prepared_px}"
        )
    name = folder.name or folder.resolve().name

    def case(number: int) -> Case:
        index = indices[number]
        return np.array(dataset.images[index]), dataset.masks([index])[0]

    what = f"{len(indices)} radiographs of the dataset {name} ({which})"
    return Sample("dataset", what, len(indices), True, case)


def of_radiographs(inputs: Sequence[str], header: ModelHeader) -> Sample:
    """Take the radiographs of files, folders and patterns.

    Raises: InputError for an input without radiographs, or too few; later for one that cannot be read.
    """
    return _enough(_radiographs(inputs, header))


def _radiographs(inputs: Sequence[str], header: ModelHeader) -> Sample:
    files = [located.path for located in find_radiographs(inputs).radiographs]
    prepared_px = header.preprocessing.prepared_px

    def case(number: int) -> Case:
        radiograph = read_radiograph(files[number])
        square = geometry_of(radiograph, prepared_px).image_to_square(radiograph.image)
        return square, np.zeros_like(square)

    return Sample("radiographs", f"{len(files)} radiographs without truth", len(files), False, case)


def of_phantoms(header: ModelHeader) -> Sample:
    """Take drawings of chests, which pleura makes."""

    def case(number: int) -> Case:
        drawn = make_phantom(FIRST_SEED + number, header.preprocessing.prepared_px, number % 2 == 0)
        return np.rint(drawn.image * 255).astype(np.uint8), drawn.mask

    return Sample("phantoms", f"{PHANTOMS} phantoms", PHANTOMS, True, case)


def of_calibration(inputs: Sequence[str], header: ModelHeader) -> Sample:
    """Take at most MOST_CALIBRATION radiographs, evenly from all that are named.

    inputs: files, folders and patterns; or a dataset, of which those are taken that the model has learned from, or else
    all but those that it was chosen on. Raises: as `of_dataset` and `of_radiographs` do.
    """
    folder = Path(inputs[0])
    if len(inputs) == 1 and (folder / CARD).is_file():
        dataset = Dataset(folder)
        seen = SeenRows.of([header.seen], *dataset.names)
        rows, which = (seen.train, "train") if seen.train.any() else (~seen.val, "all but val")
        whole = _of_rows(dataset, np.flatnonzero(rows), which, header)
    else:
        whole = _radiographs(inputs, header)
    if whole.count < LEAST_CALIBRATION:
        raise InputError(
            f"--calibration takes at least {LEAST_CALIBRATION} images, and these are {whole.what}; add more"
        )
    count = min(whole.count, MOST_CALIBRATION)
    numbers = [number * whole.count // count for number in range(count)]
    return replace(whole, what=f"{count} of {whole.what}", count=count, case=lambda number: whole.case(numbers[number]))


def refuse_shared(calibration: Sample, sample: Sample) -> None:
    """Refuse images to certify on that are calibrated on too. Raises: InputError."""
    known = {digest_of(calibration.case(number)[0]) for number in range(calibration.count)}
    shared = sum(digest_of(sample.case(number)[0]) in known for number in range(sample.count))
    if shared:
        raise InputError(
            f"{shared} of the {sample.what} are images of --calibration too, and say nothing of others; name other "
            "images for one of both"
        )


def _enough(sample: Sample) -> Sample:
    if sample.count < LEAST_IMAGES:
        raise InputError(
            f"a certificate takes at least {LEAST_IMAGES} images, and these are {sample.what}; add more, or take "
            "the phantoms that pleura draws, by naming none"
        )
    return sample


def digest_of(squares: NDArray[np.uint8], so_far: str = "") -> str:
    """Return the sha256 over images (n, S, S), and over those before them by their own."""
    return hashlib.sha256(so_far.encode() + np.ascontiguousarray(squares).tobytes()).hexdigest()
