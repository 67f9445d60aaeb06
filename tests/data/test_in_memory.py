"""What Python hands over: the same pixels give the same image, and what is none is refused by its type."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
from PIL import Image

from pleura.data.in_memory import each_of, image_of_array, radiograph_of
from pleura.data.phantoms.dicom_files import write_phantom_dataset
from pleura.data.radiograph import read_radiograph
from pleura.errors import InputError

EIGHT = np.add.outer(np.arange(40), 5 * np.arange(30)).astype(np.uint8)
TWELVE = (np.add.outer(np.arange(40), 50 * np.arange(30)) * 2 + 1).astype(np.uint16)


def equal(given: Any, image: np.ndarray) -> bool:
    found = radiograph_of(given).image
    return found.dtype == np.float32 and found.shape == image.shape and np.array_equal(found, image)


def refusal(given: Any) -> str:
    with pytest.raises(InputError) as caught:
        radiograph_of(given)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
    return str(caught.value)


def png(values: np.ndarray, path: Path) -> Path:
    Image.fromarray(values).save(path)
    return path


# --- arrays


LAYOUTS = {
    "(H, W)": lambda a: a,
    "(H, W, 1)": lambda a: a[..., None],
    "(1, H, W)": lambda a: a[None],
    "(1, 1, H, W)": lambda a: a[None, None],
    "(1, H, W, 1)": lambda a: a[None, ..., None],
    "(H, W, 3)": lambda a: np.stack([a] * 3, axis=-1),
    "(3, H, W)": lambda a: np.stack([a] * 3),
    "RGBA": lambda a: np.stack([a, a, a, np.full_like(a, a.max())], axis=-1),
    "by columns": np.asfortranarray,
    "a view that goes backwards": lambda a: np.ascontiguousarray(a[::-1, ::-1])[::-1, ::-1],
    "of the other byte order": lambda a: a.astype(a.dtype.newbyteorder()),
    "one that cannot be written": lambda a: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("values", [EIGHT, TWELVE, (EIGHT / 255).astype(np.float32)], ids=["8", "12", "float"])
def test_any_layout_of_the_same_pixels_is_the_same_image(layout: str, values: np.ndarray):
    assert equal(LAYOUTS[layout](values), radiograph_of(values).image)


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "u8", "i2", "i4", "i8"])
def test_whole_numbers_of_8_bits_are_over_255(dtype: str):
    assert equal(EIGHT.astype(dtype), EIGHT.astype(np.float32) / np.float32(255))


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4"])
def test_floats_are_taken_as_they_are(dtype: str):
    values = (EIGHT / 255).astype(dtype)
    assert equal(values, values.astype(np.float32))
    np.testing.assert_allclose(radiograph_of(values).image, EIGHT / 255, atol=1e-3 if dtype == "f2" else 1e-7)


@pytest.mark.parametrize(
    ("highest", "bits"), [(255, 8), (256, 10), (1023, 10), (4095, 12), (4096, 14), (16384, 16), (65535, 16)]
)
@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.int64])
def test_depth_of_16_bits_is_the_least_that_holds_the_highest(highest: int, bits: int, dtype: type):
    values = np.array([[0, highest], [1, 2]], dtype=dtype)
    assert radiograph_of(values).image[0, 1] == pytest.approx(highest / (2**bits - 1))


def test_16_bit_png_and_its_array_are_the_same_image(tmp_path: Path):
    for number, values in enumerate((EIGHT, TWELVE, TWELVE * 16, TWELVE // 16)):
        path = png(values, tmp_path / f"{number}.png")
        assert equal(values, read_radiograph(path).image)
        assert equal(Image.open(path), read_radiograph(path).image)


WRONG = {
    "NaN": (np.where(EIGHT == 9, np.nan, EIGHT / 255), "holds NaN or infinity"),
    "infinity": (np.where(EIGHT == 9, np.inf, EIGHT / 255), "holds NaN or infinity"),
    "floats of 0 to 255": (EIGHT.astype(np.float32), "divide it by 255, or give it as uint8"),
    "floats of 12 bits": (TWELVE.astype(np.float64), r"lie in \[0, 1\], these in \[1, 2979\]; scale it to \[0, 1\]"),
    "normalised": ((EIGHT / 255 - 0.5) / 0.25, "before it is normalised"),
    "a little above 1": (EIGHT / EIGHT.max() * 1.001, "divide it by 255"),
    "negative": (
        TWELVE.astype(np.int16) - 1000,
        "negative values, from -999; stored values of DICOM need their header",
    ),
    "beyond 16 bits": (TWELVE.astype(np.int32) * 40, "beyond 16 bits"),
    "a mask": (EIGHT > 100, "an array of bool is a mask and not a radiograph"),
    "complex": (EIGHT.astype(complex), "an array of complex128 is no image"),
    "objects": (np.array([[1, None], [2, 3]], dtype=object), "an array of object is no image"),
    "text": (np.array([["a", "b"]]), "is no image"),
    "times": (np.zeros((3, 3), dtype="M8[s]"), "is no image"),
    "fields": (np.zeros((3, 3), dtype=[("a", "u1")]), "is no image"),
    "all equal": (np.full((5, 5), 7, np.uint8), "all pixels are equal"),
    "all equal floats": (np.full((5, 5), 0.5), "all pixels are equal"),
    "no rows": (np.zeros((0, 4), np.uint8), r"has the shape \(0, 4\)"),
    "no pixels of colour": (np.zeros((0, 4, 3), np.uint8), r"has the shape \(0, 4, 3\)"),
    "a row": (EIGHT[0], r"has the shape \(30,\)"),
    "a number": (np.array(3), r"has the shape \(\)"),
    "several": (np.stack([EIGHT] * 2), r"has the shape \(2, 40, 30\); predict_many takes several"),
    "a batch": (np.stack([EIGHT] * 5)[:, None], r"\(5, 1, 40, 30\); predict_many takes several"),
    "colour": (np.stack([EIGHT, EIGHT // 2, EIGHT], axis=-1), "it is in colour"),
    "colour as floats": (np.stack([EIGHT, EIGHT // 2, EIGHT]) / 255, "it is in colour"),
    "alpha": (np.stack([EIGHT, EIGHT, EIGHT, EIGHT], axis=-1), "transparent pixels"),
    "masked": (np.ma.masked_greater(EIGHT, 100), "has masked values"),
    "too large": (np.broadcast_to(np.uint8(1), (30_000, 3)), "is no radiograph's size"),
    "too many": (np.broadcast_to(np.uint8(1), (10_000, 10_000)), "more than the 30 million"),
}


@pytest.mark.parametrize("name", WRONG)
def test_array_that_is_no_image_is_refused_with_the_reason(name: str):
    values, phrase = WRONG[name]
    assert re.search(phrase, refusal(values))


def test_channels_a_few_levels_apart_are_grey_as_in_a_file(tmp_path: Path):
    apart = np.stack([EIGHT, EIGHT, np.where(EIGHT > 4, EIGHT - 2, EIGHT)], axis=-1)
    path = png(apart, tmp_path / "a.png")
    assert equal(apart, read_radiograph(path).image)
    assert equal(apart, EIGHT.astype(np.float32) / np.float32(255))


# --- tensors


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_tensor_is_its_array(dtype: torch.dtype):
    for tensor in (torch.from_numpy(EIGHT).to(dtype), torch.from_numpy(EIGHT).to(dtype)[None, None]):
        assert equal(tensor, radiograph_of(EIGHT).image)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensor_of_floats_is_its_array(dtype: torch.dtype):
    tensor = (torch.from_numpy(EIGHT) / 255).to(dtype).requires_grad_()
    assert equal(tensor, tensor.detach().float().numpy())


@pytest.mark.parametrize("tensor", [torch.zeros(3, 3).to_sparse(), torch.zeros(3, 3, device="meta")])
def test_tensor_without_numbers_is_refused(tensor: torch.Tensor):
    assert "the tensor cannot be read as an array" in refusal(tensor)


# --- pictures


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "LA"])
def test_picture_is_read_as_its_file(tmp_path: Path, mode: str):
    picture = Image.fromarray(EIGHT).convert(mode)
    picture.save(tmp_path / "a.png")
    assert equal(picture, read_radiograph(tmp_path / "a.png").image)


def test_picture_of_floats_follows_the_rule_of_arrays():
    assert equal(Image.fromarray((EIGHT / 255).astype(np.float32)), (EIGHT / 255).astype(np.float32))
    assert "divide it by 255" in refusal(Image.fromarray(EIGHT.astype(np.float32)))


def test_picture_lies_as_its_exif_says(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(EIGHT).save(tmp_path / "a.jpg", exif=exif, quality=95)
    assert equal(Image.open(tmp_path / "a.jpg"), read_radiograph(tmp_path / "a.jpg").image)
    assert radiograph_of(Image.open(tmp_path / "a.jpg")).image.shape == (30, 40)


@pytest.mark.parametrize("mode", ["1", "CMYK", "YCbCr", "HSV", "LAB"])
def test_picture_of_another_mode_is_refused(mode: str):
    assert f"(mode {mode})" in refusal(Image.new(mode, (4, 4)))


def test_picture_whose_file_is_cut_is_refused(tmp_path: Path):
    whole = png(np.random.default_rng(0).integers(0, 256, (80, 80), np.uint8), tmp_path / "a.png").read_bytes()
    assert "the picture cannot be read" in refusal(Image.open(io.BytesIO(whole[: len(whole) // 2])))


# --- DICOM in memory


@pytest.fixture(scope="module")
def dicom(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("given")
    write_phantom_dataset(folder, n_patients=4, seed=5, size_px=48)
    return sorted((folder / "dicom").iterdir())


def test_bytes_files_and_datasets_are_read_as_the_file(dicom: list[Path]):
    for path in dicom:
        content, known = path.read_bytes(), read_radiograph(path)
        dataset = pydicom.dcmread(path)
        before = str(dataset)
        with path.open("rb") as file:
            read = file.read(7)  # somebody looked at its start
            assert read
            for given in (content, bytearray(content), memoryview(content), io.BytesIO(content), file, dataset):
                found = radiograph_of(given)
                assert np.array_equal(found.image, known.image)
                assert (found.view, found.pixel_spacing_mm) == (known.view, known.pixel_spacing_mm)
                assert found.image_id == known.sop_instance_uid
        assert str(dataset) == before


def test_bytes_of_a_picture_are_read_as_the_file(tmp_path: Path):
    path = png(TWELVE, tmp_path / "a.png")
    assert equal(path.read_bytes(), read_radiograph(path).image)
    assert radiograph_of(path.read_bytes()).image_id == "bytes"


def test_dataset_without_its_file_meta_says_what_is_missing(dicom: list[Path]):
    dataset = pydicom.dcmread(dicom[0])
    bare = pydicom.Dataset()
    bare.update({element.tag: element for element in dataset})
    assert "give it the file_meta of its file, with TransferSyntaxUID" in refusal(bare)
    del dataset.PixelData
    assert refusal(dataset).startswith("cannot read the Dataset: ")


@pytest.mark.parametrize("content", [b"", b"no radiograph", b"\x89PNG\r\n\x1a\n", b"\0" * 200])
def test_bytes_of_no_radiograph_are_refused_without_a_name_of_ours(content: bytes):
    told = refusal(content)
    assert "the bytes" in told
    assert "pleura-" not in told


# --- everything else


@pytest.mark.parametrize(
    "given", [None, 5, 0.5, True, object(), [EIGHT], (EIGHT,), {"image": EIGHT}, iter([EIGHT]), int]
)
def test_anything_else_is_refused_by_its_type(given: Any):
    told = refusal(given)
    assert told.startswith(
        f"{type(given).__name__} is no radiograph; give a path, bytes or a binary file, a numpy array"
    )
    assert ("predict_many" in told) == (hasattr(given, "__iter__") and given is not int)


def test_file_of_text_is_refused(tmp_path: Path):
    (tmp_path / "a.txt").write_text("hello")
    with (tmp_path / "a.txt").open() as file:
        assert "gives str, not bytes; open the file in binary" in refusal(file)
    assert "cannot be read" in refusal(file)


@pytest.mark.parametrize(
    "given", ["a.png", Path("a.png"), b"1", EIGHT, torch.zeros(3, 3), {"a": 1}, io.BytesIO(b"1"), 7]
)
def test_one_radiograph_is_no_list_of_them(given: Any):
    with pytest.raises(InputError, match="predict_many takes a list or an iterator of radiographs, not"):
        each_of(given)


def test_stack_of_images_is_several():
    assert len(list(each_of(np.stack([EIGHT] * 3)))) == 3
    assert all(image_of_array(image).shape == (40, 30) for image in each_of(np.stack([EIGHT] * 3)[:, None]))


def test_radiograph_is_itself_and_says_no_more_than_its_name_and_size():
    known = radiograph_of(EIGHT)
    assert radiograph_of(known) is known
    assert repr(known) == "Radiograph('array', 40 x 30)"
