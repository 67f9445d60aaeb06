"""Pictures of radiographs with their masks outlined."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

PREDICTED_RGB, TRUTH_RGB = (255, 64, 64), (64, 220, 120)
DISCLAIMER = "research software, not a medical device"
FILL = 0.18
"""How much of the predicted mask's colour covers the lung: enough to see, not to hide the pleural line."""
GAP_PX = 6
"""Between the pictures of a contact sheet."""


def overlay(
    image: NDArray[np.float32],
    predicted_mask: NDArray[np.uint8],
    mask: NDArray[np.uint8] | None = None,
    caption: str = "",
    longest_px: int = 1024,
    disclaimer: str = DISCLAIMER,
    least_text_px: int = 10,
    may_be_grey: bool = False,
) -> Image.Image:
    """Draw a radiograph with the predicted mask in red and, if given, the true one outlined in green.

    image: (H, W) float32 in [0, 1]. Masks: (H, W) in {0, 1}. may_be_grey: where both are empty, return one channel.
    Returns an RGB picture with lines of text below, at most `longest_px` on its longer side.
    """
    rows, columns = image.shape
    scale = min(1.0, longest_px / max(rows, columns))
    height, width = max(1, round(rows * scale)), max(1, round(columns * scale))
    grey = Image.fromarray(np.ascontiguousarray(image)).resize((width, height), Image.Resampling.BILINEAR)
    levels = np.asarray(grey) * 255.0
    pixels = np.clip(levels, 0, 255).astype(np.uint8)
    line_px = max(1, round(max(height, width) / 400))
    every = ((predicted_mask, PREDICTED_RGB, FILL), (mask, TRUTH_RGB, 0.0))
    areas = [(area, colour, fill) for area, colour, fill in every if area is not None and area.any()]
    if areas or not may_be_grey:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    for area, colour, fill in areas:
        inside = np.asarray(Image.fromarray(area.astype(np.uint8)).resize((width, height))) > 0
        box = _box(inside)  # outside it nothing is drawn
        inside, drawn = inside[box], pixels[box]
        if fill:  # of one area alone: it mixes with the radiograph, not with what is drawn already
            mixed = np.repeat(levels[box][inside][:, None], 3, axis=1)
            mixed += fill * (np.array(colour) - mixed)
            drawn[inside] = np.clip(mixed, 0, 255).astype(np.uint8)
        drawn[inside & ~_eroded(inside, line_px)] = colour
    return _captioned(Image.fromarray(pixels), caption, disclaimer, least_text_px)


def _box(inside: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Return the rows and columns from the first to the last that are set; (H, W) bool, which may be empty."""
    rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return slice(0), slice(0)
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _eroded(inside: NDArray[np.bool_], times: int) -> NDArray[np.bool_]:
    # As scipy.ndimage.binary_erosion: four neighbours, and none beyond the picture. Importing scipy for the few pixels
    # of a line would cost `pleura predict` more than all else it does with an image.
    for _ in range(times):
        framed = np.pad(inside, 1)
        beside = framed[:-2, 1:-1] & framed[2:, 1:-1] & framed[1:-1, :-2] & framed[1:-1, 2:]
        inside = inside & beside
    return inside


def _captioned(picture: Image.Image, caption: str, disclaimer: str, least_text_px: int) -> Image.Image:
    """The picture with lines of text below; they are wrapped, and a picture too narrow for a word gets a margin."""
    size = max(least_text_px, picture.width // 45)
    font = ImageFont.load_default(size)
    words = [text.split() for text in (caption, disclaimer) if text]
    longest = max(font.getlength(word) for text in words for word in text)
    width = max(picture.width, math.ceil(longest) + size)
    lines = [(line, text == words[-1]) for text in words for line in _wrapped(text, font, width - size)]
    framed = Image.new(picture.mode, (width, picture.height + round(len(lines) * size * 1.4) + size // 2))
    framed.paste(picture)
    draw = ImageDraw.Draw(framed)
    for number, (line, is_disclaimer) in enumerate(lines):
        at = (size // 2, picture.height + size // 4 + round(number * size * 1.4))
        level = 150 if is_disclaimer else 235
        draw.text(at, line, font=font, fill=level if picture.mode == "L" else (level, level, level))
    return framed


def _wrapped(words: Sequence[str], font: Any, width: float) -> list[str]:
    lines: list[str] = []
    for word in words:
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def contact_sheet(pictures: Sequence[Image.Image], columns: int = 4) -> Image.Image:
    """Several pictures on one, row by row, each in the upper left of a cell as large as the largest of them.

    Returns an RGB picture, no wider than it must be where there are fewer pictures than `columns`.
    Raises: ValueError without pictures or columns.
    """
    if not pictures or columns < 1:
        raise ValueError(f"a contact sheet needs a picture and a column, not {len(pictures)} and {columns}")
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    width = max(picture.width for picture in pictures) + GAP_PX
    height = max(picture.height for picture in pictures) + GAP_PX
    sheet = Image.new("RGB", (columns * width - GAP_PX, rows * height - GAP_PX))
    for number, picture in enumerate(pictures):
        sheet.paste(picture, (number % columns * width, number // columns * height))
    return sheet


def as_data_uri(picture: Image.Image) -> str:
    """The picture as a JPEG inside a data: URI, for a page that stands alone."""
    buffer = BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
