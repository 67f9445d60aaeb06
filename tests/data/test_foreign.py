"""Masks of any tool: every form gives the same masks, one at a time, and what is wrong is one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from foreign_masks import SIDE, some_masks, write_csv, write_pngs, write_seg
from PIL import Image

from pleura.data.foreign import ForeignMasks, open_masks, read_pair
from pleura.errors import InputError

MASKS = some_masks()
GRID = (SIDE, SIDE)


def holds(found: ForeignMasks, masks: dict[str, np.ndarray] = MASKS) -> None:
    assert set(found.read) == set(masks)
    for image_id, mask in masks.items():
        np.testing.assert_array_equal(found.read[image_id](GRID).mask, mask)


@pytest.mark.parametrize(
    "header", ["ImageId, EncodedPixels", "image_id,rle", "fname,mask_rle", "\ufeffIMG_ID,Encoded_Pixels", "id,pixels"]
)
def test_a_csv_is_read_under_any_of_the_usual_headers(tmp_path: Path, header: str) -> None:
    holds(open_masks(write_csv(tmp_path / "a.csv", MASKS, header)))


def test_several_rows_are_united_and_suffixes_of_ids_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("x,ImageId,EncodedPixels\n0,images/a.dcm,0 2\n1,images/a.dcm,4 1\n2,b.png,-1\n3,c,\n4,d,nan\n")
    found = open_masks(path, (4, 4))
    assert np.flatnonzero(found.read["images/a"](None).mask.T).tolist() == [0, 1, 4]
    assert (found.empty, found.blank) == ({"b", "c", "d"}, 2)


@pytest.mark.parametrize("one", [1, 255, 7])
def test_pngs_of_0_and_one_other_value_are_masks(tmp_path: Path, one: int) -> None:
    found = open_masks(write_pngs(tmp_path / "masks", MASKS, one))
    holds(found)
    assert {int(found.read[key](None).levels[-1]) for key, mask in MASKS.items() if mask.any()} == {one}


def test_greys_of_a_png_are_cut_at_half_of_full_scale_and_told(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 100, 127, 128, 200, *[255] * 9]], dtype=np.uint8)).save(tmp_path / "a.png")
    found = open_masks(tmp_path).read["a"](None)
    assert found.mask.tolist() == [[0, 0, 0] + [1] * 11]
    assert found.levels.tolist() == [0, 100, 127, 128, 200, 255]


def test_a_dicom_segmentation_gives_each_image_its_own_frame(tmp_path: Path) -> None:
    holds(open_masks(write_seg(tmp_path / "all.dcm", MASKS)))


def test_a_folder_of_segmentations_unites_those_of_one_image(tmp_path: Path) -> None:
    for number, (image_id, mask) in enumerate(MASKS.items()):
        upper, lower = mask.copy(), mask.copy()
        upper[SIDE // 3 :], lower[: SIDE // 3] = 0, 0
        for half, part in (("a", upper), ("b", lower)):
            write_seg(tmp_path / f"{number}{half}.dcm", {image_id: part})
    holds(open_masks(tmp_path))


def test_a_segmentation_without_a_known_uid_goes_by_the_name_of_its_file(tmp_path: Path) -> None:
    image_id, mask = "1.2.3.1", MASKS["1.2.3.1"]
    write_seg(tmp_path / "unnamed.dcm", {image_id: mask}, named=False)
    assert set(open_masks(tmp_path).read) == {"unnamed"}
    write_seg(tmp_path / "scan7.dcm", {image_id: mask})
    assert set(open_masks(tmp_path / "scan7.dcm").matched({"scan7"}).read) == {"scan7"}
    assert set(open_masks(tmp_path / "scan7.dcm").matched({image_id, "scan7"}).read) == {image_id}


def test_a_dataset_gives_its_masks_and_patients(dataset: Path) -> None:
    found = open_masks(dataset)
    assert len(found.patients) == len(found.read)
    positive = next(key for key in found.read if not found.is_empty(key))
    assert found.read[positive](None).mask.shape == (64, 64)


def test_runs_take_the_grid_of_a_mask_that_is_not_square(tmp_path: Path) -> None:
    mask = np.zeros((20, 31), dtype=np.uint8)
    mask[3:9, 4:8] = 1
    runs, pngs = write_csv(tmp_path / "a.csv", {"x": mask}), write_pngs(tmp_path / "png", {"x": mask})
    for truth, predicted in ((runs, pngs), (pngs, runs)):
        first, second, resized = read_pair(open_masks(truth), open_masks(predicted), "x")
        assert first is not None
        assert second is not None
        assert not resized
        np.testing.assert_array_equal(first.mask, second.mask)


def test_a_square_prediction_of_another_size_is_resized_and_told(tmp_path: Path) -> None:
    mask = np.zeros((16, 16), dtype=np.uint8)
    mask[4:8, 4:12] = 1
    small, large = (
        write_pngs(tmp_path / "s", {"x": mask}),
        write_pngs(tmp_path / "l", {"x": mask.repeat(2, 0).repeat(2, 1)}),
    )
    first, second, resized = read_pair(open_masks(large), open_masks(small), "x")
    assert first is not None
    assert second is not None
    assert resized
    np.testing.assert_array_equal(first.mask, second.mask)


def read_all(path: Path) -> None:
    for mask in open_masks(path).read.values():
        mask(None)


def refused(path: Path, *words: str) -> None:
    with pytest.raises(InputError) as caught:
        read_all(path)
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_what_is_missing_or_wrong_is_one_line_with_its_name(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere.csv", "nowhere.csv", "no such")
    refused(tmp_path, "holds no mask")
    for name, content, word in (
        ("head.csv", "a,b\n1,2\n", "ImageId"),
        ("runs.csv", "ImageId,b\n1,2\n", "EncodedPixels"),
        ("none.csv", "ImageId,EncodedPixels\n", "no row"),
        ("short.csv", "ImageId,EncodedPixels\nx\n", "line 2"),
        ("both.csv", "ImageId,EncodedPixels\nx,-1\nx,1 2\n", "another"),
        ("past.csv", "ImageId,EncodedPixels\nx,1048570 20\n", "--grid"),
        ("odd.csv", "ImageId,EncodedPixels\nx,1 2 3\n", "pairs"),
        ("bytes.csv", "\0\xff\xfe", "bytes.csv"),
        ("junk.dcm", "junk", "junk.dcm"),
    ):
        (tmp_path / name).write_bytes(content.encode("latin-1"))
        refused(tmp_path / name, name, word)
    (tmp_path / "png").mkdir()
    (tmp_path / "png" / "x.png").write_bytes(b"junk")
    refused(tmp_path / "png", "x.png")


def test_a_segmentation_that_is_not_binary_or_is_cut_short_is_refused(tmp_path: Path, phantoms: Path) -> None:
    refused(write_seg(tmp_path / "f.dcm", MASKS, kind="FRACTIONAL"), "FRACTIONAL", "threshold")
    whole = write_seg(tmp_path / "w.dcm", MASKS)
    whole.write_bytes(whole.read_bytes()[:-400])
    refused(whole, "w.dcm")
    refused(next(iter(sorted((phantoms / "dicom").glob("*.dcm")))), "no segmentation")
