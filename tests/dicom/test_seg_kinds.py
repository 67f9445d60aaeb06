"""Binary, fractional and label map segmentations of any tool: what is written is what is read, image by image."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mask_writers import write_kind
from PIL import Image
from pydicom import uid

from pleura.data.masks import MaskSource, open_masks
from pleura.data.prepare import PrepareSettings, prepare
from pleura.errors import InputError
from pleura.evaluation.score import ScoreSettings, score

KINDS = ("BINARY", "FRACTIONAL", "LABELMAP")
UPPER, LOWER = np.zeros((5, 7), np.uint8), np.zeros((5, 7), np.uint8)
UPPER[:2, 1:4], LOWER[3:, 2:] = 1, 1


def read(source: MaskSource, image: str) -> np.ndarray:
    return source.masks[image].read().mask


def refused(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        [mask.read() for mask in open_masks(path).masks.values()]
    assert "\n" not in str(caught.value)
    return str(caught.value)


@settings(max_examples=60)
@given(
    kind=st.sampled_from(KINDS),
    rows=st.integers(1, 11),
    columns=st.integers(1, 19),
    images=st.integers(1, 3),
    numbers=st.lists(st.integers(1, 300), min_size=1, max_size=3, unique=True).map(sorted),
    omit_empty=st.booleans(),
    seed=st.integers(0, 99),
)
@example("BINARY", 5, 3, 3, [1, 2], True, 1)  # 15 bits a frame: no frame but the first begins with a byte
@example("LABELMAP", 3, 3, 2, [2, 300], True, 1)  # 16 bits
def test_pneumothorax_of_each_image_is_read_as_written_and_other_segments_are_not(
    kind, rows, columns, images, numbers, omit_empty, seed
):
    rng = np.random.default_rng(seed)
    labels = rng.choice([0, *numbers], size=(images, rows, columns)) * rng.integers(0, 2, size=(images, 1, 1))
    labels[0, 0, 0] = numbers[0]  # one frame at least
    masks = {(f"1.{at}", n): (labels[at] == n).astype(np.uint8) for at in range(images) for n in numbers}
    with tempfile.TemporaryDirectory() as folder:
        source = open_masks(write_kind(Path(folder) / "a.dcm", masks, kind, omit_empty))
        assert set(source.masks) == {image for image, _ in masks}
        for image in source.masks:
            np.testing.assert_array_equal(read(source, image), masks[image, numbers[0]])


@pytest.mark.parametrize("full", [1, 100, 255])
def test_fractional_one_is_mask_from_a_half_on_and_says_so(tmp_path: Path, full: int) -> None:
    values = np.linspace(0, 1, 35).reshape(5, 7)
    source = open_masks(write_kind(tmp_path / "a.dcm", {("1.2", 1): values}, "FRACTIONAL", full=full))
    np.testing.assert_array_equal(read(source, "1.2"), 2 * np.rint(values * full) >= full)
    assert source.fractional == ["1.2, of PROBABILITY"]


def test_fractional_one_without_its_full_scale_is_refused(tmp_path: Path) -> None:
    path = write_kind(tmp_path / "a.dcm", {("1.2", 1): UPPER}, "FRACTIONAL")
    dataset = pydicom.dcmread(path)
    del dataset.MaximumFractionalValue
    dataset.save_as(path)
    assert "with 0 for its Maximum Fractional Value" in refused(path)


@pytest.mark.parametrize("background", [0, 255, None])
def test_background_of_a_label_map_is_no_segment(tmp_path: Path, background: int | None) -> None:
    path = write_kind(tmp_path / "a.dcm", {("1.2", 7): UPPER, ("1.2", 9): LOWER}, "LABELMAP", background=background)
    np.testing.assert_array_equal(read(open_masks(path), "1.2"), UPPER)
    np.testing.assert_array_equal(read(open_masks(path, segments=["9"]), "1.2"), LOWER)
    alone = write_kind(tmp_path / "b.dcm", {("1.2", 7): UPPER}, "LABELMAP", background=background)
    np.testing.assert_array_equal(read(open_masks(alone), "1.2"), UPPER)


@pytest.mark.parametrize("names_its_image", [True, False])
def test_label_map_with_no_segment_but_its_background_is_the_empty_mask(tmp_path: Path, names_its_image: bool) -> None:
    path = write_kind(tmp_path / "a.dcm", {("1.2", 7): UPPER}, "LABELMAP")
    dataset = pydicom.dcmread(path)
    del dataset.SegmentSequence[1]
    dataset.PixelData = bytes(len(dataset.PixelData))
    if not names_its_image:
        del dataset.ReferencedSeriesSequence, dataset.PerFrameFunctionalGroupsSequence
    dataset.save_as(path)
    source = open_masks(path)
    assert list(source.masks) == (["1.2"] if names_its_image else ["a"])
    assert not read(source, next(iter(source.masks))).any()


def test_label_map_that_does_not_say_what_its_labels_are_is_refused(tmp_path: Path) -> None:
    path = write_kind(tmp_path / "a.dcm", {("1.2", 7): UPPER}, "LABELMAP")
    dataset = pydicom.dcmread(path)
    dataset.SegmentSequence[1].SegmentNumber = 1
    dataset.save_as(path)
    assert f"{path}: its pixels have the label 7, and its Segment Sequence names 1; export it again" in refused(path)
    del dataset.SegmentSequence
    dataset.save_as(path)
    assert f"{path}: it is a label map without a Segment Sequence to say what its labels are" in refused(path)


@pytest.mark.parametrize("kind", KINDS)
def test_image_that_is_referenced_and_in_no_frame_is_empty_and_listed(tmp_path: Path, kind: str) -> None:
    source = open_masks(write_kind(tmp_path / "a.dcm", {("1.2", 1): UPPER}, kind, images=["1.3"]))
    assert source.without_frame == ["1.3"]
    assert source.known_empty("1.3")
    assert read(source, "1.3").shape == UPPER.shape
    np.testing.assert_array_equal(read(source, "1.2"), UPPER)


def test_one_without_frames_that_references_nothing_is_the_empty_mask_of_its_name(tmp_path: Path) -> None:
    path = write_kind(tmp_path / "a.dcm", {("1.2", 1): UPPER}, "BINARY")
    dataset = pydicom.dcmread(path)
    del dataset.ReferencedSeriesSequence, dataset.PerFrameFunctionalGroupsSequence, dataset.PixelData
    dataset.NumberOfFrames = 0
    dataset.save_as(path)
    source = open_masks(path)
    assert source.without_frame == ["a"]
    assert source.known_empty("a")
    assert read(source, "a").shape == UPPER.shape


def test_frame_that_does_not_say_which_of_several_images_it_outlines_is_refused(tmp_path: Path) -> None:
    path = write_kind(tmp_path / "a.dcm", {("1.2", 1): UPPER, ("1.3", 1): LOWER}, "BINARY")
    dataset = pydicom.dcmread(path)
    del dataset.PerFrameFunctionalGroupsSequence[1].DerivationImageSequence
    dataset.save_as(path)
    assert "its frame 2 does not say which of 2 images it outlines" in refused(path)


@pytest.mark.parametrize("syntax", [uid.RLELossless, uid.JPEG2000Lossless, uid.DeflatedExplicitVRLittleEndian])
@pytest.mark.parametrize("kind", ["FRACTIONAL", "LABELMAP"])
def test_compressed_one_is_read_bit_for_bit(tmp_path: Path, kind: str, syntax: str) -> None:
    wide = {("1.2", 1): UPPER.repeat(9, 0).repeat(9, 1), ("1.3", 1): LOWER.repeat(9, 0).repeat(9, 1)}
    path = write_kind(tmp_path / "a.dcm", wide, kind)
    dataset = pydicom.dcmread(path)
    if syntax == uid.JPEG2000Lossless:
        dataset.PixelData = pydicom.encaps.encapsulate(in_jpeg2000(dataset))
        dataset["PixelData"].VR, dataset.file_meta.TransferSyntaxUID = "OB", syntax
    elif syntax == uid.RLELossless:
        dataset.compress(syntax, encoding_plugin="pydicom", generate_instance_uid=False)
    else:
        dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path)
    source = open_masks(path)
    for (image, _), mask in wide.items():
        np.testing.assert_array_equal(read(source, image), mask)


def in_jpeg2000(dataset: pydicom.Dataset) -> list[bytes]:
    """The frames, without loss."""
    coded = []
    for frame in dataset.pixel_array:
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, "JPEG2000", no_jp2=True, irreversible=False)
        coded.append(buffer.getvalue())
    return coded


def test_compression_that_nothing_reads_is_named(tmp_path: Path) -> None:
    path = write_kind(tmp_path / "a.dcm", {("1.2", 1): UPPER}, "LABELMAP")
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = uid.HTJ2KLossless
    dataset.PixelData = pydicom.encaps.encapsulate([b"\xff\x4f\xff\x51"])
    dataset["PixelData"].VR = "OB"
    dataset.save_as(path)
    assert refused(path).count(str(path)) == 1
    assert "export it without compression" in refused(path)


@pytest.mark.parametrize("kind", KINDS)
def test_corrections_of_a_viewer_become_a_dataset_and_score_as_the_masks_that_they_are(
    tmp_path: Path, phantoms: Path, kind: str
) -> None:
    for file in sorted((phantoms / "dicom").glob("*.dcm"))[:6]:
        mask = open_masks(phantoms / "masks.csv").masks[file.stem].read((1024, 1024)).mask
        own = mask[np.ix_(np.arange(96) * 1024 // 96, np.arange(96) * 1024 // 96)]
        lung = np.roll(1 - own, 3, axis=0) * (own == 0)
        write_kind(tmp_path / "segs" / f"{file.stem}.dcm", {(file.stem, 1): own, (file.stem, 2): lung}, kind, True)
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "images" / file.name).write_bytes(file.read_bytes())
    made = PrepareSettings(tmp_path / "images", (tmp_path / "segs",), tmp_path / "data", size_px=96, folds=2, workers=1)
    prepare(made)
    found = score(ScoreSettings(tmp_path / "data", tmp_path / "segs", resamples=10)).report
    assert found.images == 6
    assert found.metrics["siim_dice"].value == found.pooled_dice == 1
    said = [str(finding) for finding in found.findings]
    assert any("segmentations of the prediction are fractional" in each for each in said) == (kind == "FRACTIONAL")


def test_files_of_one_image_are_united_and_listed(tmp_path: Path) -> None:
    write_kind(tmp_path / "a.dcm", {("1.2", 1): UPPER}, "BINARY")
    write_kind(tmp_path / "b.dcm", {("1.2", 1): LOWER}, "LABELMAP")
    source = open_masks(tmp_path)
    np.testing.assert_array_equal(read(source, "1.2"), UPPER | LOWER)
    assert source.united == ["1.2"]


@pytest.mark.parametrize("kind", KINDS)
def test_mask_on_another_grid_than_its_image_is_refused_for_training(tmp_path: Path, phantoms: Path, kind: str) -> None:
    files = sorted((phantoms / "dicom").glob("*.dcm"))[:2]
    write_kind(tmp_path / "segs" / "a.dcm", {(file.stem, 1): UPPER for file in files}, kind)
    with pytest.raises(InputError, match="the mask has 5 x 7 px, its image 96 x 96; save it on the image's grid"):
        prepare(
            PrepareSettings(phantoms / "dicom", (tmp_path / "segs",), tmp_path / "data", size_px=32, folds=2, workers=1)
        )
