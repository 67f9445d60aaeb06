"""An F comes back as an F by every output, however its radiograph is stored, turned, shaped and compressed.

Its pixels are known, so each object is read by means of its own kind (bits, lines, colours), and not by what wrote it.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pydicom
import pytest
from conftest import GDCM_NAMES, WriteDicom
from dicom_objects import FILED, f_shape, prediction_of
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset
from test_outline import filled

from pleura.data import rle
from pleura.data.masks import open_masks
from pleura.decision.triplet import Triplet
from pleura.inference.prediction import Prediction
from pleura.inference.predictor import Predictor
from pleura.inference.writers import WRITES, entry_of, on_siim_grid, write_files

LOSSY = (uid.JPEGBaseline8Bit, uid.JPEG2000, uid.JPEGLSNearLossless)
SYNTAXES = (
    *(uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian, uid.RLELossless),
    *(uid.DeflatedExplicitVRLittleEndian, uid.JPEGLossless, uid.JPEGLosslessSV1, uid.JPEGLSLossless),
    *(uid.JPEG2000Lossless, *LOSSY),
)
ORIENTATIONS = {
    None: "right",  # assumed
    ("L", "F"): "right",
    ("R", "F"): "left",  # mirrored
    ("L", "H"): "right",  # upside down
    ("R", "H"): "left",
    ("F", "L"): "right",  # turned: the F lies where columns begin
    ("F", "R"): "left",
    ("H", "R"): "left",
    ("P", "F"): "side not known",  # a lateral one
    ("A", "F"): "side not known",
}
"""Patient Orientation -> the side of an F in the upper left, in words."""
TURNED = {("L", "H"), ("R", "H"), ("F", "L"), ("F", "R"), ("H", "R")}
ASPECTS = {1.0: {}, 2.0: {"PixelAspectRatio": ["2", "1"]}, 0.5: {"PixelSpacing": ["0.2", "0.4"]}}
"""How many times as high as wide pixels are -> what says so."""
RATIO_BY_GDCM = {"ImagerPixelSpacing": ["0.4", "0.2"]}
"""For the ratio of 2 in files that GDCM compresses: it adds a spacing of 1, 1 of its own where there is none."""
SHAPES = ((60, 47), (33, 70), (64, 64), (47, 60))


class Way(NamedTuple):
    """How a radiograph is stored."""

    photometric: str
    orientation: tuple[str, str] | None
    aspect: float
    syntax: str
    shape: tuple[int, int]

    def __str__(self) -> str:
        turned = "".join(self.orientation or ("none",))
        return f"{self.photometric[-1]}-{turned}-{self.aspect:g}-{uid.UID(self.syntax).keyword}-{self.shape[0]}"


WAYS = [
    Way(*one, SYNTAXES[(number + number // 12) % 12], SHAPES[number % 4])  # each syntax meets each aspect and shape
    for number, one in enumerate(product(("MONOCHROME1", "MONOCHROME2"), ORIENTATIONS, ASPECTS))
]


def shown(rows: int, columns: int) -> np.ndarray:
    """Grey values as a reader sees them: a dark ground that no flip and no rotation maps on itself, and a bright F."""
    ground = np.add.outer(60 * np.arange(rows) / rows, 30 * np.arange(columns) / columns)
    return (ground + 150 * f_shape(rows, columns)).astype(np.uint8)


def stored(write: WriteDicom, way: Way) -> Path:
    values = shown(*way.shape)
    return write(
        255 - values if way.photometric == "MONOCHROME1" else values,
        syntax=way.syntax,
        PhotometricInterpretation=way.photometric,
        PatientOrientation=list(way.orientation) if way.orientation else None,
        **(RATIO_BY_GDCM if way.aspect == 2 and way.syntax in GDCM_NAMES else ASPECTS[way.aspect]),
        **FILED,
    )


def squared(values: np.ndarray, aspect: float) -> np.ndarray:
    """The same with square pixels: each as often as it is long."""
    return values.repeat(max(1, round(aspect)), 0).repeat(max(1, round(1 / aspect)), 1)


def written(prediction: Prediction, folder: Path) -> dict[str, Path]:
    """The files of every word of --write but the table's."""
    assert write_files(folder, WRITES, prediction) is None
    return {path.parent.name: path for path in folder.glob("*/*") if path.suffix in (".png", ".dcm")}


def bits(seg: Dataset) -> np.ndarray:
    """The frame of a binary segmentation: the lowest bit first, and no row padded. Source: DICOM PS3.5 8.1.1."""
    values = np.unpackbits(np.frombuffer(seg.PixelData, np.uint8), bitorder="little")
    return values[: seg.Rows * seg.Columns].reshape(seg.Rows, seg.Columns)


def enclosed(state: Dataset) -> np.ndarray:
    """What the lines of a presentation state enclose on the radiograph's own grid."""
    columns, rows = state.DisplayedAreaSelectionSequence[0].DisplayedAreaBottomRightHandCorner
    graphics = state.GraphicAnnotationSequence[0].GraphicObjectSequence
    assert {graphic.GraphicAnnotationUnits for graphic in graphics} == {"PIXEL"}
    points = [np.array(graphic.GraphicData, np.int64).reshape(-1, 2) for graphic in graphics]
    return filled(points, (rows, columns))


def coloured(picture: np.ndarray) -> np.ndarray:
    """Where a picture is tinted, and not grey."""
    return (picture[..., 0] != picture[..., 1]).astype(np.uint8)


def test_ways_meet_each_other():
    assert {(way.photometric, way.syntax) for way in WAYS} == set(product(("MONOCHROME1", "MONOCHROME2"), SYNTAXES))
    assert {(way.shape, way.aspect) for way in WAYS} == set(product(SHAPES, ASPECTS))
    assert {(way.syntax, way.aspect) for way in WAYS} == set(product(SYNTAXES, ASPECTS))
    assert {way.orientation for way in WAYS} == set(ORIENTATIONS)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_every_output_has_the_f_where_the_radiograph_has_it(write_dicom: WriteDicom, tmp_path: Path, way: Way):
    prediction, mask = prediction_of(stored(write_dicom, way)), f_shape(*way.shape)
    files = written(prediction, tmp_path / "out")
    objects = {word: pydicom.dcmread(path) for word, path in files.items() if path.suffix == ".dcm"}

    assert np.array_equal(np.asarray(Image.open(files["masks"])), mask * 255)
    assert np.array_equal(bits(objects["seg"]), mask)
    assert np.array_equal(objects["seg-occupancy"].pixel_array, mask * 255)
    shares = objects["seg-fractional"].pixel_array / 255
    assert np.abs(shares - prediction.probabilities).max() <= 0.5 / 255 + 1e-6
    for word in ("seg", "seg-occupancy", "seg-fractional"):  # as `pleura score` reads them
        assert np.array_equal(open_masks(files[word]).masks["1.2.3.4"].read().mask, mask), word
    assert np.array_equal(enclosed(objects["gsps"]), mask)

    square = squared(mask, way.aspect)
    rows, columns = square.shape
    for picture in (objects["sc"].pixel_array, np.asarray(Image.open(files["overlays"]))):
        assert np.array_equal(coloured(picture[:rows, :columns]), square)
        grey = picture[:rows, :columns, 0].astype(float) - squared(shown(*way.shape), way.aspect)
        assert np.abs(grey[square == 0]).mean() < (6 if way.syntax in LOSSY else 2)  # a flipped one differs by 15

    assert np.array_equal(rle.decode(prediction.to_dict()["mask_rle"], way.shape), mask)
    grid = on_siim_grid(prediction).shape
    runs = rle.decode(entry_of(prediction, "", ("rle",))["runs"], grid)
    assert np.array_equal(runs, mask if grid == way.shape else mask.repeat(16, 0).repeat(16, 1))


@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=str)
def test_orientation_is_handed_on_and_the_side_is_said_as_far_as_it_is_known(
    write_dicom: WriteDicom, tmp_path: Path, orientation: tuple[str, str] | None
):
    way = Way("MONOCHROME2", orientation, 1.0, uid.ExplicitVRLittleEndian, (60, 47))
    prediction = prediction_of(stored(write_dicom, way))
    side, files = ORIENTATIONS[orientation], written(prediction, tmp_path / "out")
    seg, sc, gsps, sr = (pydicom.dcmread(files[word]) for word in ("seg", "sc", "gsps", "sr"))

    assert prediction.side == {"right": "R", "left": "L"}.get(side)
    assert list(seg.PatientOrientation or ()) == list(sc.PatientOrientation or ()) == list(orientation or ())
    words = f"pneumothorax, {side}, "
    text = gsps.GraphicAnnotationSequence[0].TextObjectSequence[0].UnformattedTextValue
    for said in (seg.SegmentSequence[0].SegmentDescription, sc.DerivationDescription, text):
        assert words in said
        assert ("side as in the usual display" in said) == (orientation is None)
    codes = {code.CodeMeaning for _, code in codes_of(seg)}
    report = {name: code.CodeMeaning for name, code in codes_of(sr)}
    known = side.capitalize() if orientation and prediction.side else None
    assert codes & {"Right", "Left", "Right and left"} == ({known} if known else set())
    assert report.get("Laterality") == known
    assert ("not upright" in " ".join(prediction.radiograph.notes)) == (orientation in TURNED)
    assert ("not the frontal" in " ".join(prediction.radiograph.notes)) == (side == "side not known")


def codes_of(dataset: Dataset) -> list[tuple[str, Dataset]]:
    """Each code of a dataset, with the name of its content item, or else of its sequence."""
    found = []
    for element in dataset.iterall():
        if element.keyword == "ContentSequence":
            coded = [item for item in element.value if item.ValueType == "CODE"]
            found += [(item.ConceptNameCodeSequence[0].CodeMeaning, item.ConceptCodeSequence[0]) for item in coded]
        elif element.VR == "SQ" and len(element.value) and "CodeMeaning" in element.value[0]:
            found += [(element.keyword, element.value[0])]
    return found


def test_report_has_no_coordinates_of_its_own_and_refers_to_the_image_and_its_mask(write_dicom: WriteDicom):
    prediction = prediction_of(stored(write_dicom, WAYS[0]))
    seg = prediction.to_seg()
    items = [item for element in prediction.to_sr(seg).iterall() if element.keyword == "ContentSequence"
             for item in element.value]  # fmt: skip
    assert not {item.ValueType for item in items} & {"SCOORD", "SCOORD3D"}
    images = [item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in items if item.ValueType == "IMAGE"]
    assert images == [seg.SOPInstanceUID, "1.2.3.4"]


def test_large_radiograph_has_the_f_in_every_object(write_dicom: WriteDicom):
    way = Way("MONOCHROME1", ("L", "F"), 1.0, uid.JPEGLSLossless, (3000, 2400))
    prediction, mask = prediction_of(stored(write_dicom, way)), f_shape(*way.shape)
    assert np.array_equal(bits(prediction.to_seg()), mask)
    assert np.array_equal(enclosed(prediction.to_gsps()), mask)
    assert np.array_equal(on_siim_grid(prediction), mask)
    rows, columns = 2048, round(2400 * 2048 / 3000)
    picture = prediction.to_sc().pixel_array[:rows, :columns]
    reduced = np.asarray(Image.fromarray(mask * 255).resize((columns, rows), Image.Resampling.BOX)) / 255
    clear = (reduced == 0) | (reduced == 1)  # pixels that no edge of the F crosses
    assert np.array_equal(coloured(picture)[clear], reduced[clear].astype(np.uint8))
    grey = np.asarray(Image.fromarray(shown(*way.shape)).resize((columns, rows), Image.Resampling.BOX)).astype(float)
    assert np.abs(picture[..., 0] - grey)[reduced == 0].mean() < 2


@pytest.fixture(scope="module")
def finder() -> Predictor:
    """A predictor that finds what is bright, in place of a net: the way to its mask and back is the real one."""
    predictor = Predictor.load(device="cpu")
    predictor.probabilities = lambda squares: squares.astype(np.float32) / 255  # type: ignore[method-assign]
    predictor.triplet = Triplet(0.5, 0, 0.5)
    return predictor


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("aspect", ASPECTS)
@pytest.mark.parametrize("shape", [(300, 235), (165, 350)])
def test_what_a_net_finds_on_the_picture_it_is_shown_is_where_the_radiograph_has_it(
    write_dicom: WriteDicom, finder: Predictor, shape: tuple[int, int], aspect: float, photometric: str
):
    path = stored(write_dicom, Way(photometric, ("R", "F"), aspect, uid.ExplicitVRLittleEndian, shape))
    found, mask = finder.predict(path), f_shape(*shape)
    overlap = (found.predicted_mask & mask).sum() / (found.predicted_mask | mask).sum()
    assert overlap > 0.9
    assert found.side == "L"
    assert np.array_equal(bits(found.to_seg()), found.predicted_mask)
