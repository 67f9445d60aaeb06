"""The presentation state: its lines enclose the mask, and the radiograph below them looks as pleura shows it."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
from conftest import WriteDicom
from dicom_objects import FILED, f_shape, faults, needs, prediction_of, ramp
from PIL import Image
from pydicom.dataset import Dataset
from test_outline import filled

from pleura.data.phantoms.dicom_files import write_phantom_dataset
from pleura.dicom.instance import bytes_of


def table(entries: int, first: int, bits: int, values: np.ndarray, **more: str) -> list[Dataset]:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [entries, first, bits])
    item.add_new("LUTData", "OW", values.astype("<u2").tobytes())
    for keyword, value in more.items():
        setattr(item, keyword, value)
    return [item]


CURVE = np.rint(np.linspace(0, 1, 256) ** 2 * 65535)
WAYS = {
    "plain": {},
    "MONOCHROME1": {"PhotometricInterpretation": "MONOCHROME1"},
    "INVERSE": {"PresentationLUTShape": "INVERSE"},
    "window": {"WindowCenter": ["120", "10"], "WindowWidth": ["90", "5"]},
    "rescaled window": {"RescaleSlope": "2", "RescaleIntercept": "-100", "WindowCenter": "90", "WindowWidth": "200"},
    "VOI LUT": {"VOILUTSequence": table(256, 0, 16, CURVE)},
    "modality LUT": {
        "ModalityLUTSequence": table(256, 0, 16, CURVE, ModalityLUTType="US"),
        "WindowCenter": "9000",
        "WindowWidth": "17000",
    },
    "no window": {"WindowCenter": "1", "WindowWidth": "0"},
}


@pytest.mark.parametrize("way", list(WAYS))
def test_radiograph_looks_in_dcmtk_as_pleura_shows_it(write_dicom: WriteDicom, tmp_path: Path, way: str):
    source = write_dicom(ramp(60, 70), **FILED, **WAYS[way])
    found = prediction_of(source)
    state, shown = tmp_path / "state.dcm", tmp_path / "shown.pgm"
    state.write_bytes(bytes_of(found.to_gsps()))
    subprocess.run([needs("dcmp2pgm"), "-p", state, source, shown], check=True, capture_output=True, timeout=60)
    with Image.open(shown) as picture:
        values = np.asarray(picture).astype(np.float64)
    assert np.abs(values - found.radiograph.image * 255).max() <= 1.01


@pytest.mark.parametrize("shape", [(60, 47), (33, 70)])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_lines_enclose_the_mask(write_dicom: WriteDicom, shape: tuple[int, int], photometric: str):
    made = prediction_of(write_dicom(ramp(*shape), PhotometricInterpretation=photometric, **FILED)).to_gsps()
    state = pydicom.dcmread(io.BytesIO(bytes_of(made)))
    (annotation,) = state.GraphicAnnotationSequence
    lines = []
    for graphic in annotation.GraphicObjectSequence:
        assert (graphic.GraphicType, graphic.GraphicAnnotationUnits) == ("POLYLINE", "PIXEL")
        lines.append(np.array(graphic.GraphicData, dtype=np.int64).reshape(graphic.NumberOfGraphicPoints, 2))
    assert np.array_equal(filled(lines, shape), f_shape(*shape))
    assert annotation.GraphicLayer == state.GraphicLayerSequence[0].GraphicLayer
    assert "OverlayData" not in str(state)
    assert "not for diagnosis" in annotation.TextObjectSequence[0].UnformattedTextValue


def test_nothing_found_is_said_without_a_line(write_dicom: WriteDicom):
    found = prediction_of(write_dicom(ramp(20, 20), **FILED), np.zeros((20, 20), dtype=np.uint8))
    (annotation,) = found.to_gsps().GraphicAnnotationSequence
    assert "GraphicObjectSequence" not in annotation
    assert "no pneumothorax found" in annotation.TextObjectSequence[0].UnformattedTextValue


def test_pixels_that_are_not_square_keep_their_shape(write_dicom: WriteDicom):
    source = write_dicom(ramp(20, 20), **FILED, ImagerPixelSpacing=["0.3", "0.2"])
    (area,) = prediction_of(source).to_gsps().DisplayedAreaSelectionSequence
    assert list(area.PresentationPixelAspectRatio) == [3, 2]
    assert (list(area.DisplayedAreaBottomRightHandCorner), area.PresentationSizeMode) == ([20, 20], "SCALE TO FIT")


def test_dciodvfy_finds_no_error_in_what_phantoms_and_tables_give(write_dicom: WriteDicom, tmp_path: Path):
    write_phantom_dataset(tmp_path, n_patients=3, seed=2, size_px=33)
    sources = [*(tmp_path / "dicom").iterdir()]
    sources += [write_dicom(ramp(60, 70), f"{number}.dcm", **FILED, **way) for number, way in enumerate(WAYS.values())]
    for source in sources:
        assert faults(prediction_of(source).to_gsps(), tmp_path) == []
