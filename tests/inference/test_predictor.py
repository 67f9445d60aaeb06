"""The one path from an image to a mask."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pydicom
import pytest
import torch
from PIL import Image
from shown import shown

from pleura.decision.laterality import side_of
from pleura.decision.triplet import REFERENCE_AREA_PX, Triplet
from pleura.errors import CheckpointError, InputError
from pleura.inference.predictor import Predictor
from pleura.models.checkpoint import load_checkpoint, net_of


def write_dicom(path, image):
    """A DICOM file of 8 bits without a window, which a PNG made from it equals."""
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = "1.2.3.4"
    dataset.Rows, dataset.Columns = image.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    dataset.PixelData = image.tobytes()
    dataset.save_as(path, enforce_file_format=True)


@pytest.fixture
def checkpoint(run):
    return load_checkpoint(run / "fold-0" / "best.safetensors")


def test_probabilities_come_back_where_their_pixels_were(checkpoint):
    settings = replace(checkpoint.preprocessing, prepared_px=256, size_px=64)
    predictor = Predictor([replace(checkpoint, preprocessing=settings)])
    # In place of a net, what it would see: 4 x 4 pixels of the prepared square averaged.
    predictor.probabilities = lambda squares: (squares / 255).reshape(-1, 64, 4, 64, 4).mean((2, 4)).astype(np.float32)
    rows, columns = np.mgrid[:611, :509]
    image = np.exp(-(((rows - 400) / 60) ** 2 + ((columns - 130) / 60) ** 2)).astype(np.float32)
    seen = predictor.predict(image).probabilities
    centre = [float((axis * seen).sum() / seen.sum()) for axis in (rows, columns)]
    true = [float((axis * image).sum() / image.sum()) for axis in (rows, columns)]
    np.testing.assert_allclose(centre, true, atol=0.3)


def test_weights_that_are_not_finite_are_refused_not_called_healthy(checkpoint):
    damaged = {key: tensor * float("nan") for key, tensor in checkpoint.weights.items()}
    with pytest.raises(CheckpointError, match="not finite"):
        Predictor([replace(checkpoint, weights=damaged)]).predict(np.eye(64, dtype=np.uint8))


def test_fold_that_finds_nothing_does_not_count_in_the_mean_triplet(checkpoint):
    rules = [Triplet(0.6, 100, 0.4), Triplet(1.0, REFERENCE_AREA_PX + 1, 1.0)]
    both = [replace(checkpoint, triplet=rule) for rule in rules]
    assert Predictor(both).triplet == rules[0]


def test_folds_of_different_preparation_do_not_mix(checkpoint):
    other = replace(checkpoint, preprocessing=replace(checkpoint.preprocessing, prepared_px=128))
    with pytest.raises(CheckpointError, match="different --size"):
        Predictor([checkpoint, other])


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 4, 3), np.uint8), np.full((4, 4), 2.0), np.full((4, 4), np.nan), np.zeros((0, 4), np.uint8), None, 7],
)
def test_array_that_is_no_image_is_refused(checkpoint, image):
    with pytest.raises(InputError):
        Predictor([checkpoint]).predict(image)


def test_same_pixels_are_the_same_prediction_whatever_they_come_as(checkpoint, tmp_path):
    predictor = Predictor([checkpoint])
    image = np.random.default_rng(0).integers(0, 256, (70, 61), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "a.png")
    write_dicom(tmp_path / "a.dcm", image)
    ways = {
        "file": str(tmp_path / "a.png"),
        "path": tmp_path / "a.dcm",
        "array": image,
        "array of floats": image / 255,
        "colour": np.stack([image] * 3, axis=-1),
        "picture": Image.open(tmp_path / "a.png"),
        "Dataset": pydicom.dcmread(tmp_path / "a.dcm"),
        "bytes": (tmp_path / "a.dcm").read_bytes(),
        "BytesIO": io.BytesIO((tmp_path / "a.png").read_bytes()),
        "tensor": torch.from_numpy(image)[None],
        "tensor of floats": torch.from_numpy(image) / 255,
    }
    first, *others = map(predictor.predict, ways.values())
    for one in others:
        np.testing.assert_array_equal(one.probabilities, first.probabilities)
        assert one.score == first.score
    many = list(predictor.predict_many(ways.values(), batch_size=3))
    assert len(many) == len(ways)
    for one in many:  # a batch of another size rounds in another way
        np.testing.assert_allclose(one.probabilities, first.probabilities, atol=1e-6)


def test_many_are_streamed_and_no_more_than_a_batch_is_read_ahead(checkpoint):
    predictor, read = Predictor([checkpoint]), []

    def images():
        for number in range(7):
            read.append(number)
            yield np.eye(64 + number, dtype=np.uint8)

    stream = predictor.predict_many(images(), batch_size=2)
    assert read == []
    shapes = []
    for number, prediction in enumerate(stream):
        shapes.append(prediction.predicted_mask.shape[0])
        assert len(read) <= number + 2
    assert shapes == list(range(64, 71))
    assert list(predictor.predict_many([])) == []


def test_those_before_a_bad_one_are_given_back(checkpoint):
    stream = Predictor([checkpoint]).predict_many([np.eye(64), np.eye(65), "nowhere.png", np.eye(66)])
    assert [next(stream).predicted_mask.shape[0] for _ in range(2)] == [64, 65]
    with pytest.raises(InputError, match=r"nowhere\.png"):
        next(stream)


@pytest.mark.parametrize("batch_size", [0, -1, 1.5, "4", None])
def test_batch_has_a_size(checkpoint, batch_size):
    with pytest.raises(InputError, match="batch_size is a whole number from 1 on"):
        Predictor([checkpoint]).predict_many([np.eye(64)], batch_size)


def test_single_one_is_refused_at_once(checkpoint):
    with pytest.raises(InputError, match="not one str"):
        Predictor([checkpoint]).predict_many("a.png")


def test_predictor_repr_is_one_line(checkpoint):
    text = repr(Predictor([checkpoint, checkpoint], device="cpu"))
    net = checkpoint.model
    assert text == f"Predictor(2 checkpoints, unet {net.encoder}, 64 px, tta='none', torch, cpu, float32)"


def test_unknown_tta_is_refused(checkpoint):
    with pytest.raises(InputError, match="none or flip"):
        Predictor([checkpoint], tta="rotate")


@pytest.mark.parametrize("recipe", [{}, {"tta": "none"}, {"tta": "flip"}])
@pytest.mark.parametrize("asked", [None, "none", "flip"])
def test_images_are_mirrored_as_asked_and_else_as_the_recipe_says(checkpoint, recipe, asked):
    predictor = Predictor([replace(checkpoint, recipe=recipe)], tta=asked)
    assert predictor.tta == (asked or recipe.get("tta", "none"))


def test_recipe_with_an_unknown_tta_is_refused(checkpoint):
    with pytest.raises(InputError, match="none or flip, not 'rotate'"):
        Predictor([replace(checkpoint, recipe={"tta": "rotate"})])


def test_checkpoints_count_by_their_weights(checkpoint):
    squares = np.random.default_rng(0).integers(0, 256, (2, 64, 64), dtype=np.uint8)
    other = replace(checkpoint, weights={key: tensor * 0.9 for key, tensor in checkpoint.weights.items()})
    one, two = (Predictor([each]).probabilities(squares) for each in (checkpoint, other))
    mean = Predictor([checkpoint, other], weights=[1, 3]).probabilities(squares)
    np.testing.assert_allclose(mean, 0.25 * one + 0.75 * two, atol=1e-6)
    assert abs(one - two).max() > 1e-3


def test_prediction_does_not_depend_on_the_images_beside_it(checkpoint):
    predictor = Predictor([checkpoint], device="cpu")
    squares = np.random.default_rng(0).integers(0, 256, (3, 64, 64), dtype=np.uint8)
    alone = [predictor.probabilities(square[None]) for square in squares]
    np.testing.assert_array_equal(predictor.probabilities(squares), np.concatenate(alone))
    assert predictor.probabilities(squares[:0]).shape == (0, *alone[0].shape[1:])


def test_nets_are_folded_and_compute_what_the_checkpoint_does(checkpoint):
    net, whole = Predictor([checkpoint], tta="none", engine="torch").engines[0].net, net_of(checkpoint).eval()
    images = torch.randn(1, checkpoint.model.in_channels, 64, 64, generator=torch.Generator().manual_seed(0))
    left, before = (sum(isinstance(module, torch.nn.BatchNorm2d) for module in each.modules()) for each in (net, whole))
    assert left < before
    with torch.no_grad():
        torch.testing.assert_close(net(images), whole(images), atol=1e-5, rtol=1e-5)


def test_patients_right_is_at_the_left_of_the_image():
    mask = np.zeros((4, 8), dtype=np.uint8)
    assert side_of(mask) is None
    mask[:, 1] = 1
    assert side_of(mask) == "R"
    assert side_of(mask[:, ::-1]) == "L"
    assert side_of(mask | mask[:, ::-1]) == "B"


def test_side_is_the_patients_whichever_way_the_image_is_turned():
    mask = np.zeros((20, 30), dtype=np.uint8)
    mask[2:6, 3:8] = 1  # on the patient's right in the usual display
    for turned, orientation in (
        (mask, ("L", "F")),
        (mask[:, ::-1], ("R", "F")),
        (mask[::-1], ("L", "H")),
        (mask.T, ("F", "L")),
        (mask.T[::-1], ("F", "R")),
        (mask.T[:, ::-1], ("H", "L")),
        (mask[::-1, ::-1], ("RH", "H")),
    ):
        assert side_of(np.ascontiguousarray(turned), orientation) == "R", orientation
    assert side_of(mask, ("A", "F")) is None  # a lateral radiograph shows neither side


@pytest.mark.parametrize("model", [3, None, b"best.safetensors"])
def test_what_is_no_path_names_no_model(model):
    with pytest.raises(CheckpointError, match="a model is named by its path"):
        Predictor.load(model)


@pytest.mark.usefixtures("bfloat16_is_faster")
@pytest.mark.parametrize(
    ("recipe", "asked", "expected"),
    [
        ({}, None, "bfloat16"),
        ({"precision": "bfloat16"}, "float32", "float32"),
        ({"precision": "float32"}, None, "float32"),
        ({"precision": "float32"}, "auto", "bfloat16"),
    ],
)
def test_a_net_computes_in_what_is_asked_for_else_in_float32_if_its_recipe_says_so(checkpoint, recipe, asked, expected):
    predictor = Predictor([shown(replace(checkpoint, recipe=recipe))], precision=asked)
    assert predictor.precision == expected
    exact = Predictor([checkpoint], precision="float32")
    squares = np.random.default_rng(0).integers(0, 256, (2, 64, 64), dtype=np.uint8)
    found, wanted = predictor.probabilities(squares), exact.probabilities(squares)
    assert found.dtype == np.float32
    assert np.array_equal(found, wanted) == (expected == "float32")
    np.testing.assert_allclose(found, wanted, atol=0.05)


@pytest.mark.usefixtures("bfloat16_is_faster")
def test_members_of_an_ensemble_compute_in_what_their_own_headers_show(checkpoint):
    bare = replace(checkpoint, recipe={})
    assert Predictor([bare, shown(bare)]).precision == "mixed"
    assert Predictor([bare, bare]).precision == "float32"
    assert Predictor([bare, shown(bare)], precision="bfloat16").precision == "bfloat16"


@pytest.mark.usefixtures("bfloat16_is_faster")
def test_what_was_shown_with_mirror_images_is_not_shown_without(checkpoint):
    member = shown(replace(checkpoint, recipe={"tta": "none"}))
    assert Predictor([member]).precision == "bfloat16"
    assert Predictor([member], tta="flip").precision == "float32"


def test_an_unknown_precision_is_refused(checkpoint):
    with pytest.raises(InputError, match="precision is auto, float32, bfloat16, not 'half'"):
        Predictor([checkpoint], precision="half")
