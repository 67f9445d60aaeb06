"""Ways in which tools write one mask as a PNG, and those in which nobody can tell what the mask is, for tests."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image
from pngs import GREY_ALPHA, PALETTE, RGB, RGB_ALPHA, png_bytes

SIDE = 64
MASK = np.zeros((SIDE, SIDE), np.uint16)
MASK[10:30, 10:30] = 1
"""400 px."""
BLACK, WHITE, RED, BLUE = (0, 0, 0), (255, 255, 255), (128, 0, 0), (0, 0, 2)


def two(one: object, other: object = 0) -> np.ndarray:
    """MASK with `one` for mask and `other` for background, numbers or channels."""
    return np.where(MASK[..., None] > 0, np.atleast_1d(one), np.atleast_1d(other))


def both(mask: np.ndarray, other: np.ndarray) -> np.ndarray:
    """MASK with one class in its left half and another in its right."""
    left = np.arange(SIDE) < SIDE // 2 - 12
    return np.where((MASK > 0) & left, mask, np.where(MASK > 0, other, 0))


def soft(top: int, depth: int = 8) -> bytes:
    """MASK with an edge of 9 values between 0 and `top`, half of which begins at the edge of MASK."""
    values = two(top)[..., 0]
    for step, offset in enumerate((-4, -3, -2, -1, 1, 2, 3, 4)):
        inside, row = offset > 0, 10 + offset - (offset > 0)
        values[row, 12:20] = top // 2 + 1 + step * top // 20 if inside else step * top // 10 + top // 20
    return png_bytes(values, depth=depth)


def jpeg() -> bytes:
    """MASK as a JPEG, which a wrong suffix may hide."""
    file = io.BytesIO()
    Image.fromarray((MASK * 255).astype(np.uint8)).save(file, "JPEG")
    return file.getvalue()


READ = {
    "255": png_bytes(two(255)),
    "1": png_bytes(two(1)),
    "2": png_bytes(two(2)),
    "128": png_bytes(two(128)),
    "1 bit": png_bytes(two(1), depth=1),
    "2 bits": png_bytes(two(1), depth=2),
    "2 bits, full": png_bytes(two(3), depth=2),
    "4 bits": png_bytes(two(1), depth=4),
    "4 bits, full": png_bytes(two(15), depth=4),
    "16 bits of 1": png_bytes(two(1), depth=16),
    "16 bits of 255": png_bytes(two(255), depth=16),
    "16 bits, full": png_bytes(two(65535), depth=16),
    "grey, black transparent": png_bytes(two(255), transparent=b"\0\0"),
    "grey, a value transparent that it has not": png_bytes(two(255), transparent=b"\0\7"),
    "white": png_bytes(two(WHITE), RGB),
    "rgb48 of 1": png_bytes(two((1, 1, 1)), RGB, 16),
    "rgb48, full": png_bytes(two((65535,) * 3), RGB, 16),
    "red": png_bytes(two((255, 0, 0)), RGB),
    "class in red": png_bytes(two((1, 0, 0)), RGB),
    "class in green": png_bytes(two((0, 1, 0)), RGB),
    "class in blue": png_bytes(two((0, 0, 1)), RGB),
    "class in blue of 16 bits": png_bytes(two((0, 0, 1)), RGB, 16),
    "yellow": png_bytes(two((255, 255, 0)), RGB),
    "one colour": png_bytes(two((17, 3, 200)), RGB),
    "dark blue": png_bytes(two((0, 0, 90)), RGB),
    "rgb, black transparent": png_bytes(two(WHITE), RGB, transparent=bytes(6)),
    "rgba, opaque": png_bytes(two((*WHITE, 255), (*BLACK, 255)), RGB_ALPHA),
    "rgba, one alpha": png_bytes(two((*RED, 77), (*BLACK, 77)), RGB_ALPHA),
    "black on nothing": png_bytes(two((*BLACK, 255), (*BLACK, 0)), RGB_ALPHA),
    "white on nothing": png_bytes(two((*WHITE, 255), (*WHITE, 0)), RGB_ALPHA),
    "white on black nothing": png_bytes(two((*WHITE, 255), (*BLACK, 0)), RGB_ALPHA),
    "half of red on nothing": png_bytes(two((*RED, 120), (*WHITE, 0)), RGB_ALPHA),
    "white on nothing of 16 bits": png_bytes(two((65535,) * 4, (65535,) * 3 + (0,)), RGB_ALPHA, 16),
    "alpha of 1 in 16 bits": png_bytes(two((0, 0, 0, 1), 0), RGB_ALPHA, 16),
    "grey with alpha, opaque": png_bytes(two((255, 255), (0, 255)), GREY_ALPHA),
    "grey, white on nothing": png_bytes(two((255, 255), (255, 0)), GREY_ALPHA),
    "grey, black on nothing": png_bytes(two((0, 255), (0, 0)), GREY_ALPHA),
    "grey with alpha of 16 bits": png_bytes(two((1, 65535), (0, 65535)), GREY_ALPHA, 16),
    "palette, white": png_bytes(two(1), PALETTE, palette=(BLACK, WHITE)),
    "palette, white, 1 bit": png_bytes(two(1), PALETTE, 1, (BLACK, WHITE)),
    "palette, red, 2 bits": png_bytes(two(1), PALETTE, 2, (BLACK, RED)),
    "palette, red, 4 bits": png_bytes(two(9), PALETTE, 4, (BLACK,) * 9 + (RED,)),
    "palette, black": png_bytes(two(1), PALETTE, palette=(BLACK,) * 256),
    "palette, dark blue": png_bytes(two(1), PALETTE, palette=(BLACK, BLUE)),
    "palette, white on nothing": png_bytes(two(1), PALETTE, palette=(WHITE, WHITE), transparent=b"\0"),
    "palette, black on nothing": png_bytes(two(1), PALETTE, palette=(BLACK, BLACK), transparent=b"\0\xff"),
    "palette, transparent where it is not used": png_bytes(
        two(1), PALETTE, palette=(BLACK, WHITE, RED), transparent=b"\xff\xff\0"
    ),
    "soft edge": soft(255),
    "soft edge of 16 bits": soft(65535, 16),
}
"""Each is MASK."""

UNKNOWN = {
    "1 and 2": (png_bytes(two(2, 1)), "its lowest value is 1"),
    "1 and 255": (png_bytes(two(255, 1)), "its lowest value is 1"),
    "three values": (png_bytes(both(128, 255)), "this one has 3"),
    "three low values": (png_bytes(both(1, 2)), "this one has 3"),
    "four values of 2 bits": (png_bytes(both(1, 3), depth=2), "this one has 3"),
    "a probability": (
        png_bytes(np.minimum(np.add.outer(range(0, 192, 3), range(0, 128, 2)), 255)), "a probability or a picture"),
    "soft and weak": (png_bytes(np.minimum(np.add.outer(np.arange(64), np.arange(64)), 90)), "interpolation"),
    "red and green": (png_bytes(np.where(np.arange(64)[:, None, None] < 20, two((1, 0, 0)), two((0, 1, 0))), RGB),
                      "3 colours that are not grey"),
    "red on white": (png_bytes(two((255, 0, 0), WHITE), RGB), "none of them is black"),
    "white, but white is transparent": (png_bytes(two(255), transparent=b"\0\xff"), "alpha shows black"),
    "white, but white is transparent, in colour": (
        png_bytes(two(WHITE), RGB, transparent=b"\0\xff" * 3), "alpha shows black"),
    "two colours and alpha": (
        png_bytes(np.where(np.arange(64)[:, None, None] < 20, two((255, 255), (0, 255)), two((255, 0), (0, 0))),
                  GREY_ALPHA), "alpha is not constant, and neither is the colour"),
    "alpha that is never 0": (png_bytes(two((*WHITE, 255), (*BLACK, 128)), RGB_ALPHA), "nowhere 0"),
    "all is hidden": (png_bytes(two((*WHITE, 0), (*BLACK, 0)), RGB_ALPHA), "hides several colours"),
    "palette, white is 0": (png_bytes(two(0, 1), PALETTE, palette=(WHITE, BLACK)), "index and colour"),
    "palette, 0 is white": (png_bytes(two(1), PALETTE, palette=(WHITE, BLACK)), "index and colour"),
    "palette, 1 is transparent": (
        png_bytes(two(1), PALETTE, palette=(WHITE, WHITE), transparent=b"\xff\0"), "index and colour"),
    "palette of classes": (png_bytes(both(1, 2), PALETTE, palette=(BLACK, RED, BLUE)), "3 colours of a palette"),
    "palette without background": (png_bytes(two(2, 1), PALETTE, palette=(BLACK, RED, WHITE)), "none of them is black"),
    "palette that ends too early": (png_bytes(two(2), PALETTE, palette=(BLACK, RED)), "a palette of 2 colours"),
    "a JPEG": (jpeg(), "it is a JPEG"),
    "cut short": (png_bytes(two(255))[:70], "cannot be read as a mask PNG"),
}  # fmt: skip
"""Each is no mask that anybody can know, and words of the refusal."""
