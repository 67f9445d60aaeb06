"""Pictures: 16 bits in colour or with alpha, depth, transparency, and what is cut short or damaged."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pleura.data.phantoms.radiographs import make_phantom
from pleura.data.picture import read_picture
from pleura.data.png import png_of, read_png
from pleura.errors import InputError

RAMP_12 = np.linspace(0, 4095, 37 * 41).round().astype(np.uint16).reshape(37, 41)
ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
GREY, RGB, GREY_ALPHA, RGBA = 0, 2, 4, 6


@pytest.fixture(scope="module")
def phantom() -> np.ndarray:
    return np.rint(make_phantom(5, 96, True).image * 255).astype(np.uint8)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data))


def filtered(pixels: np.ndarray, kinds: list[int]) -> bytes:
    """Filter the lines of uint8 (rows, bytes of a pixel x columns, ...) by the definitions, one byte at a time."""
    rows, columns, size = pixels.shape
    lines = np.zeros((rows + 1, (columns + 1) * size), dtype=np.int64)
    lines[1:, size:] = pixels.reshape(rows, -1)
    content = b""
    for row in range(1, rows + 1):
        kind = kinds[row % len(kinds)]
        now, up = lines[row, size:], lines[row - 1, size:]
        left, corner = lines[row, :-size], lines[row - 1, :-size]
        guess = left + up - corner
        near = np.abs(np.stack([guess - left, guess - up, guess - corner]))
        paeth = np.choose(near.argmin(axis=0), [left, up, corner])
        predicted = [np.zeros_like(now), left, up, (left + up) // 2, paeth][kind]
        content += bytes([kind]) + ((now - predicted) % 256).astype(np.uint8).tobytes()
    return content


def png(path: Path, channels: list[np.ndarray], colour: int, kinds=(0,), interlaced=False, extra=(), cut=None) -> Path:
    pixels = np.dstack(channels).astype(">u2")
    rows, columns, count = pixels.shape
    content = b""
    for top, left, down, right in ADAM7 if interlaced else ((0, 0, 1, 1),):
        part = np.ascontiguousarray(pixels[top::down, left::right])
        if part.size:
            content += filtered(part.view(np.uint8).reshape(*part.shape[:2], 2 * count), list(kinds))
    header = struct.pack(">2L5B", columns, rows, 16, colour, 0, 0, int(interlaced))
    before = b"".join(chunk(*each) for each in extra)
    data = chunk(b"IDAT", zlib.compress(content)[:cut])
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + data + chunk(b"IEND", b""))
    return path


def save(path: Path, pixels: np.ndarray, mode: str | None = None, **options: Any) -> Path:
    picture = Image.fromarray(pixels)
    (picture.convert(mode) if mode else picture).save(path, **options)
    return path


def with_lines(path: Path, change: Callable[[bytes], bytes]) -> Path:
    """Compress anew what `change` makes of the filtered lines of a PNG, with checksums that are right."""
    content = path.read_bytes()
    lines = change(zlib.decompress(png_of(content).data))
    start = content.index(b"IDAT") - 4
    path.write_bytes(content[:start] + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b""))
    return path


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_picture(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


# Sixteen bits


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("kinds", [[0], [1], [2], [3], [4], [4, 0, 3, 1, 2]])
@pytest.mark.parametrize("colour", [RGB, GREY_ALPHA, RGBA])
def test_sixteen_bits_in_colour_or_with_alpha_are_the_grey_ones(tmp_path, colour, kinds, interlaced):
    opaque = np.full_like(RAMP_12, 65535)
    channels = {RGB: [RAMP_12] * 3, GREY_ALPHA: [RAMP_12, opaque], RGBA: [RAMP_12] * 3 + [opaque]}[colour]
    image = read_picture(png(tmp_path / "a.png", channels, colour, kinds, interlaced))
    np.testing.assert_allclose(image, RAMP_12 / 4095, atol=1e-6)
    assert len(np.unique(image)) == len(np.unique(RAMP_12))
    np.testing.assert_array_equal(image, read_picture(png(tmp_path / "b.png", [RAMP_12], GREY, kinds, interlaced)))


@pytest.mark.parametrize("shape", [(1, 9), (9, 1), (2, 3), (5, 5), (8, 8)])
def test_interlaced_pictures_of_any_size_are_whole(tmp_path, shape):
    values = np.arange(np.prod(shape), dtype=np.uint16).reshape(shape) * 700
    image = read_picture(png(tmp_path / "a.png", [values] * 3, RGB, [4, 1], interlaced=True))
    np.testing.assert_array_equal(image, read_picture(png(tmp_path / "b.png", [values], GREY)))


def test_sixteen_bits_in_colour_are_refused(tmp_path):
    channels = [RAMP_12, RAMP_12, RAMP_12[::-1]]
    assert "in colour" in refusal(png(tmp_path / "a.png", channels, RGB))


def test_sixteen_bits_in_colour_are_turned_as_exif_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    extra = [(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))]
    image = read_picture(png(tmp_path / "a.png", [RAMP_12] * 3, RGB, extra=extra))
    np.testing.assert_allclose(image, np.rot90(RAMP_12, -1) / 4095, atol=1e-6)


@pytest.mark.parametrize(("colour", "cut"), [(GREY, 10), (GREY, 200), (RGB, 10), (RGB, 200), (RGB, -5), (RGB, -1)])
def test_sixteen_bits_cut_short_are_refused(tmp_path, colour, cut):
    channels = [RAMP_12] * (3 if colour == RGB else 1)
    assert "truncated or damaged" in refusal(png(tmp_path / "a.png", channels, colour, cut=cut))


@pytest.mark.parametrize("rows", [36, 38])
def test_sixteen_bits_in_colour_of_another_size_are_refused(tmp_path, rows):
    path = png(tmp_path / "a.png", [RAMP_12] * 3, RGB)
    content = bytearray(path.read_bytes())
    content[20:24] = struct.pack(">L", rows)
    content[29:33] = struct.pack(">L", zlib.crc32(content[12:29]))
    path.write_bytes(content)
    assert "truncated or damaged" in refusal(path)


@pytest.mark.parametrize("garbage", [b"\xff" * 40, b"", b"II*\0" + b"\xff" * 30])
def test_exif_that_makes_no_sense_turns_nothing(tmp_path, phantom, garbage):
    path = save(tmp_path / "a.jpg", phantom)
    content, exif = path.read_bytes(), b"Exif\0\0" + garbage
    path.write_bytes(content[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + content[2:])
    np.testing.assert_array_equal(np.rint(read_picture(path) * 255), np.asarray(Image.open(io.BytesIO(content))))


# Transparency


@pytest.mark.parametrize("alpha", [1, 200, 255])
@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_alpha_that_is_the_same_everywhere_changes_nothing(tmp_path, phantom, mode, alpha):
    channels = [phantom] * (len(mode) - 1) + [np.full_like(phantom, alpha)]
    image = read_picture(save(tmp_path / "a.png", np.dstack(channels)))
    np.testing.assert_array_equal(np.rint(image * 255), phantom)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("kind", ["all of it", "one pixel"])
def test_alpha_that_hides_pixels_is_refused(tmp_path, bits, kind):
    alpha = np.full_like(RAMP_12, 0 if kind == "all of it" else 65535)
    alpha[3, 4] = 0
    if bits == 16:
        path = png(tmp_path / "a.png", [RAMP_12, alpha], GREY_ALPHA)
    else:
        path = save(tmp_path / "a.png", np.dstack([RAMP_12 // 16, alpha // 257]).astype(np.uint8))
    assert "transparent" in refusal(path)


def test_colour_that_is_transparent_hides_pixels_only_where_it_is(tmp_path):
    hides, hides_none = struct.pack(">3H", *RAMP_12[3, 3].repeat(3)), struct.pack(">3H", 5000, 5000, 5000)
    assert "transparent" in refusal(png(tmp_path / "a.png", [RAMP_12] * 3, RGB, extra=[(b"tRNS", hides)]))
    image = read_picture(png(tmp_path / "b.png", [RAMP_12] * 3, RGB, extra=[(b"tRNS", hides_none)]))
    np.testing.assert_allclose(image, RAMP_12 / 4095, atol=1e-6)


# Depth


@pytest.mark.parametrize("colour", [GREY, RGB])
@pytest.mark.parametrize("bits", [10, 11, 12, 14, 15])
@pytest.mark.parametrize("how", ["scaled", "shifted", "in the lower bits"])
def test_depth_that_sbit_names_is_the_detectors(tmp_path, how, bits, colour):
    stored = (np.arange(600, dtype=np.uint32) % 500).reshape(20, 30) + 11
    stored[0, 0] = 0
    low = 16 - bits
    written = {"scaled": stored << low | stored >> (bits - low), "shifted": stored << low, "in the lower bits": stored}
    count = 3 if colour == RGB else 1
    path = png(tmp_path / "a.png", [written[how]] * count, colour, extra=[(b"sBIT", bytes([bits] * count))])
    np.testing.assert_allclose(read_picture(path), stored / (2**bits - 1), atol=1e-6)


@pytest.mark.parametrize("colour", [GREY, RGB])
def test_sbit_of_all_sixteen_bits_is_the_depth_however_few_the_values_need(tmp_path, colour):
    count = 3 if colour == RGB else 1
    path = png(tmp_path / "a.png", [RAMP_12] * count, colour, extra=[(b"sBIT", b"\x10" * count)])
    np.testing.assert_allclose(read_picture(path), RAMP_12 / 65535, atol=1e-6)


def test_sbit_that_the_values_contradict_is_not_believed(tmp_path):
    stored = np.linspace(0, 65535, 600).astype(np.uint16).reshape(20, 30)
    path = png(tmp_path / "a.png", [stored], GREY, extra=[(b"sBIT", b"\x0a")])
    np.testing.assert_allclose(read_picture(path), stored / 65535, atol=1e-6)


@pytest.mark.parametrize("bits", [2, 4])
def test_two_and_four_bits_span_the_whole_range(tmp_path, bits):
    stored = (np.arange(64 * 64) % 2**bits).reshape(64, 64).astype(np.uint8)
    per_byte = 8 // bits
    packed = np.zeros((64, 64 // per_byte), dtype=np.uint8)
    for place in range(per_byte):
        packed |= stored[:, place::per_byte] << (8 - bits * (place + 1))
    content = b"".join(b"\0" + row.tobytes() for row in packed)
    header = chunk(b"IHDR", struct.pack(">2L5B", 64, 64, bits, GREY, 0, 0, 0))
    path = tmp_path / "a.png"
    data = chunk(b"IDAT", zlib.compress(content))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + data + chunk(b"IEND", b""))
    np.testing.assert_allclose(read_picture(path), stored / (2**bits - 1), atol=1e-6)


# Several pictures, and kinds that are not read


def test_animated_png_is_refused(tmp_path, phantom):
    frames = [Image.fromarray(phantom), Image.fromarray(phantom[::-1])]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    assert "2 pictures" in refusal(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("marker", "reason"), [(0xC3, "JPEG lossless is not supported"), (0xC9, "arithmetic or hierarchical")]
)
def test_jpeg_of_another_kind_is_named(tmp_path, phantom, marker, reason):
    path = save(tmp_path / "a.jpg", phantom)
    path.write_bytes(path.read_bytes().replace(b"\xff\xc0", bytes([0xFF, marker]), 1))
    assert reason in refusal(path)


def test_jpeg_of_twelve_bits_is_named(tmp_path, phantom):
    path = save(tmp_path / "a.jpg", phantom)
    content = bytearray(path.read_bytes())
    content[content.index(b"\xff\xc0") + 4] = 12
    path.write_bytes(content)
    assert "12-bit JPEG baseline is not supported" in refusal(path)


# Cut short, or damaged


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_is_read_as_pillow_reads_it(tmp_path, phantom, mode, progressive):
    path = save(tmp_path / "a.jpg", phantom, mode, quality=93, progressive=progressive)
    expected = np.asarray(Image.open(path))
    image = np.rint(read_picture(path) * 255)
    np.testing.assert_array_equal(image, expected if mode == "L" else expected[..., 1])


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("tail", [b"", b"\xff\xd9", bytes(64), bytes(64) + b"\xff\xd9"])
def test_jpeg_cut_anywhere_is_refused(tmp_path, phantom, mode, progressive, tail):
    path = save(tmp_path / "a.jpg", phantom, mode, quality=93, progressive=progressive)
    content = path.read_bytes()
    first = content.index(b"\xff\xda") + 20
    for cut in np.random.default_rng(1).integers(first, len(content) - 2, 30).tolist():
        path.write_bytes(content[:cut] + tail)
        assert "truncated or damaged" in refusal(path)


@pytest.mark.parametrize("mode", ["L", "RGB", "P"])
def test_damaged_png_is_refused(tmp_path, phantom, mode):
    path = save(tmp_path / "a.png", phantom, mode)
    content = path.read_bytes()
    for at in np.random.default_rng(2).integers(8, len(content) - 4, 40).tolist():
        path.write_bytes(content[:at] + bytes([content[at] ^ 16]) + content[at + 1 :])
        refusal(path)
        path.write_bytes(content[:at])
        refusal(path)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("read", [read_picture, read_png])
def test_png_whose_stream_ends_well_without_all_of_its_rows_is_refused(tmp_path, phantom, mode, read):
    deep = phantom.astype(np.uint16) * 16
    path = save(tmp_path / "a.png", *((deep,) if mode == "I;16" else (phantom, mode)))
    whole = read(path)
    with_lines(path, lambda lines: lines)
    if read is read_picture:
        np.testing.assert_array_equal(read(path), whole)
    for change in (lambda lines: lines[: len(lines) // 2], lambda lines: lines[:-1], lambda lines: lines + lines[:97]):
        with pytest.raises(InputError, match=r"fewer or more pixels than its header declares|truncated"):
            read(with_lines(save(tmp_path / "b.png", *((deep,) if mode == "I;16" else (phantom, mode))), change))


def test_palette_that_is_shorter_than_what_the_pixels_name_is_refused(tmp_path, phantom):
    picture = Image.fromarray(phantom).convert("P")
    picture.putpalette([level for level in range(100) for _ in range(3)])
    picture.save(tmp_path / "a.png")
    assert "its palette does not have" in refusal(with_lines(tmp_path / "a.png", lambda lines: lines))


def test_jpeg_in_a_jpeg_is_not_taken_for_it(tmp_path, phantom):
    file = io.BytesIO()
    Image.fromarray(phantom[:32, :32]).save(file, "JPEG")
    path = save(tmp_path / "a.jpg", phantom, quality=93)
    content, thumbnail = path.read_bytes(), file.getvalue()
    segment = b"\xff\xe5" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    path.write_bytes(content[:2] + segment + content[2:] + thumbnail)
    assert read_picture(path).shape == phantom.shape
