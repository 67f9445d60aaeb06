"""Which segment of a DICOM-SEG is the pneumothorax: the one that says so, the one that is named, or a refusal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from mask_writers import write_segments
from pydicom.dataset import Dataset

from pleura.data.masks import open_masks
from pleura.dicom.seg_reading import LABEL_MAP_STORAGE
from pleura.errors import InputError

LUNG, PTX, HEART = (np.zeros((13, 12), np.uint8) for _ in range(3))
LUNG[1:12, 1:11], PTX[1:3, 1:4], HEART[6:11, 5:9] = 1, 1, 1


def segments_of(path: Path, *named: tuple[str, np.ndarray], image: str = "1.2.3", **more: object) -> Path:
    return write_segments(path, [(label, mask, image) for label, mask in named], **more)  # type: ignore[arg-type]


def area(path: Path, *segments: str, image: str = "1.2.3") -> int:
    return int(open_masks(path, segments=segments).masks[image].read().mask.sum())


def refused(path: Path, *segments: str) -> str:
    with pytest.raises(InputError) as caught:
        open_masks(path, segments=segments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "label", ["Pneumothorax", "PNEUMOTHORAX, left", "ptx", "Neumot\u00f3rax pneumot\u00f3rax", "lung_PTX"]
)
def test_one_segment_that_says_pneumothorax_is_read(tmp_path: Path, label: str) -> None:
    path = segments_of(tmp_path / "a.dcm", ("Lung", LUNG), (label, PTX), ("Heart", HEART))
    assert area(path) == PTX.sum()


def test_one_segment_is_read_whatever_its_label(tmp_path: Path) -> None:
    assert area(segments_of(tmp_path / "a.dcm", ("Segment 1", PTX))) == PTX.sum()


@pytest.mark.parametrize(("scheme", "value"), [("SCT", "36118008"), ("SRT", "D2-80300"), ("RADLEX", "RID5352")])
def test_code_says_pneumothorax_too(tmp_path: Path, scheme: str, value: str) -> None:
    path = segments_of(tmp_path / "a.dcm", ("1", LUNG), ("2", PTX))
    dataset = pydicom.dcmread(path)
    code = Dataset()
    code.CodingSchemeDesignator, code.CodeValue, code.CodeMeaning = scheme, value, "in another language"
    dataset.SegmentSequence[1].SegmentedPropertyTypeCodeSequence = [code]
    dataset.save_as(path)
    assert area(path) == PTX.sum()


@pytest.mark.parametrize(
    "named",
    [
        [("Lung", LUNG), ("Heart", HEART)],
        [("Lung", LUNG), ("No pneumothorax", PTX)],
        [("Pneumothorax left", PTX), ("Pneumothorax right", HEART)],
        [("", LUNG), ("", PTX)],
    ],
)
def test_several_segments_of_which_not_one_says_so_are_refused_by_their_names(
    tmp_path: Path, named: list[tuple[str, np.ndarray]]
) -> None:
    words = refused(segments_of(tmp_path / "a.dcm", *named))
    assert "--segment" in words
    assert all(label in words for label, _ in named)


@pytest.mark.parametrize(("segment", "mask"), [("1", LUNG), ("heart", HEART), (" Heart", HEART), ("3", HEART)])
def test_segment_is_named_by_number_or_label(tmp_path: Path, segment: str, mask: np.ndarray) -> None:
    path = segments_of(tmp_path / "a.dcm", ("Lung", LUNG), ("Pneumothorax", PTX), ("Heart", HEART))
    assert area(path, segment) == mask.sum()
    assert area(path, "pneumothorax", "heart") == (PTX | HEART).sum()
    assert "has no segment Spleen; it has 1 'Lung', 2 'Pneumothorax', 3 'Heart'" in refused(path, "Spleen")


def test_name_counts_only_where_there_is_a_choice(tmp_path: Path) -> None:
    assert area(segments_of(tmp_path / "a.dcm", ("truth", PTX)), "Pneumothorax") == PTX.sum()


@pytest.mark.parametrize("name", ["SG.2.25.1", "a.dcm"])
def test_dataset_without_file_meta_information_is_read(tmp_path: Path, name: str) -> None:
    content = segments_of(tmp_path / "whole.dcm", ("Pneumothorax", PTX)).read_bytes()
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / name).write_bytes(content[content.index(b"\x08\x00\x16\x00UI") :])
    (tmp_path / "bare" / "raw.bin").write_bytes(b"\x08\x00" + bytes(99))
    assert area(tmp_path / "bare") == PTX.sum()


def test_segment_without_a_frame_is_empty_and_the_others_do_not_stand_for_it(tmp_path: Path) -> None:
    path = segments_of(tmp_path / "a.dcm", ("Lung", LUNG), ("Pneumothorax", PTX))
    dataset = pydicom.dcmread(path)
    dataset.NumberOfFrames = 1
    dataset.PerFrameFunctionalGroupsSequence = dataset.PerFrameFunctionalGroupsSequence[:1]
    dataset.PixelData = dataset.PixelData[: -(-LUNG.size // 8) + 1]
    dataset.save_as(path)
    source = open_masks(path)
    assert source.known_empty("1.2.3")
    assert source.masks["1.2.3"].read().mask.shape == LUNG.shape
    assert area(path, "1") == LUNG.sum()


def test_files_of_other_segments_do_not_stand_for_each_other(tmp_path: Path) -> None:
    segments_of(tmp_path / "a.dcm", ("Lung", LUNG))
    segments_of(tmp_path / "b.dcm", ("Pneumothorax", PTX))
    assert "a.dcm: has the segments 1 'Lung', and other files have other ones" in refused(tmp_path)
    assert area(tmp_path, "Pneumothorax") == PTX.sum()
    segments_of(tmp_path / "a.dcm", ("Lung", LUNG), image="4.5.6")
    found = open_masks(tmp_path, segments=("Pneumothorax",))
    assert found.without_segment == ["4.5.6"]
    assert found.known_empty("4.5.6")


def test_frames_of_several_images_go_to_their_own(tmp_path: Path) -> None:
    path = write_segments(
        tmp_path / "a.dcm", [("Lung", LUNG, "1"), ("Pneumothorax", PTX, "1"), ("Pneumothorax", HEART, "2")]
    )
    assert [area(path, image=image) for image in "12"] == [PTX.sum(), HEART.sum()]


def test_segments_that_overlap_are_not_united(tmp_path: Path) -> None:
    assert area(segments_of(tmp_path / "a.dcm", ("Lung", LUNG), ("Pneumothorax", PTX & LUNG))) == (PTX & LUNG).sum()


def test_type_that_its_class_does_not_have_is_refused(tmp_path: Path) -> None:
    path = segments_of(tmp_path / "a.dcm", ("Pneumothorax", PTX), storage=LABEL_MAP_STORAGE)
    assert "its segmentation is BINARY, not LABELMAP" in refused(path)
    path = segments_of(tmp_path / "b.dcm", ("Pneumothorax", PTX), kind="LABELMAP")
    assert "its segmentation is LABELMAP, not BINARY or FRACTIONAL" in refused(path)


@pytest.mark.parametrize(("scheme", "category"), [("SCT", "123037004"), ("SRT", "T-D000A"), ("SCT", "260787004")])
def test_only_segment_that_is_coded_as_an_organ_or_a_device_is_not_taken_unasked(
    tmp_path: Path, scheme: str, category: str
) -> None:
    path = segments_of(tmp_path / "a.dcm", ("Segment 1", LUNG))
    dataset = pydicom.dcmread(path)
    for keyword, value, meaning in (("Category", category, "Anatomical Structure"), ("Type", "39607008", "Lung")):
        code = Dataset()
        code.CodingSchemeDesignator, code.CodeValue, code.CodeMeaning = scheme, value, meaning
        setattr(dataset.SegmentSequence[0], f"SegmentedProperty{keyword}CodeSequence", [code])
    dataset.save_as(path)
    assert "has the segments 1 'Segment 1' (coded as Lung), and none of them is said to be pneumothorax" in refused(
        path
    )
    assert "has no segment Pneumothorax" in refused(path, "Pneumothorax")
    assert area(path, "segment 1") == LUNG.sum()


def test_frames_that_do_not_say_their_segment_or_are_of_a_film_are_refused(tmp_path: Path) -> None:
    path = segments_of(tmp_path / "a.dcm", ("Lung", LUNG), ("Pneumothorax", PTX))
    dataset = pydicom.dcmread(path)
    for group in dataset.PerFrameFunctionalGroupsSequence:
        del group.SegmentIdentificationSequence
    dataset.save_as(tmp_path / "b.dcm")
    assert "its frame 1 does not say which of 2 segments it shows" in refused(tmp_path / "b.dcm")
    dataset = pydicom.dcmread(path)
    source = dataset.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence[0]
    source.ReferencedFrameNumber = 2
    dataset.save_as(tmp_path / "c.dcm")
    assert "frames of an image of several" in refused(tmp_path / "c.dcm")


def test_segmentation_that_is_cut_short_or_none_is_refused(tmp_path: Path, phantoms: Path) -> None:
    whole = segments_of(tmp_path / "w.dcm", ("Pneumothorax", PTX))
    whole.write_bytes(whole.read_bytes()[:-10])
    with pytest.raises(InputError, match=r"w\.dcm"):
        area(whole)
    assert "no segmentation" in refused(next(iter(sorted((phantoms / "dicom").glob("*.dcm")))))
