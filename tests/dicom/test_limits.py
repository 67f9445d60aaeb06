"""Size: what a file claims is held against the limit before anything is decoded."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import uid

from pleura.data.radiograph import pixels_of, read_radiograph
from pleura.dicom import limits
from pleura.errors import InputError

RAMP = np.arange(24 * 16, dtype=np.uint8).reshape(24, 16)
SYNTAXES = [uid.ImplicitVRLittleEndian, uid.DeflatedExplicitVRLittleEndian, uid.JPEGBaseline8Bit, uid.RLELossless]


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_radiograph(path)
    return str(caught.value)


def picture(path: Path) -> Path:
    Image.fromarray(RAMP).save(path)
    return path


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.keyword)
def test_pixels_of_a_dicom_are_its_rows_by_its_columns(write_dicom, syntax):
    assert pixels_of(write_dicom(RAMP, syntax=syntax)) == 24 * 16


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_pixels_of_a_picture_are_its_height_by_its_width(tmp_path, name):
    assert pixels_of(picture(tmp_path / name)) == 24 * 16


@pytest.mark.parametrize(
    "content", [b"", b"no radiograph", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"\0" * 128 + b"DICM"]
)
def test_file_that_does_not_say_has_no_pixels(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    assert pixels_of(tmp_path / "a") == 0
    assert pixels_of(tmp_path / "absent") == 0


def test_limit_is_a_setting(write_dicom, tmp_path, monkeypatch):
    paths = [write_dicom(RAMP), picture(tmp_path / "a.png"), picture(tmp_path / "a.jpg")]
    monkeypatch.setenv(limits.SETTING, "0.000384")
    for path in paths:
        assert read_radiograph(path).image.shape == (24, 16)
    monkeypatch.setenv(limits.SETTING, "0.000383")
    for path in paths:
        assert "24 x 16 pixels are more than" in refusal(path)
        assert limits.SETTING in refusal(path)


@pytest.mark.parametrize("value", ["many", "0", "-1", "nan", "inf"])
def test_limit_that_is_no_number_is_refused(write_dicom, monkeypatch, value):
    monkeypatch.setenv(limits.SETTING, value)
    assert f"{limits.SETTING} is '{value}'" in refusal(write_dicom(RAMP))


def test_claim_above_the_limit_is_refused_before_it_is_decoded(write_dicom):
    path = write_dicom(RAMP, syntax=uid.JPEGBaseline8Bit, Rows=12_000, Columns=12_000)
    assert "12000 x 12000 pixels are more than the 30 million" in refusal(path)


def test_deflated_dataset_that_would_fill_the_memory_is_refused(write_dicom, monkeypatch):
    path = write_dicom(RAMP, syntax=uid.DeflatedExplicitVRLittleEndian)
    content = path.read_bytes()
    start = content.rindex(b"1.2.840.10008.1.2.1.99")
    deflated = content.index(b"\x02\0\x12\0", start)
    start = deflated + 8 + content[deflated + 6]
    while content[start : start + 2] == b"\x02\0":
        start += 8 + content[start + 6]
    dataset = zlib.decompress(content[start:], -15)
    deflater = zlib.compressobj(wbits=-15)
    bomb = deflater.compress(dataset + b"\x09\0\x10\0LO\x04\0NONE" + b"\x09\0\x00\x10OB\0\0\0\0\0\x10")
    for _ in range(256):
        bomb += deflater.compress(bytes(2**20))
    path.write_bytes(content[:start] + bomb + deflater.flush())
    assert path.stat().st_size < 2**19
    assert "inflates to more than" in refusal(path)
    assert pixels_of(path) == 0


def test_file_far_larger_than_a_radiograph_is_refused_by_its_header(write_dicom, monkeypatch):
    monkeypatch.setattr(limits, "_OTHER_BYTES", 0)
    monkeypatch.setenv(limits.SETTING, "0.000384")
    assert "MB are more than" in refusal(write_dicom(RAMP, PixelData=bytes(4096)))
    assert "3 frames" in refusal(write_dicom(RAMP, PixelData=bytes(4096), NumberOfFrames=3))
