"""Masks of any origin: every form gives the same masks, one at a time, and what is wrong is one line."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from mask_writers import SIDE, some_masks, write_csv, write_pngs, write_seg
from PIL import Image

from pleura.data import rle
from pleura.data.geometry import SquareGeometry
from pleura.data.mask_grid import on_dataset, read_pair
from pleura.data.masks import MaskSource, PngFile, Runs, open_masks
from pleura.errors import InputError

MASKS = some_masks()
GRID = (SIDE, SIDE)


def holds(found: MaskSource, masks: dict[str, np.ndarray] = MASKS) -> None:
    assert set(found.masks) == set(masks)
    for image_id, mask in masks.items():
        np.testing.assert_array_equal(found.masks[image_id].read(GRID).mask, mask)


@pytest.mark.parametrize(
    "header", ["ImageId, EncodedPixels", "image_id,rle", "fname,mask_rle", "\ufeffIMG_ID,Encoded_Pixels", "id,pixels"]
)
def test_csv_is_read_under_any_of_the_usual_headers(tmp_path: Path, header: str) -> None:
    holds(open_masks(write_csv(tmp_path / "a.csv", MASKS, header)))


def test_several_rows_are_united_and_blank_cells_are_empty_masks_that_are_told(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("x,ImageId,EncodedPixels\n0,images/a.dcm,0 2\n1,images/a.dcm,4 1\n2,b.png,-1\n3,c,\n4,d,nan\n")
    found = open_masks(path, (4, 4))
    assert np.flatnonzero(found.masks["images/a"].read(None).mask.T).tolist() == [0, 1, 4]
    assert [name for name in found.masks if found.known_empty(name)] == ["b", "c", "d"]
    assert found.blank == ["c", "d"]


@pytest.mark.parametrize("one", [1, 255, 7])
def test_pngs_of_0_and_one_other_value_are_masks(tmp_path: Path, one: int) -> None:
    found = open_masks(write_pngs(tmp_path / "masks", MASKS, one))
    holds(found)
    assert {int(found.masks[key].read().levels[-1]) for key, mask in MASKS.items() if mask.any()} == {one}


def test_names_of_pngs_are_paths_and_hidden_files_are_none_and_links_are_followed(tmp_path: Path) -> None:
    write_pngs(tmp_path / "real", {"a": MASKS["1.2.3.1"]})
    (tmp_path / "masks").mkdir()
    os.symlink(tmp_path / "real", tmp_path / "masks" / "sub", target_is_directory=True)
    os.symlink(tmp_path / "masks", tmp_path / "masks" / "round", target_is_directory=True)
    (tmp_path / "masks" / "._a.png").write_bytes(b"of a Mac")
    (tmp_path / "masks" / "notes.txt").write_text("no mask")
    assert set(open_masks(tmp_path / "masks").masks) == {"sub/a"}


@pytest.mark.parametrize("name", ["b.jpg", "b.TIF", "b.bmp", "b.npy", "b.nii.gz"])
def test_files_that_may_be_masks_and_are_not_read_are_never_left_out_in_silence(tmp_path: Path, name: str) -> None:
    write_pngs(tmp_path / "m", {"a": MASKS["1.2.3.1"]})
    (tmp_path / "m" / name).write_bytes(b"some")
    refused(tmp_path / "m", name, "save masks as PNG")
    refused(tmp_path / "m" / name, name, "save masks as PNG")


def test_one_png_is_a_source_of_one_mask(tmp_path: Path) -> None:
    folder = write_pngs(tmp_path / "m", {"a": MASKS["1.2.3.1"]})
    holds(open_masks(folder / "a.png"), {"a": MASKS["1.2.3.1"]})


def test_dicom_segmentation_gives_each_image_its_own_frame_whatever_its_suffix(tmp_path: Path) -> None:
    holds(open_masks(write_seg(tmp_path / "all.dcm", MASKS)))
    write_seg(tmp_path / "folder.dcm", MASKS).rename(tmp_path / "all.seg")
    holds(open_masks(tmp_path / "all.seg"))


def test_folder_of_segmentations_unites_those_of_one_image(tmp_path: Path) -> None:
    for number, (image_id, mask) in enumerate(MASKS.items()):
        upper, lower = mask.copy(), mask.copy()
        upper[SIDE // 3 :], lower[: SIDE // 3] = 0, 0
        for half, part in (("a", upper), ("b", lower)):
            write_seg(tmp_path / f"{number}{half}.dcm", {image_id: part})
    holds(open_masks(tmp_path))


def test_segmentation_goes_by_its_uid_and_by_the_name_of_its_file(tmp_path: Path) -> None:
    image_id, mask = "1.2.3.1", MASKS["1.2.3.1"]
    write_seg(tmp_path / "unnamed.dcm", {image_id: mask}, named=False)
    assert open_masks(tmp_path).names == {"unnamed": ()}
    write_seg(tmp_path / "scan7.dcm", {image_id: mask})
    assert open_masks(tmp_path / "scan7.dcm").names == {image_id: ("scan7",)}


def test_dataset_gives_its_masks_and_patients(dataset: Path) -> None:
    found = open_masks(dataset)
    assert len(found.patients) == len(found.masks)
    positive = next(key for key in found.masks if not found.known_empty(key))
    assert found.masks[positive].read().mask.shape == (64, 64)


def test_runs_take_the_grid_of_a_mask_that_is_not_square(tmp_path: Path) -> None:
    mask = np.zeros((20, 31), dtype=np.uint8)
    mask[3:9, 4:8] = 1
    runs, pngs = write_csv(tmp_path / "a.csv", {"x": mask}), write_pngs(tmp_path / "png", {"x": mask})
    for truth, predicted in ((runs, pngs), (pngs, runs)):
        first, second, resized = read_pair(open_masks(truth).masks["x"], open_masks(predicted).masks["x"])
        assert first is not None
        assert second is not None
        assert not resized
        np.testing.assert_array_equal(first.mask, second.mask)


def test_square_prediction_of_another_size_is_resized_and_told(tmp_path: Path) -> None:
    mask = np.zeros((16, 16), dtype=np.uint8)
    mask[4:8, 4:12] = 1
    small, large = (
        write_pngs(tmp_path / "s", {"x": mask}),
        write_pngs(tmp_path / "l", {"x": mask.repeat(2, 0).repeat(2, 1)}),
    )
    first, second, resized = read_pair(open_masks(large).masks["x"], open_masks(small).masks["x"])
    assert first is not None
    assert second is not None
    assert resized
    np.testing.assert_array_equal(first.mask, second.mask)


@pytest.mark.parametrize("as_runs", [True, False])
def test_dataset_of_an_oblong_image_compares_with_masks_on_the_images_own_grid(tmp_path: Path, as_runs: bool) -> None:
    mask = np.zeros((20, 40), dtype=np.uint8)
    mask[4:12, 8:16] = 1
    square = np.zeros((40, 40), dtype=np.uint8)
    square[10:30] = mask
    truth = Runs(tmp_path, "x", (rle.encode(square),), (40, 40), (20, 40))
    own = Runs(tmp_path, "x", (rle.encode(mask),)) if as_runs else PngFile(tmp_path / "m" / "x.png")
    write_pngs(tmp_path / "m", {"x": mask})
    for pair in ((truth, own), (own, truth)):
        first, second, resized = read_pair(*pair)
        assert first is not None
        assert second is not None
        assert not resized
        np.testing.assert_array_equal(first.mask, square)
        np.testing.assert_array_equal(second.mask, square)


def read_all(path: Path) -> None:
    for mask in open_masks(path).masks.values():
        mask.read(None)


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


def square_mask(side: int) -> np.ndarray:
    mask = np.zeros((side, side), dtype=np.uint8)
    mask[side // 4 : side // 2, side // 8 : side // 2] = 1
    return mask


def runs(*texts: str) -> Runs:
    return Runs(Path("siim.csv"), "x", texts)


def test_siim_runs_count_pixels_of_a_1024_grid_whatever_the_image_has() -> None:
    mask = runs(rle.encode(square_mask(1024)))
    np.testing.assert_array_equal(on_dataset(mask, SquareGeometry(2048, 2048, 64), "siim").mask, square_mask(64))
    np.testing.assert_array_equal(on_dataset(mask, SquareGeometry(512, 512, 1024), "siim").mask, square_mask(1024))


def test_several_rows_of_a_case_are_joined() -> None:
    columns = on_dataset(runs("0 1024", f"{1023 * 1024} 1024"), SquareGeometry(1024, 1024, 1024), "siim").mask.sum(
        axis=0
    )
    assert columns[[0, 1, 1022, 1023]].tolist() == [1024, 0, 0, 1024]


def test_runs_on_the_images_own_grid_keep_its_aspect() -> None:
    on_square = on_dataset(runs(rle.encode(np.ones((20, 40)))), SquareGeometry(20, 40, 40), "image").mask
    assert on_square.sum(axis=1).tolist() == [0] * 10 + [40] * 20 + [0] * 10


def test_siim_runs_do_not_fit_an_image_that_is_not_square_unless_they_are_empty() -> None:
    with pytest.raises(InputError, match="use --rle-grid image"):
        on_dataset(runs("1 2"), SquareGeometry(1024, 900, 32), "siim")
    assert not on_dataset(runs("-1"), SquareGeometry(1024, 900, 32), "siim").mask.any()


def test_mask_of_another_size_than_its_image_is_refused(tmp_path: Path) -> None:
    Image.fromarray(square_mask(64) * 255).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="the mask has 64 x 64 px, its image 64 x 65"):
        on_dataset(PngFile(tmp_path / "a.png"), SquareGeometry(64, 65, 32), "siim")


def test_masks_of_a_dataset_can_be_those_of_another_size() -> None:
    mask = Runs(Path("data"), "x", (rle.encode(square_mask(64)),), (64, 64), (500, 500))
    np.testing.assert_array_equal(on_dataset(mask, SquareGeometry(500, 500, 32), "siim").mask, square_mask(32))


def test_masks_of_pixels_that_are_not_square_come_onto_the_square_as_their_image_does() -> None:
    geometry = SquareGeometry(20, 40, 40, aspect=2.0)
    mask = Runs(Path("own.csv"), "x", (rle.encode(np.ones((20, 40))),))
    assert on_dataset(mask, geometry, "image").mask.all()
    square = Runs(Path("data"), "x", (rle.encode(np.ones((40, 40))),), (40, 40), (20, 40), 2.0)
    first, second, resized = read_pair(square, mask)
    assert first is not None
    assert second is not None
    assert (second.mask.all(), resized) == (True, False)
