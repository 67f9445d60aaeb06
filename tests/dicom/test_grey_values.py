"""Grey values before the window: all that the file has, and the window under which they are what the net is shown."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from test_lut import DOWN, UP, item

from pleura.data.radiograph import read_radiograph
from pleura.dicom.grey_values import GreyValues

ROWS, COLUMNS = np.mgrid[:64, :64]
RAMP_12 = (ROWS * 64 + COLUMNS).astype(np.uint16)
SIGNED = (RAMP_12.astype(np.int32) - 2000).astype(np.int16)
RAMP_8 = (RAMP_12 // 16).astype(np.uint8)
PART_8 = (RAMP_8 // 2 + 40).astype(np.uint8)
WINDOW = {"WindowCenter": "1700", "WindowWidth": "900"}


def brightness(grey: GreyValues) -> NDArray[np.float64]:
    """What a viewer shows: in [0, 1]."""
    place = np.clip((grey.values.astype(np.float64) - grey.center) / grey.width + 0.5, 0, 1)
    if grey.curve is None:
        return place
    return np.interp(place, np.linspace(0, 1, grey.curve.size), grey.curve / 255)


HEADERS: dict[str, tuple[NDArray[Any], dict[str, Any]]] = {
    "no window": (RAMP_12 + np.uint16(90), {}),
    "8 bits": (RAMP_8, {}),
    "a part of 8 bits": (PART_8, {}),
    "a part of 8 bits, inverted": (PART_8, {"PhotometricInterpretation": "MONOCHROME1"}),
    "window": (RAMP_12, WINDOW),
    "window, inverted": (RAMP_12, WINDOW | {"PhotometricInterpretation": "MONOCHROME1"}),
    "exact window": (RAMP_12, WINDOW | {"VOILUTFunction": "LINEAR_EXACT"}),
    "step": (RAMP_12, {"WindowCenter": "1700", "WindowWidth": "1"}),
    "sigmoid": (RAMP_12, WINDOW | {"VOILUTFunction": "SIGMOID"}),
    "sigmoid, inverted": (RAMP_12, WINDOW | {"VOILUTFunction": "SIGMOID", "PresentationLUTShape": "INVERSE"}),
    "rescale": (
        SIGNED,
        {"RescaleSlope": "2.5", "RescaleIntercept": "-40", "WindowCenter": "300", "WindowWidth": "4000"},
    ),
    "falling rescale": (SIGNED, {"RescaleSlope": "-0.5", "RescaleIntercept": "7"}),
    "falling rescale, inverted": (
        SIGNED,
        {"RescaleSlope": "-2", "RescaleIntercept": "7", "PhotometricInterpretation": "MONOCHROME1"},
    ),
    "padding": (RAMP_12, WINDOW | {"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 200}),
    "padding, inverted": (
        RAMP_12,
        {"PixelPaddingValue": 4000, "PixelPaddingRangeLimit": 4095, "PhotometricInterpretation": "MONOCHROME1"},
    ),
    "modality LUT": (RAMP_12, {"ModalityLUTSequence": [item(DOWN, 0, 12)]}),
    "VOI LUT": (RAMP_12, {"VOILUTSequence": [item(UP**2 // 4095, 0, 12)]}),
    "VOI LUT of a part": (RAMP_12, {"VOILUTSequence": [item(UP[::8], 1000, 12)]}),
    "falling VOI LUT": (RAMP_12, {"VOILUTSequence": [item(DOWN, 0, 12)], "PhotometricInterpretation": "MONOCHROME1"}),
}


@pytest.mark.parametrize("name", list(HEADERS))
def test_the_first_window_shows_what_the_net_is_shown(write_dicom, name: str) -> None:
    stored, attributes = HEADERS[name]
    radiograph = read_radiograph(write_dicom(stored, **attributes), with_grey=True)
    assert radiograph.grey is not None
    padding = (stored >= attributes.get("PixelPaddingValue", 1)) & (
        stored <= attributes.get("PixelPaddingRangeLimit", 0)
    )
    difference = np.abs(brightness(radiograph.grey) - radiograph.image)[~padding]
    assert difference.max() < 1.5 / 255
    assert (radiograph.grey.values[padding] == 0).all()
    assert read_radiograph(write_dicom(stored, **attributes)).grey is None, "it costs memory"


@pytest.mark.parametrize("name", list(HEADERS))
def test_no_grey_value_of_the_file_is_lost_and_brighter_ones_are_larger(write_dicom, name: str) -> None:
    stored, attributes = HEADERS[name]
    radiograph = read_radiograph(write_dicom(stored, **attributes), with_grey=True)
    grey = radiograph.grey
    assert grey is not None
    hidden = (stored >= attributes.get("PixelPaddingValue", 1)) & (
        stored <= attributes.get("PixelPaddingRangeLimit", 0)
    )
    assert len(np.unique(grey.values[~hidden])) == len(np.unique(stored[~hidden]))
    order = np.argsort(grey.values[~hidden], kind="stable")
    if "falling VOI" not in name:
        assert (np.diff(radiograph.image[~hidden][order]) >= 0).all()
    slope, intercept = float(attributes.get("RescaleSlope", 1)), float(attributes.get("RescaleIntercept", 0))
    if "modality" not in name:
        real = grey.values[~hidden] * grey.slope + grey.intercept
        np.testing.assert_allclose(real, stored[~hidden] * slope + intercept, atol=1e-9)


@pytest.mark.parametrize(("bits", "kind"), [(8, np.uint8), (12, np.uint16), (16, np.uint16)])
def test_a_picture_has_the_whole_range_of_its_depth_as_window(tmp_path, bits: int, kind: Any) -> None:
    from PIL import Image

    values = (RAMP_12.astype(np.float64) / 4095 * (2**bits - 1)).astype(kind)
    Image.fromarray(values).save(tmp_path / "a.png")
    radiograph = read_radiograph(tmp_path / "a.png", with_grey=True)
    assert radiograph.grey is not None
    np.testing.assert_array_equal(radiograph.grey.values, values)
    assert radiograph.grey.values.dtype == kind
    np.testing.assert_allclose(brightness(radiograph.grey), radiograph.image, atol=1e-6)
