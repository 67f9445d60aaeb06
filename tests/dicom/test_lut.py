"""Look-up tables: scaled by what they hold, and looked up by the sign of what goes in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from pleura.dicom.lut import Table
from pleura.dicom.read import read_dicom
from pleura.errors import InputError

ROWS, COLUMNS = np.mgrid[:64, :64]
RAMP = (ROWS * 64 + COLUMNS).astype(np.uint16)
UP, DOWN = np.arange(4096), np.arange(4095, -1, -1)
SYNTAXES = [uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian, uid.ImplicitVRLittleEndian]
BOTH = ["VOILUTSequence", "ModalityLUTSequence"]


def item(entries: np.ndarray, first: int, bits: int, vr: str = "US", order: str = "<", packed: bool = False) -> Dataset:
    """Return a LUT sequence's item whose descriptor has the VR `vr`."""
    table = Dataset()
    count = len(entries) % 65536
    table.add_new("LUTDescriptor", vr, [count - 65536 if vr == "SS" and count > 32767 else count, first, bits])
    table.add_new("LUTData", "OW", entries.astype("u1" if packed else f"{order}u2").tobytes())
    return table


def written(write_dicom, stored: np.ndarray, syntax: str = uid.ExplicitVRLittleEndian, **sequences: Dataset) -> Path:
    path = write_dicom(stored, syntax=syntax, BitsStored=16 if stored.dtype.kind == "i" else 12)
    dataset = pydicom.dcmread(path)
    for keyword, one in sequences.items():
        setattr(dataset, keyword, Sequence([one]))
    dataset.save_as(path)
    return path


def order(syntax: str) -> str:
    return ">" if syntax == uid.ExplicitVRBigEndian else "<"


# Full scale


@pytest.mark.parametrize(
    ("entries", "declared", "full"),
    [
        ((0, 4095), 12, 4095),
        ((0, 4095), 16, 4095),
        ((0, 4095), 14, 4095),
        ((0, 4095), 8, 4095),
        ((0, 255), 16, 255),
        ((0, 255), 8, 255),
        ((0, 65535), 16, 65535),
        ((0, 65535), 12, 65535),
        ((0, 16383), 16, 16383),
        ((100, 3000), 12, 4095),
        ((100, 4095), 16, 4095),
        ((100, 1030), 12, 4095),
        ((100, 1000), 12, 1000),
        ((100, 3000), 16, 3000),
        ((0, 200), 8, 255),
        ((0, 0), 8, 1),
    ],
)
def test_full_scale_is_the_declared_depth_unless_the_entries_contradict_it(entries, declared, full):
    table = Table(np.array(entries, dtype=np.float64), 0, float(2**declared - 1))
    assert table.full == full


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.keyword)
@pytest.mark.parametrize("entries", [UP, DOWN, np.maximum(UP, 1000)], ids=["up", "down", "from 1000"])
@pytest.mark.parametrize("declared", [8, 10, 12, 14, 16])
def test_voi_lut_spans_what_its_entries_do_whatever_depth_is_declared(write_dicom, syntax, entries, declared):
    table = item(entries, 0, declared, order=order(syntax))
    radiograph = read_dicom(written(write_dicom, RAMP, syntax, VOILUTSequence=table))
    np.testing.assert_allclose(radiograph.image, entries[RAMP] / 4095, atol=1e-6)
    said = () if declared == 12 else (f"VOI LUT declares {declared} bits, and its highest entry is 4095",)
    assert tuple(note.split(":")[0] for note in radiograph.notes) == said


@pytest.mark.parametrize("declared", [8, 12, 16])
@pytest.mark.parametrize("entries", [UP, DOWN], ids=["up", "down"])
def test_modality_lut_of_twelve_bits_is_shown_over_the_values_present(write_dicom, entries, declared):
    image = read_dicom(written(write_dicom, RAMP, ModalityLUTSequence=item(entries, 0, declared))).image
    np.testing.assert_allclose(image, entries[RAMP] / 4095, atol=1e-6)


@pytest.mark.parametrize("declared", [8, 16])
def test_modality_lut_to_eight_bits_is_divided_by_255(write_dicom, declared):
    image = read_dicom(written(write_dicom, RAMP, ModalityLUTSequence=item(np.clip(UP // 16, 9, 255), 0, declared)))
    np.testing.assert_allclose(image.image, np.clip(RAMP // 16, 9, 255) / 255, atol=1e-6)


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.keyword)
@pytest.mark.parametrize("count", [4096, 4095])
@pytest.mark.parametrize("keyword", BOTH)
def test_table_of_bytes_packed_two_to_a_word_is_read_in_any_byte_order(write_dicom, syntax, count, keyword):
    entries = UP[:count] // 16
    table = item(entries, 0, 8, packed=True)
    data = table.LUTData + b"\0" * (count % 2)
    swap = syntax == uid.ExplicitVRBigEndian
    table.LUTData = np.frombuffer(data, dtype="<u2").astype(">u2").tobytes() if swap else data
    image = read_dicom(written(write_dicom, RAMP, syntax, **{keyword: table})).image
    np.testing.assert_allclose(image, np.minimum(RAMP, count - 1) // 16 / 255, atol=1e-6)


@pytest.mark.parametrize("vr", ["US", "SS"])
@pytest.mark.parametrize("keyword", BOTH)
def test_entries_written_as_numbers_are_read_as_words(write_dicom, vr, keyword):
    table = item(UP, 0, 16)
    words = UP * 16
    table.add_new("LUTData", vr, [int(w) - 65536 if vr == "SS" and w > 32767 else int(w) for w in words])
    image = read_dicom(written(write_dicom, RAMP, **{keyword: table})).image
    np.testing.assert_allclose(image, RAMP / 4095 * (65520 / 65535 if keyword == "VOILUTSequence" else 1), atol=1e-6)


def test_first_of_several_tables_is_taken_and_empty_ones_are_passed_over(write_dicom):
    path = written(write_dicom, RAMP, VOILUTSequence=Dataset())
    dataset = pydicom.dcmread(path)
    dataset.VOILUTSequence = Sequence([Dataset(), item(DOWN, 0, 12), item(UP, 0, 12)])
    dataset.save_as(path)
    np.testing.assert_allclose(read_dicom(path).image, DOWN[RAMP] / 4095, atol=1e-6)


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.keyword)
@pytest.mark.parametrize("keyword", BOTH)
def test_empty_table_is_none(write_dicom, syntax, keyword):
    empty = Dataset()
    empty.add_new("LUTDescriptor", "US", None)
    empty.add_new("LUTData", "US" if syntax != uid.ImplicitVRLittleEndian else "OW", None)
    for table in (empty, Dataset()):
        image = read_dicom(written(write_dicom, RAMP, syntax, **{keyword: table})).image
        np.testing.assert_allclose(image, RAMP / 4095, atol=1e-6)


@pytest.mark.parametrize("keyword", BOTH)
@pytest.mark.parametrize(
    ("descriptor", "data"),
    [
        ([4096, 0, 12], None),
        (None, UP),
        ([4096, 0, 12], UP[:2048]),
        ([2048, 0, 12], UP),
        ([4096, 0], UP),
        ([4096, 0, 0], UP),
        ([4096, 0, 17], UP),
    ],
)
def test_table_that_is_not_whole_is_refused(write_dicom, keyword, descriptor, data):
    table = item(UP, 0, 12)
    table.LUTDescriptor = descriptor
    table.LUTData = None if data is None else data.astype("<u2").tobytes()
    with pytest.raises(InputError, match="export it again"):
        read_dicom(written(write_dicom, RAMP, **{keyword: table}))


# The first value mapped, whose VR need not be that of the input


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.keyword)
@pytest.mark.parametrize(("vr", "first"), [("SS", -2048), ("US", 63488)])
@pytest.mark.parametrize("keyword", BOTH)
def test_table_for_signed_values_starts_below_zero_whatever_its_vr(write_dicom, syntax, vr, first, keyword):
    signed = (RAMP.astype(np.int32) - 2048).astype(np.int16)
    table = item(DOWN, first, 12, vr, order(syntax))
    image = read_dicom(written(write_dicom, signed, syntax, **{keyword: table})).image
    np.testing.assert_allclose(image, DOWN[RAMP] / 4095, atol=1e-6)


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.keyword)
@pytest.mark.parametrize(("vr", "first"), [("US", 40000), ("SS", -25536)])
@pytest.mark.parametrize("keyword", BOTH)
def test_table_for_unsigned_values_starts_above_zero_whatever_its_vr(write_dicom, syntax, vr, first, keyword):
    table = item(DOWN, first, 12, vr, order(syntax))
    path = written(write_dicom, RAMP + np.uint16(40000), syntax, **{keyword: table})
    dataset = pydicom.dcmread(path)
    dataset.BitsStored, dataset.HighBit = 16, 15
    dataset.save_as(path)
    np.testing.assert_allclose(read_dicom(path).image, DOWN[RAMP] / 4095, atol=1e-6)


@pytest.mark.parametrize(("vr", "first"), [("SS", -1024), ("US", 64512)])
def test_voi_lut_after_a_rescale_starts_where_the_rescale_does(write_dicom, vr, first):
    path = written(write_dicom, RAMP, VOILUTSequence=item(DOWN, first, 12, vr))
    dataset = pydicom.dcmread(path)
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
    dataset.save_as(path)
    np.testing.assert_allclose(read_dicom(path).image, DOWN[RAMP] / 4095, atol=1e-6)


def test_voi_lut_whose_input_may_have_either_sign_starts_where_the_values_are(write_dicom):
    path = written(write_dicom, RAMP + np.uint16(50000), VOILUTSequence=item(DOWN, 48976, 12))
    dataset = pydicom.dcmread(path)
    dataset.BitsStored, dataset.HighBit = 16, 15
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
    dataset.save_as(path)
    np.testing.assert_allclose(read_dicom(path).image, DOWN[RAMP] / 4095, atol=1e-6)


@pytest.mark.parametrize(("vr", "first"), [("US", 40000), ("SS", -25536)])
def test_voi_lut_after_a_modality_lut_takes_unsigned_values(write_dicom, vr, first):
    signed = (RAMP.astype(np.int32) - 2048).astype(np.int16)
    tables = {"ModalityLUTSequence": item(UP + 40000, -2048, 16, "SS"), "VOILUTSequence": item(DOWN, first, 12, vr)}
    image = read_dicom(written(write_dicom, signed, **tables)).image
    np.testing.assert_allclose(image, DOWN[RAMP] / 4095, atol=1e-6)


@pytest.mark.parametrize("vr", ["US", "SS"])
def test_table_of_65536_entries_says_that_it_has_none(write_dicom, vr):
    signed = (RAMP.astype(np.int32) * 16 - 32768).astype(np.int16)
    table = item(np.arange(65536), -32768 if vr == "SS" else 32768, 16, vr)
    image = read_dicom(written(write_dicom, signed, VOILUTSequence=table)).image
    np.testing.assert_allclose(image, RAMP * 16 / 65535, atol=1e-6)
