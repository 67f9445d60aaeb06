"""What is mask in a PNG: the same 400 pixels however they were written, or a refusal that says why nobody can know."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from png_variants import MASK, READ, SIDE, UNKNOWN
from pngs import GREY_ALPHA, RGB, RGB_ALPHA, png_bytes, write_png

from pleura.data.mask_png import read_mask_png
from pleura.data.png import read_png
from pleura.errors import InputError


def put(folder: Path, content: bytes) -> Path:
    (folder / "a.png").write_bytes(content)
    return folder / "a.png"


@pytest.mark.parametrize("name", list(READ))
def test_mask_is_the_same_however_it_was_written(tmp_path: Path, name: str) -> None:
    mask, levels = read_mask_png(put(tmp_path, READ[name]))
    np.testing.assert_array_equal(mask, MASK)
    assert (mask.dtype, levels[0]) == (np.uint8, 0)


@pytest.mark.parametrize("name", list(UNKNOWN))
def test_ambiguous_mask_is_refused_by_its_reason(tmp_path: Path, name: str) -> None:
    content, words = UNKNOWN[name]
    with pytest.raises(InputError) as caught:
        read_mask_png(put(tmp_path, content))
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "a.png"))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("samples", "more", "area"),
    [
        (np.zeros((8, 8)), {}, 0),
        (np.ones((8, 8)), {}, 64),
        (np.full((8, 8), 255), {}, 64),
        (np.zeros((8, 8, 4)), {"colour": RGB_ALPHA}, 0),
        (np.full((8, 8, 4), [255, 255, 255, 0]), {"colour": RGB_ALPHA}, 0),
        (np.full((8, 8, 4), [0, 0, 0, 255]), {"colour": RGB_ALPHA}, 0),
        (np.full((8, 8, 2), [255, 0]), {"colour": GREY_ALPHA}, 0),
        (np.zeros((8, 8)), {"colour": 3, "palette": ((0, 0, 0), (255, 0, 0))}, 0),
        (np.ones((8, 8)), {"colour": 3, "palette": ((0, 0, 0), (255, 0, 0))}, 64),
        (np.zeros((8, 8)), {"transparent": b"\0\0"}, 0),
    ],
)
def test_png_of_one_value_is_empty_or_full(
    tmp_path: Path, samples: np.ndarray, more: dict[str, object], area: int
) -> None:
    assert read_mask_png(write_png(tmp_path / "a.png", samples.astype(int), **more))[0].sum() == area


@pytest.mark.parametrize("palette", [((255, 255, 255),), ((0, 0, 0), (0, 0, 0))])
def test_palette_of_one_index_says_the_same_by_its_colour_or_is_refused(
    tmp_path: Path, palette: tuple[tuple[int, int, int], ...]
) -> None:
    samples = np.full((8, 8), len(palette) - 1)
    with pytest.raises(InputError, match="index and colour"):
        read_mask_png(write_png(tmp_path / "a.png", samples, 3, palette=palette))


@pytest.mark.parametrize(("colour", "channels"), [(RGB, 3), (GREY_ALPHA, 2), (RGB_ALPHA, 4)])
def test_samples_of_16_bits_come_out_as_they_were_written(tmp_path: Path, colour: int, channels: int) -> None:
    samples = np.random.default_rng(channels).integers(0, 65536, (13, 7, channels))
    found = read_png(write_png(tmp_path / "a.png", samples, colour, 16))
    np.testing.assert_array_equal(found.samples, samples)
    assert (found.depth_bits, found.full) == (16, 65535)


@pytest.mark.parametrize(("colour", "channels"), [(RGB, 3), (GREY_ALPHA, 2), (RGB_ALPHA, 4)])
def test_16_bits_cut_off_anywhere_are_refused(tmp_path: Path, colour: int, channels: int) -> None:
    samples = np.random.default_rng(channels).integers(0, 65536, (13, 7, channels))
    whole = png_bytes(samples, colour, 16)
    for end in range(0, len(whole) - 24, 17):
        with pytest.raises(InputError):
            read_png(put(tmp_path, whole[:end]))


def test_animated_or_a_turned_png_is_refused(tmp_path: Path) -> None:
    first, second = (Image.fromarray((MASK * value).astype(np.uint8)) for value in (255, 128))
    first.save(tmp_path / "a.png", save_all=True, append_images=[second])
    with pytest.raises(InputError, match="animated"):
        read_mask_png(tmp_path / "a.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    first.save(tmp_path / "b.png", exif=exif)
    with pytest.raises(InputError, match="EXIF turns it"):
        read_mask_png(tmp_path / "b.png")


def test_file_that_is_missing_or_claims_a_gigantic_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.png"):
        read_mask_png(tmp_path / "a.png")
    huge = bytearray(png_bytes(np.zeros((SIDE, SIDE), int)))
    huge[16:24] = (30_000).to_bytes(4, "big") * 2
    with pytest.raises(InputError):
        read_mask_png(put(tmp_path, bytes(huge)))
