"""DICOM in: what is shown, what is told, and what is refused."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import apply_modality_lut, apply_voi_lut

from pleura.dicom.read import read_dicom
from pleura.errors import InputError

REAL = Path(__file__).parents[3] / "shared" / "data" / "dicom"
ROWS, COLUMNS = np.mgrid[:24, :16]
RAMP_8 = (ROWS * 10 + COLUMNS).astype(np.uint8)
RAMP_12 = (ROWS * 150 + COLUMNS * 20 + 100).astype(np.uint16)
NEGATIVE = (RAMP_12.astype(np.int16) - 2000).astype(np.int16)

LOSSLESS = [
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
    uid.JPEGLossless,
    uid.JPEGLosslessSV1,
    uid.JPEGLSLossless,
    uid.JPEG2000Lossless,
    uid.RLELossless,
]
LOSSY = [uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLSNearLossless, uid.JPEG2000]
COMPRESSED = [syntax for syntax in LOSSLESS + LOSSY if syntax.is_encapsulated]


def name_of(syntax: uid.UID) -> str:
    return syntax.keyword


def lut(entries: list[int], first: int, bits: int) -> list[Dataset]:
    item = Dataset()
    item.LUTDescriptor = [len(entries), first, bits]
    item.add_new("LUTData", "OW", np.asarray(entries, dtype="<u2").tobytes())
    return [item]


def spread(stored: np.ndarray) -> np.ndarray:
    values = stored.astype(np.float64)
    return (values - values.min()) / (values.max() - values.min())


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_dicom(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert "; " in message  # the way out
    return message


# Grey values


@pytest.mark.parametrize("syntax", LOSSLESS, ids=name_of)
def test_every_lossless_transfer_syntax_gives_the_stored_values(write_dicom, syntax):
    image = read_dicom(write_dicom(RAMP_12, syntax=syntax, BitsStored=12)).image
    np.testing.assert_allclose(image, spread(RAMP_12), atol=1e-6)


@pytest.mark.parametrize("syntax", LOSSY, ids=name_of)
def test_every_lossy_transfer_syntax_comes_near_the_stored_values(write_dicom, syntax):
    image = read_dicom(write_dicom(RAMP_8, syntax=syntax)).image
    np.testing.assert_allclose(image, RAMP_8 / 255, atol=4 / 255)


@pytest.mark.parametrize("syntax", LOSSLESS, ids=name_of)
def test_eight_bits_without_a_window_are_divided_by_255(write_dicom, syntax):
    image = read_dicom(write_dicom(RAMP_8, syntax=syntax)).image
    assert image.dtype == np.float32
    np.testing.assert_array_equal(np.rint(image * 255), RAMP_8)


@pytest.mark.parametrize(("stored", "bits"), [(RAMP_12, 12), (RAMP_12 * 16, 16), (NEGATIVE, 16), (NEGATIVE, 12)])
def test_more_bits_without_a_window_span_the_values_present(write_dicom, stored, bits):
    image = read_dicom(write_dicom(stored, BitsStored=bits)).image
    np.testing.assert_allclose(image, spread(stored), atol=1e-6)


def test_signed_eight_bits_span_the_stored_range(write_dicom):
    stored = (RAMP_8.astype(np.int16) - 128).astype(np.int8)
    np.testing.assert_array_equal(np.rint(read_dicom(write_dicom(stored)).image * 255), RAMP_8)


def test_what_lies_in_the_unused_high_bits_is_not_part_of_the_image(write_dicom):
    overlay = (COLUMNS % 2 * 0x8000).astype(np.uint16)
    image = read_dicom(write_dicom(RAMP_12 | overlay, BitsStored=12)).image
    np.testing.assert_allclose(image, spread(RAMP_12), atol=1e-6)


def test_monochrome1_is_inverted(write_dicom):
    image = read_dicom(write_dicom(RAMP_8, PhotometricInterpretation="MONOCHROME1")).image
    np.testing.assert_array_equal(np.rint(image * 255), 255 - RAMP_8)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_inverse_presentation_lut_shape_inverts_once(write_dicom, photometric):
    path = write_dicom(RAMP_8, PhotometricInterpretation=photometric, PresentationLUTShape="INVERSE")
    np.testing.assert_array_equal(np.rint(read_dicom(path).image * 255), 255 - RAMP_8)


def test_identity_presentation_lut_shape_does_nothing(write_dicom):
    path = write_dicom(RAMP_8, PresentationLUTShape="IDENTITY")
    np.testing.assert_array_equal(np.rint(read_dicom(path).image * 255), RAMP_8)


@pytest.mark.parametrize("function", [None, "LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("rescale", [{}, {"RescaleSlope": 2, "RescaleIntercept": -1024}])
def test_window_agrees_with_pydicom_on_the_range_it_fixes(write_dicom, function, rescale):
    attributes = {"WindowCenter": 2000, "WindowWidth": 1500, "VOILUTFunction": function, **rescale}
    path = write_dicom(RAMP_12, BitsStored=12, **attributes)
    dataset = pydicom.dcmread(path)
    values = apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset)
    slope, intercept = rescale.get("RescaleSlope", 1), rescale.get("RescaleIntercept", 0)
    np.testing.assert_allclose(read_dicom(path).image, (values - intercept) / (4095 * slope), atol=1e-6)


def test_outside_its_window_an_image_is_exactly_black_or_white(write_dicom):
    image = read_dicom(write_dicom(RAMP_12, WindowCenter=2000, WindowWidth=400)).image
    assert (image[RAMP_12 <= 1799] == 0).all()
    assert (image[RAMP_12 > 2200] == 1).all()


def test_window_is_applied_before_monochrome1_is_inverted(write_dicom):
    window = {"WindowCenter": 1000, "WindowWidth": 800}
    upright = read_dicom(write_dicom(RAMP_12, **window)).image
    inverted = read_dicom(write_dicom(RAMP_12, PhotometricInterpretation="MONOCHROME1", **window)).image
    np.testing.assert_allclose(inverted, 1 - upright, atol=1e-6)


def test_first_of_several_windows_is_taken(write_dicom):
    several = read_dicom(write_dicom(RAMP_12, WindowCenter=[2000, 50], WindowWidth=[1500, 9])).image
    one = read_dicom(write_dicom(RAMP_12, WindowCenter=2000, WindowWidth=1500)).image
    np.testing.assert_array_equal(several, one)


def test_window_one_value_wide_is_a_threshold(write_dicom):
    image = read_dicom(write_dicom(RAMP_12, WindowCenter=2000, WindowWidth=1)).image
    np.testing.assert_array_equal(image, RAMP_12 >= 2000)


def test_negative_slope_turns_the_image_round(write_dicom):
    path = write_dicom(RAMP_12, RescaleSlope=-1, RescaleIntercept=4095, WindowCenter=2048, WindowWidth=4096)
    np.testing.assert_allclose(read_dicom(path).image, (4095 - RAMP_12) / 4095, atol=1e-6)


def test_rescale_alone_does_not_change_eight_bits(write_dicom):
    image = read_dicom(write_dicom(RAMP_8, RescaleSlope=4, RescaleIntercept=-7)).image
    np.testing.assert_array_equal(np.rint(image * 255), RAMP_8)


@pytest.mark.parametrize("syntax", LOSSLESS[:3], ids=name_of)
def test_modality_lut_is_looked_up(write_dicom, syntax):
    entries = [4095 - value for value in range(4096)]
    item = lut(entries, 0, 12)
    if syntax == uid.ExplicitVRBigEndian:
        item[0].LUTData = np.asarray(entries, dtype=">u2").tobytes()
    image = read_dicom(write_dicom(RAMP_12, syntax=syntax, ModalityLUTSequence=item)).image
    np.testing.assert_allclose(image, 1 - spread(RAMP_12), atol=1e-6)


def test_lut_that_starts_below_zero_serves_signed_values(write_dicom):
    path = write_dicom(NEGATIVE, ModalityLUTSequence=lut(list(range(4000)), -2000, 16))
    np.testing.assert_allclose(read_dicom(path).image, spread(NEGATIVE), atol=1e-6)


def test_voi_lut_of_eight_bits_serves_an_image_of_twelve(write_dicom):
    path = write_dicom(RAMP_12, BitsStored=12, VOILUTSequence=lut([value // 16 for value in range(4096)], 0, 8))
    np.testing.assert_allclose(read_dicom(path).image, (RAMP_12 // 16) / 255, atol=1e-6)


def test_voi_lut_packed_into_bytes_is_read(write_dicom):
    item = lut([0] * 4096, 0, 8)
    item[0].LUTData = bytes(value // 16 for value in range(4096))
    image = read_dicom(write_dicom(RAMP_12, BitsStored=12, VOILUTSequence=item)).image
    np.testing.assert_allclose(image, (RAMP_12 // 16) / 255, atol=1e-6)


def test_voi_lut_is_preferred_to_a_window(write_dicom):
    entries = lut([min(value, 2000) for value in range(4096)], 0, 12)
    path = write_dicom(RAMP_12, VOILUTSequence=entries, WindowCenter=9, WindowWidth=2)
    np.testing.assert_allclose(read_dicom(path).image, np.minimum(RAMP_12, 2000) / 4095, atol=1e-6)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("end", [{}, {"PixelPaddingRangeLimit": 65000}])
def test_padding_is_black_and_does_not_count_as_a_value(write_dicom, photometric, end):
    stored = RAMP_12.copy()
    stored[:, :3] = 65535
    path = write_dicom(stored, PhotometricInterpretation=photometric, PixelPaddingValue=65535, **end)
    image = read_dicom(path).image
    assert (image[:, :3] == 0).all()
    assert image[:, 3:].min() == 0
    assert image[:, 3:].max() == 1


# The header


def test_what_the_header_says_is_carried_through(write_dicom):
    said = {
        "PatientID": "p 1",
        "ViewPosition": "PA",
        "PatientSex": "F",
        "StudyInstanceUID": "1.2",
        "SeriesInstanceUID": "1.3",
    }
    radiograph = read_dicom(write_dicom(RAMP_8, PatientAge="034Y", **said))
    assert (radiograph.image_id, radiograph.patient_id, radiograph.view, radiograph.sex) == (
        "1.2.3.4",
        "p 1",
        "PA",
        "F",
    )
    uids = (radiograph.sop_instance_uid, radiograph.study_instance_uid, radiograph.series_instance_uid)
    assert uids == ("1.2.3.4", "1.2", "1.3")


@pytest.mark.parametrize("value", ["", None])
def test_what_the_header_leaves_out_is_none(write_dicom, value):
    keywords = ["PatientID", "ViewPosition", "PatientSex", "PatientAge", "StudyInstanceUID", "PixelSpacing"]
    radiograph = read_dicom(write_dicom(RAMP_8, **dict.fromkeys(keywords, value)))
    found = (radiograph.patient_id, radiograph.view, radiograph.sex, radiograph.age_years)
    assert (*found, radiograph.study_instance_uid, radiograph.pixel_spacing_mm) == (None,) * 6


@pytest.mark.parametrize(
    ("age", "years"),
    [
        ("034Y", 34),
        ("018M", 1.5),
        ("003W", 21 / 365.25),
        ("010D", 10 / 365.25),
        ("38", 38),
        ("old", None),
        ("-12Y", None),
        ("122Y", 122),
        ("149", 149),
        ("150Y", None),
        ("999Y", None),
        ("999M", 83.25),
        ("000Y", 0),
    ],
)
def test_age_is_in_years(write_dicom, age, years):
    assert read_dicom(write_dicom(RAMP_8, PatientAge=age)).age_years == (
        None if years is None else pytest.approx(years)
    )


def test_sex_that_is_not_defined_is_none(write_dicom):
    assert read_dicom(write_dicom(RAMP_8, PatientSex="X")).sex is None


MAGNIFIED = {"ImagerPixelSpacing": [0.2, 0.4], "EstimatedRadiographicMagnificationFactor": 1.25}


@pytest.mark.parametrize(
    ("attributes", "spacing"),
    [
        ({"PixelSpacing": [0.1, 0.2], **MAGNIFIED}, (0.1, 0.2)),
        ({"ImagerPixelSpacing": [0.2, 0.4]}, (0.2, 0.4)),
        (MAGNIFIED, (0.16, 0.32)),
        ({**MAGNIFIED, "EstimatedRadiographicMagnificationFactor": 0}, (0.2, 0.4)),
        ({"PixelSpacing": [0, 0], **MAGNIFIED}, (0.16, 0.32)),
        ({"NominalScannedPixelSpacing": [0.3, 0.3]}, (0.3, 0.3)),
        ({"PixelSpacing": [0.1, 0]}, None),
        ({"PixelSpacing": [-0.1, 0.1]}, None),
        ({"PixelSpacing": 0.1}, None),
        ({"PixelSpacing": [0.1, 0.1, 0.1]}, None),
        ({"PixelSpacing": ["1e308", "1e308"]}, None),
        ({"PixelSpacing": ["1e-300", "1e-300"]}, None),
        ({"PixelSpacing": [143, 143]}, None),
        ({"PixelSpacing": ["1e308", "0.1"], **MAGNIFIED}, (0.16, 0.32)),
        ({"PixelSpacing": ["NaN", "0.1"]}, None),
        ({**MAGNIFIED, "EstimatedRadiographicMagnificationFactor": "1e300"}, (0.2, 0.4)),
        ({**MAGNIFIED, "EstimatedRadiographicMagnificationFactor": 110}, (0.2, 0.4)),
        ({}, None),
    ],
)
def test_pixel_spacing_is_calibrated_else_measured_at_the_detector_else_scanned(write_dicom, attributes, spacing):
    found = read_dicom(write_dicom(RAMP_8, **attributes)).pixel_spacing_mm
    assert found == (None if spacing is None else pytest.approx(spacing))


@pytest.mark.parametrize(("uid", "image_id"), [("1.2.3", "1.2.3"), ("../x", "a"), ("1." * 40 + "1", "a")])
def test_image_id_is_the_sop_instance_uid_and_else_the_name(write_dicom, uid, image_id):
    path = write_dicom(RAMP_8, SOPInstanceUID=uid)
    assert read_dicom(path.rename(path.with_name("a.dcm"))).image_id == image_id


# Refusals


def test_missing_file_is_refused(tmp_path):
    assert "no such file" in refusal(tmp_path / "absent.dcm")


def test_folder_is_refused(tmp_path):
    assert "is a directory" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "empty"), (b"not dicom " * 99, "not a DICOM"), (b"\x08\0" * 99, "")]
)
def test_file_that_is_not_dicom_is_refused(tmp_path, content, reason):
    path = tmp_path / "case.dcm"
    path.write_bytes(content)
    assert reason in refusal(path)


@pytest.mark.parametrize("syntax", [*LOSSLESS[:4], *COMPRESSED], ids=name_of)
@pytest.mark.parametrize("part", [0.02, 0.3, 0.6, 0.99])
def test_truncated_file_is_refused(write_dicom, syntax, part):
    path = write_dicom(np.tile(RAMP_8, (9, 9)), syntax=syntax)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    refusal(path)


@pytest.mark.parametrize("syntax", COMPRESSED, ids=name_of)
@pytest.mark.parametrize("part", [0.1, 0.5, 0.97])
def test_truncated_frame_in_a_whole_file_is_refused_in_silence(write_dicom, syntax, part, capfd):
    path = write_dicom(np.tile(RAMP_8, (9, 9)), syntax=syntax)
    dataset = pydicom.dcmread(path)
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    dataset.PixelData = encapsulate([frame[: int(len(frame) * part)]])
    dataset.save_as(path)
    assert "truncated or damaged" in refusal(path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("syntax", COMPRESSED, ids=name_of)
def test_frame_of_noise_is_refused_in_silence(write_dicom, syntax, capfd):
    path = write_dicom(RAMP_8, syntax=syntax)
    dataset = pydicom.dcmread(path)
    dataset.PixelData = encapsulate([bytes(range(10, 250)) * 4])
    dataset.save_as(path)
    refusal(path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("syntax", [uid.JPEGLosslessSV1, uid.JPEGLSLossless], ids=name_of)
@pytest.mark.parametrize(
    ("offset", "value", "reason"),
    [(4, 0x72, "114 bits"), (6, 0x19, "25 x 16"), (9, 3, "frame header"), (14, 0x20, "between its headers")],
)
def test_jpeg_that_contradicts_the_header_is_refused_before_gdcm_aborts(write_dicom, syntax, offset, value, reason):
    path = write_dicom(RAMP_8, syntax=syntax)
    content = bytearray(path.read_bytes())
    start = max(content.find(marker) for marker in (b"\xff\xc3\x00\x0b", b"\xff\xf7\x00\x0b"))
    content[start + offset] = value
    path.write_bytes(content)
    assert reason in refusal(path)


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"PixelData": None}, "no pixel data"),
        ({"NumberOfFrames": 3}, "3 frames"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}, "RGB"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "PALETTE COLOR"),
        ({"PhotometricInterpretation": "MONO\nCHROME"}, "MONO CHROME"),
        ({"PhotometricInterpretation": None}, "no photometric interpretation"),
        ({"BitsAllocated": 8, "BitsStored": 12}, "bits do not fit"),
        ({"BitsAllocated": 12}, "bits do not fit"),
        ({"BitsAllocated": 32}, "bits do not fit"),
        ({"BitsStored": 12, "HighBit": 15}, "bits do not fit"),
        ({"BitsStored": 0}, "bits do not fit"),
        ({"PixelRepresentation": 7}, "Pixel Representation"),
        ({"PixelRepresentation": None}, "it has no Pixel Representation"),
        ({"Rows": 0}, "0 x 16"),
        ({"Rows": None}, "0 x 16"),
        ({"Columns": 20001}, "24 x 20001"),
        ({"Rows": 19999, "Columns": 19999}, "19999 x 19999"),
        ({"Rows": 25}, "truncated"),
        ({"WindowCenter": 2048, "WindowWidth": -4096}, "-4096 wide"),
        ({"WindowCenter": 100, "WindowWidth": 100, "VOILUTFunction": "CUBIC"}, "CUBIC"),
        ({"WindowCenter": 60000, "WindowWidth": 2}, "all pixels are equal"),
        ({"RescaleSlope": 0, "RescaleIntercept": 0}, "all pixels are equal"),
        ({"VOILUTSequence": lut([1, 2, 3], 0, 0)}, "LUT"),
        ({"ModalityLUTSequence": lut([], 0, 12)}, "no table"),
    ],
)
def test_what_is_not_one_grey_radiograph_is_refused(write_dicom, attributes: dict[str, Any], reason):
    assert reason in refusal(write_dicom(RAMP_12, **attributes))


NAME = "DOE^JOHN 19431117 "


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"PhotometricInterpretation": NAME * 3000}, "not a greyscale image (DOE^JOHN"),
        ({"PhotometricInterpretation": "\x1b[31m" + NAME * 9}, "not a greyscale image ([31mDOE^JOHN"),
        ({"WindowCenter": 1, "WindowWidth": 9, "VOILUTFunction": NAME * 3000}, "VOI LUT Function 'DOE^JOHN"),
        ({"NumberOfFrames": "9" * 3000}, "NumberOfFrames"),
        ({"NumberOfFrames": "1e300"}, "NumberOfFrames is 1e+300"),
    ],
)
def test_refusal_quotes_at_most_64_printable_characters_of_a_header(write_dicom, attributes, reason):
    path = write_dicom(RAMP_12)
    dataset = pydicom.dcmread(path)
    for keyword, value in attributes.items():
        dataset.add_new(keyword, "UT", str(value))  # of any length, and not checked when it is written
    dataset.save_as(path)
    said = refusal(path).removeprefix(f"cannot read {path}: ")
    assert reason in said
    assert said.isprintable()
    assert len(said) < 180
    assert said.count("DOE^JOHN") <= 4


def test_lut_shorter_than_it_says_is_refused(write_dicom):
    item = lut([1, 2, 3], 0, 16)
    item[0].LUTDescriptor = [4096, 0, 16]
    assert "4096 are declared" in refusal(write_dicom(RAMP_12, VOILUTSequence=item))


@pytest.mark.parametrize("padding", [None, 7])
def test_constant_image_is_refused(write_dicom, padding):
    stored = np.full((24, 16), 7, dtype=np.uint16)
    assert "all pixels are equal" in refusal(write_dicom(stored, PixelPaddingValue=padding))


def test_compression_that_no_decoder_knows_is_refused_by_name(write_dicom):
    path = write_dicom(RAMP_8, syntax=uid.JPEG2000Lossless)
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = uid.MPEG2MPML
    dataset.save_as(path)
    assert "MPEG2" in refusal(path)


def test_twelve_bit_jpeg_is_refused_because_gdcm_wraps_what_overshoots(write_dicom):
    assert "dcmdjpeg" in refusal(write_dicom(RAMP_12, syntax=uid.JPEGExtended12Bit, BitsStored=12))


# The file around the pixels


def bare(path: Path, missing: str | None = None) -> Path:
    """Write the file again without preamble and file meta information, as old archives do."""
    dataset = pydicom.dcmread(path)
    del dataset.file_meta
    dataset.preamble = None
    if missing:
        delattr(dataset, missing)
    dataset.save_as(path, implicit_vr=True, little_endian=True)
    return path


def test_bare_dataset_is_read_where_it_plainly_is_an_image(write_dicom):
    path = bare(write_dicom(RAMP_8))
    assert path.read_bytes()[128:132] != b"DICM"
    np.testing.assert_array_equal(np.rint(read_dicom(path).image * 255), RAMP_8)


@pytest.mark.parametrize("missing", ["SOPClassUID", "PixelData"])
def test_bare_dataset_without_class_or_pixels_is_refused(write_dicom, missing):
    assert "not a DICOM file" in refusal(bare(write_dicom(RAMP_8), missing))


def test_reading_dicom_does_not_import_torch():
    command = "import sys, pleura.dicom.read; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", command], check=True)


@pytest.mark.skipif(not (REAL / "labels.csv").exists(), reason=f"the real radiographs are not at {REAL}")
def test_real_radiographs_are_read_as_their_pixels_and_labels_say():
    labels = {row["ImageId"] for row in csv.DictReader((REAL / "labels.csv").read_text().splitlines())}
    paths = sorted(REAL.glob("*.dcm"))
    assert len(paths) == 29
    for path in paths:
        radiograph = read_dicom(path)
        assert radiograph.image_id in labels
        assert radiograph.image_id == radiograph.sop_instance_uid
        assert radiograph.image.shape == (1024, 1024)
        assert radiograph.view in ("PA", "AP")
        assert radiograph.patient_id is not None
        assert radiograph.pixel_spacing_mm is not None
        np.testing.assert_array_equal(np.rint(radiograph.image * 255), pydicom.dcmread(path).pixel_array)
