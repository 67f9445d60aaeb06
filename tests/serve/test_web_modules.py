"""Modules of the viewer in node: PNG files, averaging and windowing, heat, and the list of cases."""

from __future__ import annotations

import io
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from web_modules import JavaScriptError, call, needs_node

from pleura.data.png import png_bytes, read_png
from pleura.data.probability_png import probability_png

pytestmark = needs_node
SCENARIOS = str(Path(__file__).with_name("worklist_scenarios.mjs"))


def as_png(values: NDArray[Any]) -> NDArray[np.uint8]:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return np.frombuffer(buffer.getvalue(), np.uint8)


def filtered(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A PNG whose rows have the filters 0 to 4 in turn, by the specification."""
    columns = values.shape[1]
    lines = bytearray()
    before = np.zeros(columns, int)
    for number, row in enumerate(values.astype(int)):
        left, corner = np.concatenate([[0], row[:-1]]), np.concatenate([[0], before[:-1]])
        guess = left + before - corner
        far = np.abs(guess - left), np.abs(guess - before), np.abs(guess - corner)
        paeth = np.where((far[0] <= far[1]) & (far[0] <= far[2]), left, np.where(far[1] <= far[2], before, corner))
        minus = (0, left, before, (left + before) // 2, paeth)[number % 5]
        lines += bytes([number % 5]) + ((row - minus) % 256).astype(np.uint8).tobytes()
        before = row
    plain = png_bytes(values, "test")
    start = plain.index(b"IDAT") - 4
    data = zlib.compress(bytes(lines))
    chunk = len(data).to_bytes(4, "big") + b"IDAT" + data + zlib.crc32(b"IDAT" + data).to_bytes(4, "big")
    return np.frombuffer(plain[:start] + chunk + plain[-12:], np.uint8)


NOISE = np.random.default_rng(2).integers(0, 256, (31, 17)).astype(np.uint8)


@pytest.mark.parametrize("values", [NOISE, NOISE.astype(np.uint16) * 255 + 3], ids=["8 bits", "16 bits"])
def test_a_grey_png_is_read_sample_by_sample(values: NDArray[Any]) -> None:
    [found] = call("png.js", ("readPng", (as_png(values),)))
    assert (found["columns"], found["rows"]) == values.shape[::-1]
    [samples] = found["channels"]
    np.testing.assert_array_equal(samples.reshape(values.shape), values)
    assert samples.dtype == values.dtype


def test_every_filter_of_a_png_is_read() -> None:
    png = filtered(NOISE)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png.tobytes()))), NOISE)
    [found] = call("png.js", ("readPng", (png,)))
    np.testing.assert_array_equal(found["channels"][0].reshape(NOISE.shape), NOISE)


def test_a_map_of_probabilities_is_read() -> None:
    probabilities = np.linspace(0, 1, 600, dtype=np.float32).reshape(20, 30)
    png = np.frombuffer(probability_png(probabilities, 900, "pleura"), np.uint8)
    [found] = call("png.js", ("readPng", (png,)))
    np.testing.assert_array_equal(
        found["channels"][0], np.minimum(256 * probabilities.reshape(-1), 255).astype(np.uint8)
    )


@pytest.mark.parametrize("end", [-1, -13, -30, 40, 8])
def test_a_png_that_is_cut_short_is_refused(end: int) -> None:
    with pytest.raises(JavaScriptError, match=r"it is cut short|fewer or more pixels"):
        call("png.js", ("readPng", (as_png(NOISE)[:end],)))


@pytest.mark.parametrize("at", [0, 16, 20, 60])
def test_a_png_that_is_damaged_is_refused(at: int) -> None:
    png = as_png(NOISE).copy()
    png[at] ^= 1
    with pytest.raises(JavaScriptError, match=r"does not begin as a PNG does|wrong checksum"):
        call("png.js", ("readPng", (png,)))


def test_a_mask_is_written_as_a_png_that_others_read(tmp_path: Path) -> None:
    mask = (NOISE > 128).astype(np.uint8) * np.uint8(255)
    [png] = call("png.js", ("encodePng", (mask.reshape(-1), 17, 31)))
    (tmp_path / "mask.png").write_bytes(png.tobytes())
    np.testing.assert_array_equal(read_png(tmp_path / "mask.png").samples[..., 0], mask)


def test_a_smaller_radiograph_is_the_mean_of_its_pixels() -> None:
    values = np.random.default_rng(0).integers(0, 65536, (600, 1001)).astype(np.uint16)
    [levels] = call("pyramid.js", ("pyramidOf", (values.reshape(-1), 1001, 600)))
    assert [(one["columns"], one["rows"]) for one in levels] == [(1001, 600), (501, 300), (251, 150)]
    np.testing.assert_array_equal(levels[0]["grey"].reshape(600, 1001), values)
    wide = np.pad(values, ((0, 0), (0, 1)), mode="edge").astype(int)
    expected = (wide[::2, ::2] + wide[1::2, ::2] + wide[::2, 1::2] + wide[1::2, 1::2] + 2) // 4
    np.testing.assert_array_equal(levels[1]["grey"].reshape(300, 501), expected)


@pytest.mark.parametrize("inverted", [False, True])
def test_a_window_acts_on_grey_values_and_not_on_their_upper_8_bits(inverted: bool) -> None:
    grey, values = np.zeros(1, np.uint16), np.arange(65536)
    [found] = call("pyramid.js", ("shadesOf", (grey, {"center": 2048, "width": 64}, inverted)))
    expected = np.clip((values - 2048) / 64 + 0.5, 0, 1) * 255
    expected = 255 - expected if inverted else expected
    assert np.abs((found & 255) - expected).max() <= 0.5
    assert len(np.unique(found[2016:2081])) == 65
    for shift in (8, 16):
        np.testing.assert_array_equal((found >> shift) & 255, found & 255)
    assert (found >> 24 == 255).all()


def test_a_curve_is_followed_between_its_steps() -> None:
    curve = np.array([0, 200, 220, 255], np.uint8)
    window = {"center": 150, "width": 300, "curve": {"u8": "AMjc/w=="}}
    [found] = call("pyramid.js", ("shadesOf", (np.zeros(1, np.uint8), window, False)))
    expected = np.interp(np.arange(256), np.linspace(0, 300, 4), curve)
    assert np.abs((found & 255) - expected).max() <= 0.5


def test_heat_shows_the_highest_probability_of_what_it_joins() -> None:
    levels = np.zeros((2050, 1100), np.uint8)
    levels[2049, 1099] = 255
    levels[1000, 500] = 128
    [heat] = call("heat.js", ("heatOf", (levels.reshape(-1), 1100, 2050)))
    assert (heat["columns"], heat["rows"], heat["covers"]) == (367, 684, [1101, 2052])
    opacity = heat["pixels"].reshape(684, 367, 4)[..., 3]
    assert opacity[683, 366] == opacity[333, 166] > 80
    assert np.count_nonzero(opacity) == 2


def test_picked_files_are_in_the_order_of_their_names_and_too_many_are_refused_and_not_cut_short() -> None:
    picked = [{"name": name} for name in ("b10", "b9", ".hidden", "DICOMDIR", "a")]
    assert [one["name"] for one in call("files.js", ("pickedFiles", (picked,)))[0]] == ["a", "b9", "b10"]
    many = [{"name": str(number)} for number in range(2000)]
    assert len(call("files.js", ("pickedFiles", (many,)))[0]) == 2000
    with pytest.raises(JavaScriptError, match="more than 2000 files: open them in parts"):
        call("files.js", ("pickedFiles", ([*many, {"name": "one more"}],)))


def scenario(name: str) -> Any:
    return call(SCENARIOS, (name, ()))[0]


def test_no_more_files_are_asked_for_at_a_time_than_the_source_takes_and_the_shown_one_comes_first() -> None:
    found = scenario("slow")
    assert found["first"] == ["a", "b"]
    assert found["then"] == ["a", "b", "d"]
    assert found["states"] == ["done", "working", "waiting", "working"]


def test_a_busy_service_is_asked_again() -> None:
    assert scenario("busy") == {"calls": 3}


def test_without_a_key_nothing_goes_on_and_with_one_all_does() -> None:
    found = scenario("key")
    assert found["before"] == {"calls": 2, "keys": 2, "states": ["waiting"] * 4}
    assert found["states"] == ["done"] * 4


def test_a_file_that_fails_says_why_and_others_go_on() -> None:
    refused, fault, done = scenario("failing")
    assert refused == {"state": "refused", "problem": "is truncated"}
    assert fault == {"state": "refused", "problem": "a fault of this page: grey and levels are rows * columns"}
    assert done["state"] == "done"


def test_pixels_of_cases_far_away_are_dropped_and_asked_for_again() -> None:
    found = scenario("memory")
    assert found["kept"] == [True, True, True, False, False]
    assert found["then"] == [False, True, True, False, True]
    assert found["asked"] == ["a", "b", "c", "d", "e", "e"]
    assert found["results"]


def test_closing_all_gives_up_what_is_not_answered() -> None:
    assert scenario("closed") == {"aborted": [True, True], "problems": [None, None], "left": 0}
