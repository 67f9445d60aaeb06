"""PNG files of masks: which pixels are mask, or why that is ambiguous.

The background is black, transparent, or the index 0 of a palette; mask is everything else. A file in which two of
these contradict each other, or which holds more than one thing, is refused: the other reading is as likely.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pleura.data.png import GREY, GREY_ALPHA, PALETTE, RGB_ALPHA, Png, read_png
from pleura.data.probability_png import is_probability_map
from pleura.errors import InputError

MIN_SOFT_LEVELS = 5
"""Fewer grey values than this are classes."""
MOST_SOFT = 2
"""Edges have at most so many times the pixels of full scale; more are a probability."""

Values = NDArray[np.integer]


def read_mask_png(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read the mask in a PNG, (rows, columns) uint8 in {0, 1}, and the distinct values in the file, (n,).

    Mask is what is not black, not transparent or not index 0, of whatever two values; or in greys with soft edges,
    what reaches half of full scale.
    Raises: InputError if the file cannot be read, or which of its pixels are mask is ambiguous.
    """
    try:
        png = read_png(path)
    except InputError as error:
        raise InputError(f"{path}: cannot be read as a mask PNG ({error}); save the mask as PNG again") from error
    if is_probability_map(png.texts):
        raise InputError(
            f"{path}: holds probabilities that pleura predict wrote, not a mask; give the folder masks, or cut them "
            "with pleura.read_probabilities(path).mask(triplet)"
        )
    try:
        return _binary(*_values(png))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _binary(values: Values, full: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Cut values, (rows, columns) in 0 ... full, into a mask. Raises: InputError."""
    counts = np.bincount(values.reshape(-1))  # ten times as fast as a sort
    levels = np.flatnonzero(counts)
    if len(levels) == 1:
        return (values > 0).astype(np.uint8), levels
    low, high = int(levels[0]), int(levels[-1])
    if low > 0:
        raise InputError(
            f"its lowest value is {low}, and a mask is 0 outside ({_some(levels)}); write 0 where there is no mask"
        )
    if len(levels) == 2:
        return (values > 0).astype(np.uint8), levels
    between = int(counts[1:high].sum())
    if len(levels) < MIN_SOFT_LEVELS or high < full or full < 255:
        raise InputError(
            f"a mask has the values 0 and one other, this one has {len(levels)} ({_some(levels)}); was it resized with "
            "interpolation, or are they classes? Save the one class as 0 and 255"
        )
    if between > MOST_SOFT * counts[high]:
        raise InputError(
            f"of {len(levels)} grey values {between} px lie between 0 and {full}, {counts[high]} px at {full}: that is "
            "a probability or a picture; threshold it, and save it as 0 and 255"
        )
    return (values > full // 2).astype(np.uint8), levels


def _some(levels: NDArray[np.int64]) -> str:
    shown = levels.tolist() if len(levels) <= 4 else [*levels[:2].tolist(), "...", int(levels[-1])]
    return " ".join(map(str, shown))


def _values(png: Png) -> tuple[Values, int]:
    """One number a pixel, 0 where there is no mask, and the highest that it could be. Raises: InputError."""
    if png.colour_type == PALETTE:
        return _of_palette(png)
    colours, alpha = png.samples, None
    if png.colour_type in (GREY_ALPHA, RGB_ALPHA):
        colours, alpha = png.samples[..., :-1], png.samples[..., -1]
    elif png.transparent is not None:
        hidden = (png.samples == np.array(png.transparent)).all(axis=2)
        alpha = np.where(hidden, 0, png.full) if hidden.any() else None
    if alpha is not None and (alpha.max() == 0 or alpha.min() != alpha.max()):
        return _of_alpha(colours, alpha), png.full
    return (colours[..., 0] if png.colour_type in (GREY, GREY_ALPHA) else _of_colours(colours)), png.full


def _of_alpha(colours: Values, alpha: Values) -> Values:
    """A mask that is drawn on nothing. Raises: InputError."""
    shown, hidden = colours[alpha > 0], colours[alpha == 0]
    if not len(shown):
        if (hidden != hidden[0]).any():
            raise InputError("its alpha is 0 everywhere, and hides several colours; save it as 8-bit grey")
        return alpha
    if not len(hidden):
        raise InputError("its alpha is not constant and nowhere 0; save it as 8-bit grey, without alpha")
    if (shown != shown[0]).any():
        raise InputError(
            "its alpha is not constant, and neither is the colour that it shows: which of them is the mask? Save it as "
            "8-bit grey, without alpha"
        )
    if not shown[0].any() and hidden.any():
        raise InputError(
            "its alpha shows black and hides another colour: which of them is the mask? Save it as 8-bit grey, without "
            "alpha"
        )
    return alpha


def _of_colours(colours: Values) -> Values:
    """A mask in one colour on black. colours: (rows, columns, 3). Raises: InputError."""
    used = [channel for channel in (colours[..., at] for at in range(3)) if channel.any()]
    if not used:
        return np.asarray(colours[..., 0])
    if all(np.array_equal(used[0], other) for other in used[1:]):  # grey, or shades of one pure colour
        return used[0]
    code = (colours[..., 0].astype(np.int64) << 32) | (colours[..., 1].astype(np.int64) << 16) | colours[..., 2]
    distinct = np.unique(code)
    if len(distinct) == 2 and distinct[0] == 0:
        return (code > 0).astype(np.uint8)
    if len(distinct) <= 2:
        raise InputError(f"its {len(distinct)} colours are not grey, and none of them is black; save it as 8-bit grey")
    raise InputError(
        f"it has {len(distinct)} colours that are not grey: a picture, or several classes; save the one class as 0 and "
        "255 in 8-bit grey"
    )


def _of_palette(png: Png) -> tuple[Values, int]:
    """A mask in a palette, where index and colour agree. Raises: InputError."""
    indices = png.samples[..., 0]
    used = np.flatnonzero(np.bincount(indices.reshape(-1)))
    palette = np.zeros((0, 4), dtype=np.uint8) if png.palette is None else png.palette
    if used[-1] >= len(palette):
        raise InputError(f"it uses the index {used[-1]} of a palette of {len(palette)} colours; save it as 8-bit grey")
    entries = palette[used].astype(np.int64)
    if len(used) > 2:
        grey = entries[:, 0]
        if (entries[:, :3] != grey[:, None]).any() or (entries[:, 3] != 255).any():
            raise InputError(
                f"it has {len(used)} colours of a palette: several classes; save the one class as 0 and 255 in 8-bit "
                "grey"
            )
        if (np.diff(grey) <= 0).any() or (grey[0] == 0) != (used[0] == 0):
            raise InputError("the greys of its palette are not in the order of its indices; save it as 8-bit grey")
        return np.asarray(palette[indices, 0]), 255
    if len(used) == 2 and (entries[0] == entries[1]).all():  # one colour: the index decides
        seen = used > 0
    else:
        colours, alpha = entries[None, :, :3], entries[None, :, 3]
        plain = alpha.max() > 0 and alpha.min() == alpha.max()
        seen = (_of_colours(colours) if plain else _of_alpha(colours, alpha))[0] > 0
    if (seen != (used > 0)).any():
        raise InputError(
            f"its palette shows the index 0 in a colour, or another ({used[-1]}) as background: index and colour do "
            "not agree on what is mask; save it as 8-bit grey"
        )
    return (indices > 0).astype(np.uint8), 1
