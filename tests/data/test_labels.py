"""Where masks come from: csv files and folders of PNGs, on the grid they were drawn on, to the grid of the dataset."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pleura.data import rle
from pleura.data.labels import LabelSource, read_labels
from pleura.errors import InputError


def write_png(path: Path, values: np.ndarray, mode: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(values)
    (picture.convert(mode) if mode else picture).save(path, format="PNG")
    return path


def write_csv(path: Path, *rows: str) -> Path:
    path.write_text("\n".join(["ImageId,EncodedPixels", *rows]) + "\n")
    return path


def square_mask(side: int, channel: int = 1) -> np.ndarray:
    mask = np.zeros((side, side), dtype=np.uint8)
    mask[side // 4 : side // 2, side // 8 : side // 2] = channel
    return mask


def refusal(source: LabelSource, shape: tuple[int, int], grid: str = "siim") -> str:
    with pytest.raises(InputError) as caught:
        source.mask(shape, 32, grid)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_csv_and_a_folder_are_both_sources(tmp_path: Path):
    masks = write_csv(tmp_path / "siim.csv", "a,1 2", "a,5 1", "b,-1")
    write_png(tmp_path / "drawn/deeper/c.PNG", square_mask(16))
    labels = read_labels([masks, tmp_path / "drawn"])
    assert labels["a"] == LabelSource("siim", runs=("1 2", "5 1"))
    assert labels["b"].runs == ("-1",)
    assert labels["deeper/c"] == LabelSource("drawn", png=str(tmp_path / "drawn/deeper/c.PNG"))


def test_an_id_counts_in_the_first_source_that_has_it(tmp_path: Path):
    first, second = write_csv(tmp_path / "first.csv", "a,1 2"), write_csv(tmp_path / "second.csv", "a,-1", "b,-1")
    assert {key: label.name for key, label in read_labels([first, second]).items()} == {"a": "first", "b": "second"}
    assert read_labels([second, first])["a"].name == "second"


def test_no_source_is_no_label():
    assert read_labels([]) == {}


def test_a_missing_source_and_an_empty_folder_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match=r"nowhere\.csv: there is no such csv or folder"):
        read_labels([tmp_path / "nowhere.csv"])
    with pytest.raises(InputError, match="holds no mask PNG"):
        read_labels([tmp_path])


def test_siim_runs_count_pixels_of_a_1024_grid_whatever_the_image_has():
    label = LabelSource("siim", runs=(rle.encode(square_mask(1024)),))
    np.testing.assert_array_equal(label.mask((2048, 2048), 64, "siim"), square_mask(64))
    np.testing.assert_array_equal(label.mask((512, 512), 1024, "siim"), square_mask(1024))


def test_several_rows_of_a_case_are_joined():
    label = LabelSource("siim", runs=("0 1024", f"{1023 * 1024} 1024"))
    columns = label.mask((1024, 1024), 1024, "siim").sum(axis=0)
    assert columns[[0, 1, 1022, 1023]].tolist() == [1024, 0, 0, 1024]


def test_runs_on_the_images_own_grid_keep_its_aspect():
    mask = np.ones((20, 40), dtype=np.uint8)
    on_square = LabelSource("own", runs=(rle.encode(mask),)).mask((20, 40), 40, "image")
    assert on_square.sum(axis=1).tolist() == [0] * 10 + [40] * 20 + [0] * 10


def test_siim_runs_do_not_fit_an_image_that_is_not_square():
    assert "say --rle-grid image" in refusal(LabelSource("siim", runs=("1 2",)), (1024, 900))


def test_an_empty_mask_fits_any_image():
    mask = LabelSource("siim", runs=("-1",)).mask((1024, 900), 32, "siim")
    assert mask.shape == (32, 32)
    assert not mask.any()


def test_damaged_runs_are_refused_by_the_name_of_their_source():
    assert refusal(LabelSource("siim", runs=("1 2 3",)), (64, 64)).startswith("siim: the run-length string has 3")
    assert "past the 8 x 8 mask" in refusal(LabelSource("own", runs=("63 2",)), (8, 8), "image")


@pytest.mark.parametrize(("channel", "mode"), [(1, None), (255, None), (255, "1"), (255, "RGB"), (77, None)])
def test_a_png_of_two_values_is_a_mask_whatever_they_are(tmp_path: Path, channel: int, mode: str | None):
    path = write_png(tmp_path / "a.png", square_mask(64, channel), mode)
    mask = LabelSource("drawn", png=str(path)).mask((64, 64), 32, "siim")
    np.testing.assert_array_equal(mask, square_mask(32))


def test_a_sixteen_bit_png_is_a_mask(tmp_path: Path):
    path = write_png(tmp_path / "a.png", square_mask(64).astype(np.uint16) * 65535)
    np.testing.assert_array_equal(LabelSource("drawn", png=str(path)).mask((64, 64), 64, "siim"), square_mask(64))


@pytest.mark.parametrize(("value", "filled"), [(0, 0), (255, 64)])
def test_a_png_of_one_value_is_empty_or_full(tmp_path: Path, value: int, filled: int):
    path = write_png(tmp_path / "a.png", np.full((8, 8), value, dtype=np.uint8))
    assert LabelSource("drawn", png=str(path)).mask((8, 8), 8, "siim").sum() == filled


def test_a_png_resized_with_interpolation_is_refused(tmp_path: Path):
    values = square_mask(64, 255)
    values[16, 8] = 128
    path = write_png(tmp_path / "a.png", values)
    assert "was it resized with interpolation" in refusal(LabelSource("drawn", png=str(path)), (64, 64))


def test_a_png_without_a_background_is_refused(tmp_path: Path):
    path = write_png(tmp_path / "a.png", square_mask(64) + 1)
    assert "its lowest value is 1" in refusal(LabelSource("drawn", png=str(path)), (64, 64))


def test_a_png_of_another_size_than_its_image_is_refused(tmp_path: Path):
    path = write_png(tmp_path / "a.png", square_mask(64))
    assert "the mask has 64 x 64 px, its image 64 x 65" in refusal(LabelSource("drawn", png=str(path)), (64, 65))


def test_a_png_cut_off_anywhere_is_refused_by_name(tmp_path: Path):
    whole = write_png(tmp_path / "a.png", np.random.default_rng(0).integers(0, 2, (64, 64)).astype(np.uint8))
    cut = tmp_path / "cut.png"
    for end in range(0, whole.stat().st_size - 24, 17):
        cut.write_bytes(whole.read_bytes()[:end])
        assert refusal(LabelSource("drawn", png=str(cut)), (64, 64)).startswith(f"{cut}: cannot be read as a mask PNG")


def test_a_jpeg_called_png_is_refused(tmp_path: Path):
    Image.fromarray(square_mask(64, 255)).save(tmp_path / "a.png", format="JPEG")
    assert "cannot be read as a mask PNG" in refusal(LabelSource("drawn", png=str(tmp_path / "a.png")), (64, 64))


def test_a_png_that_claims_a_gigantic_size_is_refused(tmp_path: Path):
    whole = bytearray(write_png(tmp_path / "a.png", square_mask(64)).read_bytes())
    whole[16:24] = struct.pack(">II", 30_000, 30_000)
    whole[29:33] = struct.pack(">I", zlib.crc32(whole[12:29]))
    (tmp_path / "a.png").write_bytes(whole)
    assert "a.png" in refusal(LabelSource("drawn", png=str(tmp_path / "a.png")), (64, 64))
