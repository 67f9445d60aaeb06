"""The doctor on masks as files: values that a mask does not have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pleura.doctor import examine
from pleura.errors import InputError


def mask(value: int = 255) -> np.ndarray:
    found = np.zeros((64, 64), np.uint8)
    found[20:40, 10:30] = value
    return found


def folder(path: Path, **masks: np.ndarray) -> Path:
    path.mkdir()
    for name, values in masks.items():
        Image.fromarray(values).save(path / f"{name}.png")
    return path


def test_masks_of_0_and_255_are_right_in_png_files(tmp_path: Path) -> None:
    found = examine(folder(tmp_path / "m", a=mask(), b=mask(0)))
    assert (found.kind, found.findings) == ("a folder of mask PNGs", [])


def test_masks_that_were_interpolated_to_grey_are_found(tmp_path: Path) -> None:
    small = np.asarray(Image.fromarray(mask()).resize((25, 25), Image.Resampling.BILINEAR))
    found = examine(folder(tmp_path / "m", a=mask(), b=small))
    assert found.failed
    assert "1 of 2 masks are grey at their edges" in found.sorted[0].what
    assert "b.png" in found.sorted[0].what


def test_masks_written_in_two_ways_are_found(tmp_path: Path) -> None:
    found = examine(folder(tmp_path / "m", a=mask(), b=mask(1)))
    assert "written in 2 ways: 1, 255" in found.sorted[0].what
    assert not examine(folder(tmp_path / "ones", a=mask(1))).failed


def test_a_damaged_png_is_an_error_and_does_not_stop_the_others(tmp_path: Path) -> None:
    path = folder(tmp_path / "m", a=mask())
    (path / "b.png").write_bytes(b"no picture")
    assert "1 files cannot be read: b.png" in examine(path).sorted[0].what


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.stack([mask(), mask(0)]), "mask values are 0 and 255, not 0 and 1"),
        (np.stack([mask()]) / np.float32(510), "mask values are 0 and 0.5"),
        (np.linspace(0, 1, 3 * 64 * 64).reshape(3, 64, 64), "values from 0 to 1"),
        (np.full((1, 4, 4), np.nan), "NaN"),
    ],
)
def test_an_array_of_masks_has_the_values_0_and_1(tmp_path: Path, values: np.ndarray, words: str) -> None:
    np.save(tmp_path / "masks.npy", values)
    found = examine(tmp_path / "masks.npy")
    assert found.failed
    assert words in found.sorted[0].what


def test_an_array_of_sound_masks_has_no_findings_and_no_masks_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "masks.npy", np.stack([mask(1), mask(0)]))
    assert examine(tmp_path / "masks.npy").findings == []
    np.save(tmp_path / "words.npy", np.array(["a"]))
    with pytest.raises(InputError, match="not masks"):
        examine(tmp_path / "words.npy")
    (tmp_path / "cut.npy").write_bytes((tmp_path / "masks.npy").read_bytes()[:200])
    with pytest.raises(InputError, match="cannot be read as an array"):
        examine(tmp_path / "cut.npy")
