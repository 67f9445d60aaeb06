"""The secondary capture: the radiograph as it is shown, with the result in it, whatever the file stores."""

from __future__ import annotations

import io
import subprocess
import tempfile
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
from conftest import WriteDicom
from dicom_objects import FILED, f_shape, faults, needs, prediction_of, ramp
from pydicom.encaps import get_frame
from pydicom.uid import JPEGLosslessSV1

from pleura.data.phantoms.dicom_files import write_phantom_dataset
from pleura.dicom.instance import bytes_of
from pleura.dicom.jpeg_writing import jpeg_lossless
from pleura.errors import OutputError
from pleura.inference.overlay import PREDICTED_RGB


def picture_of(path: Path, mask: np.ndarray | None = None) -> tuple[pydicom.Dataset, np.ndarray]:
    made = pydicom.dcmread(io.BytesIO(bytes_of(prediction_of(path, mask).to_sc())))
    return made, made.pixel_array


def drawn(picture: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The mask by its outline: from the left, what an odd number of red lines lies before, or on a line."""
    return (picture[:rows, :columns] == PREDICTED_RGB).all(axis=2)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_f_reads_as_f_and_the_rest_as_the_source_is_shown(write_dicom: WriteDicom, photometric: str):
    path = write_dicom(ramp(120, 90), PhotometricInterpretation=photometric, **FILED)
    made, picture = picture_of(path)
    mask, image = f_shape(120, 90).astype(bool), prediction_of(path).radiograph.image
    red = drawn(picture, 120, 90)
    framed = np.pad(mask, 1)
    inner = framed[1:-1, 1:-1] & framed[:-2, 1:-1] & framed[2:, 1:-1] & framed[1:-1, :-2] & framed[1:-1, 2:]
    assert np.array_equal(red, mask & ~inner)
    grey = picture[:120, :90][~mask].astype(np.float64)
    assert np.abs(grey - 255 * image[~mask][:, None]).max() <= 1
    assert (made.PhotometricInterpretation, made.BitsStored, made.SamplesPerPixel) == ("RGB", 8, 3)


def test_pixels_that_are_not_square_are_drawn_square(write_dicom: WriteDicom):
    _, picture = picture_of(write_dicom(ramp(60, 90), PixelAspectRatio=["2", "1"], **FILED))
    rows, columns = np.nonzero(drawn(picture, 120, 90))
    true_rows, true_columns = np.nonzero(f_shape(60, 90))
    assert np.ptp(rows) + 1 == pytest.approx(2 * (np.ptp(true_rows) + 1), abs=2)
    assert np.ptp(columns) == pytest.approx(np.ptp(true_columns), abs=2)


def test_large_radiograph_becomes_a_picture_of_2048_with_text_below(write_dicom: WriteDicom):
    made, picture = picture_of(write_dicom(ramp(2100, 4000), **FILED))
    below = picture[round(2100 * 2048 / 4000) :]
    assert (made.Columns, below.max() > 200) == (2048, True)
    letters = (below > 100).any(axis=(1, 2))
    assert np.diff(np.flatnonzero(np.diff(letters.astype(int)))).max() >= 20  # a line of text is 20 px high at least


def test_text_of_a_small_radiograph_is_not_small(write_dicom: WriteDicom):
    _, picture = picture_of(write_dicom(ramp(512, 512), **FILED))
    letters = (picture[512:] > 100).any(axis=(1, 2))
    assert np.diff(np.flatnonzero(np.diff(letters.astype(int)))).max() >= 11


def test_what_holds_of_every_copy_is_taken_over_and_no_spacing(write_dicom: WriteDicom):
    source = write_dicom(
        ramp(60, 90),
        **FILED,
        LossyImageCompression="01",
        LossyImageCompressionMethod="ISO_10918_1",
        BurnedInAnnotation="YES",
        PixelSpacing=["0.2", "0.2"],
        PatientOrientation=["L", "F"],
    )
    made, _ = picture_of(source)
    assert (made.LossyImageCompression, made.LossyImageCompressionMethod) == ("01", "ISO_10918_1")
    assert (made.BurnedInAnnotation, list(made.PatientOrientation)) == ("YES", ["L", "F"])
    assert "PixelSpacing" not in made
    assert made.SourceImageSequence[0].ReferencedSOPInstanceUID == "1.2.3.4"
    assert "not for diagnosis" in made.DerivationDescription


def test_dciodvfy_finds_no_error_on_phantoms_of_every_kind(tmp_path: Path):
    write_phantom_dataset(tmp_path, n_patients=3, seed=2, size_px=33)
    for path in sorted((tmp_path / "dicom").iterdir()):
        for compression in ("none", "jpeg-lossless"):
            assert faults(prediction_of(path).to_sc(compression), tmp_path) == []  # type: ignore[arg-type]


def written(made: pydicom.Dataset, path: Path) -> Path:
    path.write_bytes(bytes_of(made))
    return path


@pytest.mark.parametrize("shape", [(90, 300), (91, 301), (2100, 1100)])
def test_jpeg_lossless_has_the_very_pixels_by_gdcm_dcmtk_and_libjpeg(
    write_dicom: WriteDicom, tmp_path: Path, shape: tuple[int, int]
):
    prediction = prediction_of(write_dicom(ramp(*shape), **FILED))
    plain, small = prediction.to_sc(), prediction.to_sc("jpeg-lossless")
    coded, decoded = written(small, tmp_path / "coded.dcm"), tmp_path / "decoded.dcm"
    subprocess.run([needs("dcmdjpeg"), coded, decoded], check=True, timeout=60)
    expected = plain.pixel_array
    assert np.array_equal(pydicom.dcmread(coded).pixel_array, expected)
    assert np.array_equal(pydicom.dcmread(decoded).pixel_array, expected)
    assert np.array_equal(imagecodecs.jpeg8_decode(get_frame(small.PixelData, 0, number_of_frames=1)), expected)
    assert len(small.PixelData) < len(plain.PixelData)


def test_jpeg_lossless_is_the_same_instance_in_another_transfer_syntax(write_dicom: WriteDicom):
    prediction = prediction_of(write_dicom(ramp(60, 90), **FILED))
    plain, small = prediction.to_sc(), prediction.to_sc("jpeg-lossless")
    assert small.file_meta.TransferSyntaxUID == JPEGLosslessSV1
    assert [small.get(one) for one in ("LossyImageCompression", "SOPInstanceUID")] == [None, plain.SOPInstanceUID]
    assert (small.PhotometricInterpretation, small["PixelData"].is_undefined_length) == ("RGB", True)


def test_jpeg_lossless_of_an_odd_number_of_pixels_is_refused():
    with pytest.raises(OutputError, match="3 x 5 px; write it uncompressed"):
        jpeg_lossless(np.zeros((3, 5, 3), dtype=np.uint8))


def test_no_room_for_temporary_files_is_an_output_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    with pytest.raises(OutputError, match="cannot write a temporary folder"):
        jpeg_lossless(np.zeros((4, 5, 3), dtype=np.uint8))
