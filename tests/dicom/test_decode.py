"""Compressed pixels: read as an independent decoder reads them, or refused with the reason."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, encapsulate_extended, generate_frames

from pleura.data.phantoms.radiographs import make_phantom
from pleura.dicom.decode import as_stored
from pleura.dicom.read import read_dicom
from pleura.errors import InputError

ROWS, COLUMNS = np.mgrid[:64, :48]
RAMP_8 = (ROWS * 3 + COLUMNS).astype(np.uint8)
RAMP_12 = (ROWS * 60 + COLUMNS * 5).astype(np.uint16)
EIGHT_BITS = [uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit]
LOSSLESS = [uid.JPEGLossless, uid.JPEGLosslessSV1, uid.JPEGLSLossless, uid.JPEG2000Lossless, uid.RLELossless]
COMPRESSED = [*EIGHT_BITS, *LOSSLESS, uid.JPEGLSNearLossless, uid.JPEG2000]
FIRST_BYTE_OF_A_SCAN = {uid.JPEG2000: b"\xff\x93", uid.JPEG2000Lossless: b"\xff\x93"}


@pytest.fixture(scope="module")
def phantom() -> np.ndarray:
    return np.rint(make_phantom(3, 96, True).image * 255).astype(np.uint8)


def name_of(syntax: uid.UID) -> str:
    return syntax.keyword


def frame_of(path: Path) -> bytes:
    return next(generate_frames(pydicom.dcmread(path).PixelData, number_of_frames=1))


def with_frames(path: Path, *frames: bytes, has_bot: bool = True, **attributes: Any) -> Path:
    dataset = pydicom.dcmread(path)
    dataset.PixelData = encapsulate(list(frames), has_bot=has_bot)
    dataset["PixelData"].is_undefined_length = True
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    dataset.save_as(path)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_dicom(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


def levels(path: Path) -> np.ndarray:
    return np.rint(read_dicom(path).image * 255)


def by_gdcm(path: Path) -> np.ndarray:
    """The stored values as GDCM decodes them."""
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    assert reader.Read()
    image = reader.GetImage()
    kind = {gdcm.PixelFormat.UINT8: "u1", gdcm.PixelFormat.UINT16: "u2", gdcm.PixelFormat.INT16: "i2"}
    content = image.GetBuffer().encode("utf-8", "surrogateescape")
    return np.frombuffer(content, kind[image.GetPixelFormat().GetScalarType()]).reshape(image.GetDimension(1), -1)


# Cut short, or damaged


def cuts(frame: bytes, syntax: uid.UID, count: int) -> list[int]:
    start = frame.index(FIRST_BYTE_OF_A_SCAN.get(syntax, b"\xff\xda" if syntax != uid.RLELossless else b"")) + 16
    return np.random.default_rng(5).integers(start, len(frame) - 2, count).tolist()


@pytest.mark.parametrize("syntax", COMPRESSED, ids=name_of)
@pytest.mark.parametrize("end", ["", "end of image", "zeros"])
def test_frame_cut_anywhere_is_refused_even_where_an_end_follows(write_dicom, phantom, syntax, end, capfd):
    path = write_dicom(phantom, syntax=syntax)
    frame = frame_of(path)
    tails = {"": b"", "end of image": b"\xff\xd9", "zeros": bytes(64)}
    for cut in cuts(frame, syntax, 25):
        if syntax == uid.RLELossless and end:
            continue
        assert "truncated or damaged" in refusal(with_frames(path, frame[:cut] + tails[end]))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("open_length", [False, True])
def test_cut_jpeg_2000_is_refused_where_its_tile_part_says_the_shorter_length(write_dicom, phantom, open_length):
    path = write_dicom(phantom, syntax=uid.JPEG2000Lossless)
    frame = frame_of(path)
    tile = frame.index(b"\xff\x90\0\x0a")
    for cut in cuts(frame, uid.JPEG2000Lossless, 25):
        length = struct.pack(">L", 0 if open_length else cut - tile)
        assert "truncated" in refusal(
            with_frames(path, frame[: tile + 6] + length + frame[tile + 10 : cut] + b"\xff\xd9")
        )


@pytest.mark.parametrize("syntax", [*EIGHT_BITS, uid.JPEGLosslessSV1], ids=name_of)
def test_damage_of_which_the_jpeg_library_warns_is_refused(write_dicom, phantom, syntax, capfd):
    path = write_dicom(phantom, syntax=syntax)
    frame = frame_of(path)
    for cut in cuts(frame, syntax, 10):
        assert "do not decode" in refusal(with_frames(path, frame[:cut] + b"\x35" * 40 + b"\xff\xd9"))
    assert capfd.readouterr() == ("", "")


def test_jpeg_2000_that_claims_billions_of_tiles_is_refused_without_counting_them(write_dicom):
    path = write_dicom(RAMP_8, syntax=uid.JPEG2000Lossless)
    frame = bytearray(frame_of(path))
    frame[8:16] = struct.pack(">2L", 2**31, 2**31)  # the size of the image
    frame[24:32] = struct.pack(">2L", 1, 1)  # and of a tile
    assert "tiles are missing" in refusal(with_frames(path, bytes(frame)))


def test_progressive_jpeg_without_its_last_scans_is_refused(write_dicom, phantom):
    path = write_dicom(phantom, syntax=uid.JPEGBaseline8Bit)
    file = io.BytesIO()
    Image.fromarray(phantom).save(file, "JPEG", quality=95, progressive=True)
    progressive = file.getvalue()
    scans = [match.start() for match in re.finditer(rb"\xff\xda", progressive)]
    assert len(scans) > 3
    whole = np.asarray(Image.open(io.BytesIO(progressive)))
    np.testing.assert_array_equal(levels(with_frames(path, progressive)), whole)
    for scan in scans[1:]:
        assert "scans are missing" in refusal(with_frames(path, progressive[:scan] + b"\xff\xd9"))


# Read as another decoder reads it


@pytest.mark.parametrize("syntax", COMPRESSED, ids=name_of)
@pytest.mark.parametrize("tail", [b"", b"\0", b"\0\0\0\0", b"\x20"])
def test_padding_after_the_end_of_a_frame_is_no_part_of_it(write_dicom, phantom, syntax, tail):
    path = write_dicom(phantom, syntax=syntax)
    expected = pydicom.dcmread(path).pixel_array
    frame = frame_of(path)
    if syntax == uid.RLELossless and tail == b"\x20":
        pytest.skip("it would be a run, where no marker ends the image")
    end = len(frame) if syntax == uid.RLELossless else frame.rindex(b"\xff\xd9") + 2
    np.testing.assert_array_equal(levels(with_frames(path, frame[:end] + tail)), expected)


@pytest.mark.parametrize("syntax", [uid.JPEG2000, uid.JPEG2000Lossless], ids=name_of)
@pytest.mark.parametrize("tail", [b"", b"\0", b"\0\0\0"])
def test_tile_part_may_leave_its_length_open(write_dicom, phantom, syntax, tail):
    path = write_dicom(phantom, syntax=syntax)
    expected = by_gdcm(path)
    frame = frame_of(path)
    tile = frame.index(b"\xff\x90\0\x0a")
    end = frame.rindex(b"\xff\xd9") + 2
    opened = frame[: tile + 6] + bytes(4) + frame[tile + 10 : end] + tail
    np.testing.assert_array_equal(levels(with_frames(path, opened)), expected)


@pytest.mark.parametrize("syntax", LOSSLESS, ids=name_of)
@pytest.mark.parametrize("has_bot", [True, False])
def test_frame_in_several_fragments_is_one_frame(write_dicom, phantom, syntax, has_bot):
    path = write_dicom(phantom, syntax=syntax)
    dataset = pydicom.dcmread(path)
    dataset.PixelData = encapsulate([frame_of(path)], fragments_per_frame=3, has_bot=has_bot)
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path)
    np.testing.assert_array_equal(levels(path), phantom)


def test_signed_jpeg_2000_is_signed_whatever_pixel_representation_says(write_dicom):
    signed = RAMP_12.astype(np.int16) - 2000
    path = write_dicom(signed, syntax=uid.ExplicitVRLittleEndian, WindowCenter=0, WindowWidth=2001)
    expected = read_dicom(path).image
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(path))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEG2000Lossless))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    for representation in (1, 0):
        dataset = pydicom.dcmread(path)
        dataset.PixelRepresentation = representation
        dataset.save_as(path)
        np.testing.assert_array_equal(read_dicom(path).image, expected)


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, *LOSSLESS], ids=name_of)
@pytest.mark.parametrize("signed", [False, True])
def test_bits_above_high_bit_are_no_part_of_the_image_in_any_transfer_syntax(write_dicom, syntax, signed):
    if signed and syntax == uid.JPEG2000Lossless:
        pytest.skip("Pillow writes no signed JPEG 2000; the test above has one of GDCM")
    stored = (RAMP_12.astype(np.int32) - (2048 if signed else 0)) & 0xFFF
    overlay = np.where(COLUMNS % 7 == 0, 0x8000, 0)
    path = write_dicom((stored | overlay).astype(np.int16 if signed else np.uint16), syntax=syntax)
    dataset = pydicom.dcmread(path)
    dataset.BitsStored, dataset.HighBit = 12, 11
    dataset.save_as(path)
    np.testing.assert_allclose(read_dicom(path).image, RAMP_12 / RAMP_12.max(), atol=1e-6)


def with_sizes(frame: bytes, sizes: int) -> bytes:
    """Say another depth and sign in the header of a JPEG 2000, of one component."""
    at = frame.index(b"\xff\x51") + 40
    return frame[:at] + bytes([sizes]) + frame[at + 1 :]


def test_signed_jpeg_2000_of_values_without_a_sign_is_as_pixel_representation_says(write_dicom):
    # 0 of a signed range lies in its middle: shifted there, the values are those of an int16 array.
    path = write_dicom(RAMP_12 + 0x8000, syntax=uid.JPEG2000Lossless)
    path = with_frames(path, with_sizes(frame_of(path), 0x8F), BitsStored=12, HighBit=11)
    np.testing.assert_allclose(read_dicom(path).image, RAMP_12 / RAMP_12.max(), atol=1e-6)


@given(st.integers(2, 16), st.sampled_from([0, 1]), st.integers(-(2**15), 2**16 - 1), st.integers(0, 2**16 - 1))
def test_bits_above_bits_stored_never_count_and_the_sign_is_extended(bits, signed, value, above):
    header = Dataset()
    header.BitsStored, header.PixelRepresentation = bits, signed
    low = -(2 ** (bits - 1)) if signed else 0
    right = (value - low) % 2**bits + low
    dirty = np.array([[(right % 2**bits) | (above << bits) & 0xFFFF]], dtype=np.uint16)
    for pixels in (dirty, dirty.view(np.int16), np.array([[right]])):
        assert as_stored(pixels, header).item() == right


@pytest.mark.parametrize("syntax", [uid.JPEG2000, uid.JPEG2000Lossless], ids=name_of)
def test_what_a_lossy_codec_overshoots_is_cut_off_and_does_not_wrap(write_dicom, syntax):
    stored = np.where(COLUMNS < 24, 0, RAMP_12 % 256 + 3800).astype(np.uint16)
    stored[20, 10:13] = 4100  # as an overshoot would be, in the 16 bits of the codestream
    path = write_dicom(stored, syntax=uid.JPEG2000)
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.BitsStored, dataset.HighBit, dataset.WindowCenter, dataset.WindowWidth = 12, 11, 2048, 4096
    dataset.save_as(path)
    np.testing.assert_allclose(read_dicom(path).image, stored.clip(max=4095) / 4095, atol=0.01)


def test_small_overlay_that_was_compressed_with_loss_is_refused(write_dicom):
    stored = RAMP_12.copy()
    stored[20:22, 20:24] |= 0x8000
    path = write_dicom(stored, syntax=uid.JPEG2000)
    assert "exceed Bits Stored" in refusal(with_frames(path, frame_of(path), BitsStored=12, HighBit=11))


def test_lossy_values_keep_their_sign_in_a_codestream_without_one(write_dicom):
    signed = np.where(COLUMNS < 24, -1000, 1000).astype(np.int16)
    path = write_dicom(signed.view(np.uint16), syntax=uid.JPEG2000, WindowCenter=0, WindowWidth=4096)
    path = with_frames(path, frame_of(path), PixelRepresentation=1, BitsStored=12, HighBit=11)
    np.testing.assert_allclose(read_dicom(path).image, (signed + 2048) / 4095, atol=0.01)


@pytest.mark.parametrize("shape", [(5, 7), (64, 48), (3, 300)])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_rle_gives_the_stored_values(write_dicom, shape, kind):
    stored = np.random.default_rng(2).integers(0, 3, shape).astype(kind) * 80
    stored[0] = 7
    path = write_dicom(stored, syntax=uid.RLELossless, WindowCenter=128, WindowWidth=256)
    np.testing.assert_array_equal(levels(path), stored)


# Header against codestream


CLAIMS: dict[str, Callable[[Dataset], None]] = {
    "a row more": lambda dataset: setattr(dataset, "Rows", 65),
    "a row less": lambda dataset: setattr(dataset, "Rows", 63),
    "a column more": lambda dataset: setattr(dataset, "Columns", 49),
    "a column less": lambda dataset: setattr(dataset, "Columns", 47),
    "half the columns": lambda dataset: setattr(dataset, "Columns", 24),
}


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, *COMPRESSED], ids=name_of)
@pytest.mark.parametrize("claim", CLAIMS)
@pytest.mark.parametrize("stored", [RAMP_8, RAMP_12], ids=["8 bits", "12 bits"])
def test_size_that_is_not_the_codestreams_is_refused(write_dicom, syntax, claim, stored):
    if stored is RAMP_12 and (syntax in EIGHT_BITS or syntax == uid.JPEG2000):
        stored = RAMP_8
    path = write_dicom(stored, syntax=syntax)
    dataset = pydicom.dcmread(path)
    CLAIMS[claim](dataset)
    dataset.save_as(path)
    refusal(path)


def test_last_row_of_zeros_is_no_padding(write_dicom):
    stored = RAMP_8.copy()
    stored[-1] = 0
    assert "the size in its header is wrong" in refusal(write_dicom(stored, Columns=47))
    assert "the size in its header is wrong" in refusal(write_dicom(stored, Rows=63))


@pytest.mark.parametrize("tail", [b"\0", b"\x20", bytes(11)])
def test_native_pixels_may_be_padded(write_dicom, tail):
    odd = RAMP_8[:33, :31]
    np.testing.assert_array_equal(levels(write_dicom(odd, PixelData=odd.tobytes() + tail)), odd)


@pytest.mark.parametrize(
    ("stored", "syntax", "attributes", "reason"),
    [
        (RAMP_8, uid.JPEGBaseline8Bit, {"BitsAllocated": 16}, "8 bits, its header says Bits Allocated 16"),
        (RAMP_8, uid.JPEGBaseline8Bit, {"BitsStored": 7, "HighBit": 6}, "8 bits, its header says"),
        (RAMP_12, uid.JPEGLosslessSV1, {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}, "16 bits"),
        (RAMP_12, uid.JPEGLSLossless, {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}, "16 bits"),
        (RAMP_12, uid.JPEG2000Lossless, {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}, "16 bits"),
        (RAMP_12, uid.RLELossless, {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}, "2 segments"),
        (RAMP_8, uid.RLELossless, {"BitsAllocated": 16}, "1 segments"),
        (RAMP_8, uid.JPEGLosslessSV1, {"BitsAllocated": 16, "BitsStored": 12, "HighBit": 11}, "8 bits"),
        (
            RAMP_8,
            uid.JPEG2000Lossless,
            {"PixelRepresentation": 1, "BitsAllocated": 16, "BitsStored": 16, "HighBit": 15},
            "8 bits",
        ),
    ],
)
def test_depth_that_is_not_the_codestreams_is_refused(write_dicom, stored, syntax, attributes, reason):
    path = write_dicom(stored, syntax=syntax)
    assert reason in refusal(with_frames(path, frame_of(path), **attributes))


def test_lossy_values_beyond_bits_stored_are_refused_and_not_wrapped(write_dicom):
    path = write_dicom(RAMP_8, syntax=uid.JPEG2000)
    assert "exceed Bits Stored" in refusal(with_frames(path, frame_of(path), BitsStored=7, HighBit=6))


def test_jpeg_in_colour_under_a_grey_header_is_refused(write_dicom):
    path = write_dicom(RAMP_8, syntax=uid.JPEGBaseline8Bit)
    file = io.BytesIO()
    Image.fromarray(RAMP_8).convert("RGB").save(file, "JPEG")
    assert "3 sample(s)" in refusal(with_frames(path, file.getvalue()))


# Transfer syntax against codestream


def test_baseline_stream_under_a_lossless_syntax_is_named(write_dicom):
    path = write_dicom(RAMP_8, syntax=uid.JPEGLosslessSV1)
    file = io.BytesIO()
    Image.fromarray(RAMP_8).save(file, "JPEG")
    assert "are JPEG baseline, but its transfer syntax says JPEG Lossless" in refusal(
        with_frames(path, file.getvalue())
    )


@pytest.mark.parametrize("said", [uid.JPEGBaseline8Bit, uid.JPEGLSLossless, uid.JPEG2000Lossless], ids=name_of)
@pytest.mark.parametrize("syntax", [uid.JPEGBaseline8Bit, uid.JPEGLosslessSV1, uid.JPEGLSLossless, uid.JPEG2000])
def test_codestream_of_another_transfer_syntax_is_refused(write_dicom, said, syntax):
    path = write_dicom(RAMP_8, syntax=syntax)
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = said
    dataset.save_as(path)
    if said == syntax or (said, syntax) == (uid.JPEG2000Lossless, uid.JPEG2000):
        np.testing.assert_allclose(levels(path), RAMP_8, atol=4)
    else:
        assert "but its transfer syntax says" in refusal(path)


@pytest.mark.parametrize("said", [b"1.2.840.10008.1.2.1", b"1.2.840.10008.1.2"])
@pytest.mark.parametrize("syntax", [uid.JPEGBaseline8Bit, uid.RLELossless], ids=name_of)
def test_encapsulated_pixels_under_an_uncompressed_syntax_are_named(write_dicom, syntax, said):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8)
    path = write_dicom(noise, syntax=syntax)
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = uid.UID(said.decode())
    data = dataset.PixelData
    del dataset.PixelData
    dataset.add_new("PixelData", "OB", data)
    dataset.save_as(path, implicit_vr=said.endswith(b".2"), little_endian=True)
    assert "its pixels are compressed, but its transfer syntax" in refusal(path)


@pytest.mark.parametrize("syntax", COMPRESSED, ids=name_of)
@pytest.mark.parametrize("size", [8, 64])
def test_codestream_that_is_not_encapsulated_is_named(write_dicom, syntax, size):
    noise = np.random.default_rng(0).integers(0, 256, (size, size)).astype(np.uint8)
    frame = frame_of(write_dicom(noise, syntax=syntax))
    path = write_dicom(noise, "bare.dcm", PixelData=frame)
    assert "its pixels are compressed, but its transfer syntax" in refusal(path)
    assert "its pixels are compressed, but not encapsulated" in refusal(rewrite_syntax(path, syntax))


@pytest.mark.parametrize(
    ("syntax", "said", "named"),
    [
        (uid.JPEGBaseline8Bit, uid.RLELossless, "JPEG baseline"),
        (uid.JPEGLSLossless, uid.RLELossless, "JPEG-LS"),
        (uid.JPEG2000, uid.RLELossless, "JPEG 2000"),
        (uid.RLELossless, uid.JPEGBaseline8Bit, "RLE"),
        (uid.RLELossless, uid.JPEG2000, "RLE"),
    ],
)
def test_rle_beside_another_transfer_syntax_is_named(write_dicom, syntax, said, named):
    path = rewrite_syntax(write_dicom(RAMP_8, syntax=syntax), said)
    assert f"its pixels are {named}, but its transfer syntax says {said.name}" in refusal(path)


@pytest.mark.parametrize("syntax", COMPRESSED, ids=name_of)
def test_native_pixels_under_a_compressed_syntax_are_named(write_dicom, syntax):
    path = write_dicom(RAMP_8)
    path.write_bytes(
        path.read_bytes().replace(b"1.2.840.10008.1.2.1\0", syntax.encode().ljust(20, b"\0")[:20], 1)
    ) if len(syntax) <= 20 else rewrite_syntax(path, syntax)
    assert "its pixels are not compressed" in refusal(path)


def rewrite_syntax(path: Path, syntax: str) -> Path:
    """Put another transfer syntax into a file and leave all else as it is."""
    content = path.read_bytes()
    start = content.index(b"\x02\0\x10\0UI")
    size = struct.unpack_from("<H", content, start + 6)[0]
    value = syntax.encode() + b"\0" * (len(syntax) % 2)
    length = struct.unpack_from("<L", content, 140)[0] + len(value) - size
    element = content[start : start + 6] + struct.pack("<H", len(value)) + value
    content = content[:140] + struct.pack("<L", length) + content[144:start] + element + content[start + 8 + size :]
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("syntax", "reason"),
    [
        ("1.2.840.113619.5.2", "private transfer syntax 1.2.840.113619.5.2 is not supported"),
        ("1.2.840.10008.1.2.4.999", "transfer syntax 1.2.840.10008.1.2.4.999 is not supported"),
        (uid.HTJ2KLossless, "High-Throughput JPEG 2000"),
        (uid.MPEG2MPML, "MPEG2"),
    ],
)
def test_transfer_syntax_that_is_not_supported_is_named(write_dicom, syntax, reason):
    message = refusal(rewrite_syntax(write_dicom(RAMP_8), syntax))
    assert reason in message
    assert "convert it" in message


def test_high_throughput_inside_jpeg_2000_is_named(write_dicom):
    path = write_dicom(RAMP_8, syntax=uid.JPEG2000Lossless)
    frame = frame_of(path)
    end_of_size = 4 + struct.unpack_from(">H", frame, 4)[0]
    capabilities = b"\xff\x50\0\x08" + struct.pack(">LH", 1 << 17, 0)
    high = frame[:end_of_size] + capabilities + frame[end_of_size:]
    assert "are High-Throughput JPEG 2000" in refusal(with_frames(path, high))


@pytest.mark.parametrize("bits", [6, 7])
def test_jpeg_ls_of_six_or_seven_bits_is_named(write_dicom, bits):
    path = write_dicom(RAMP_8 // 4, syntax=uid.JPEGLSLossless)
    path = with_frames(path, frame_of(path), BitsStored=bits, HighBit=bits - 1)
    assert f"{bits}-bit JPEG-LS is not supported" in refusal(path)


@pytest.mark.parametrize("bits", [1, 7])
@pytest.mark.parametrize("syntax", [uid.JPEGLossless, uid.JPEGLosslessSV1], ids=name_of)
def test_jpeg_lossless_of_less_than_eight_bits_is_named_where_gdcm_would_end_the_process(write_dicom, syntax, bits):
    path = write_dicom(RAMP_8 >> (8 - bits), syntax=syntax)
    path = with_frames(path, frame_of(path), BitsStored=bits, HighBit=bits - 1)
    assert f"{bits}-bit JPEG lossless is not supported" in refusal(path)


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.JPEGBaseline8Bit], ids=name_of)
def test_empty_pixel_data_is_named(write_dicom, syntax):
    path = rewrite_syntax(write_dicom(RAMP_8, PixelData=b""), syntax)
    assert "its Pixel Data is empty" in refusal(path)


# Frames that are not announced


@pytest.mark.parametrize("stated", [None, 1, 0])
@pytest.mark.parametrize("table", ["basic", "none", "extended", "one fragment"])
@pytest.mark.parametrize("syntax", COMPRESSED, ids=name_of)
def test_second_frame_is_never_left_out_in_silence(write_dicom, syntax, table, stated):
    path = write_dicom(RAMP_8, syntax=syntax)
    frame = frame_of(path)
    attributes: dict[str, Any] = {} if stated is None else {"NumberOfFrames": stated}
    if table == "one fragment":
        end = len(frame) if syntax == uid.RLELossless else frame.rindex(b"\xff\xd9") + 2
        path = with_frames(path, frame[:end] + frame, has_bot=False, **attributes)
    else:
        path = with_frames(path, frame, frame, has_bot=table == "basic", **attributes)
    if table == "extended":
        dataset = pydicom.dcmread(path)
        dataset.PixelData, dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths = encapsulate_extended(
            [frame, frame]
        )
        dataset["PixelData"].is_undefined_length = True
        dataset.save_as(path)
    message = refusal(path)
    assert "it holds 2 frames, although Number of Frames" in message
    assert "export one radiograph per file" in message


@pytest.mark.parametrize("stored", [RAMP_8, RAMP_12], ids=["8 bits", "12 bits"])
@pytest.mark.parametrize("stated", [{}, {"NumberOfFrames": 1}])
def test_second_native_frame_is_never_left_out_in_silence(write_dicom, stored, stated):
    path = write_dicom(stored, PixelData=stored.tobytes() * 2, **stated)
    assert "it holds 2 frames, although Number of Frames" in refusal(path)


@pytest.mark.parametrize("has_bot", [True, False])
@pytest.mark.parametrize("fragments", [1, 2])
def test_second_frame_in_the_boxes_of_a_jp2_file_is_never_left_out_in_silence(write_dicom, has_bot, fragments):
    file = io.BytesIO()
    Image.fromarray(RAMP_8).save(file, "JPEG2000", irreversible=False)
    boxed = file.getvalue() + b"\0" * (len(file.getvalue()) % 2)
    path = write_dicom(RAMP_8, syntax=uid.JPEG2000Lossless)
    np.testing.assert_array_equal(levels(with_frames(path, boxed)), RAMP_8)
    frames = [boxed, boxed] if fragments == 2 else [boxed + boxed]
    assert "it holds 2 frames, although Number of Frames" in refusal(with_frames(path, *frames, has_bot=has_bot))


@pytest.mark.parametrize("stated", ["-1", "1\\1"])
def test_one_frame_is_read_whatever_number_of_frames_says(write_dicom, stated):
    path = write_dicom(RAMP_8)
    dataset = pydicom.dcmread(path)
    dataset.NumberOfFrames = stated.split("\\")
    dataset.save_as(path)
    np.testing.assert_array_equal(levels(path), RAMP_8)


def test_run_lengths_of_values_that_may_be_signed_are_refused(write_dicom):
    path = write_dicom(RAMP_8, syntax=uid.RLELossless)
    dataset = pydicom.dcmread(path)
    del dataset.PixelRepresentation
    dataset.save_as(path)
    with pytest.raises(InputError, match="it has no Pixel Representation, which says whether its values are signed"):
        read_dicom(path)


def test_run_that_names_more_bytes_than_its_segment_has_is_refused(write_dicom):
    path = write_dicom(np.arange(64, dtype=np.uint8).reshape(8, 8), syntax=uid.RLELossless)
    dataset = pydicom.dcmread(path)
    frame = bytearray(frame_of(path))
    frame[-9] += 3  # the literal of the last row names 11 bytes, and 8 are there
    dataset.PixelData = encapsulate([bytes(frame)])
    dataset.save_as(path)
    with pytest.raises(InputError, match="names more bytes than there are"):
        read_dicom(path)
