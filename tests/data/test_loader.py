"""Batches: every case once and in order, as tensors, and an error where it is needed."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from places import sealed

from pleura.data.dataset import CARD, CASES, IMAGES, Case, Dataset, write_cases
from pleura.data.loader import batches
from pleura.errors import InputError

FIRST = Case("a", 0, None, True, "0 3", None, None, None, None, "a.png", 4, 4, "siim")


def opened(folder: Path, n: int, **damage: str) -> Dataset:
    cases = [replace(FIRST, image_id=f"{index}", mask_rle=f"{index} 1") for index in range(n)]
    write_cases(folder / CASES, cases)
    np.save(folder / IMAGES, np.arange(n, dtype=np.uint8)[:, None, None] * np.ones((1, 4, 4), dtype=np.uint8))
    (folder / CARD).write_text(json.dumps({"format": 1}))
    dataset = Dataset(sealed(folder))
    if damage:
        dataset.cases[-1] = replace(cases[-1], **damage)
    return dataset


@pytest.mark.parametrize(
    ("n", "batch_size", "sizes"), [(7, 3, [3, 3, 1]), (6, 3, [3, 3]), (2, 5, [2]), (3, 1, [1] * 3)]
)
def test_every_case_comes_once_and_the_last_batch_may_be_smaller(
    tmp_path: Path, n: int, batch_size: int, sizes: list[int]
):
    parts = list(batches(opened(tmp_path, n), np.arange(n), batch_size))
    assert [len(part.indices) for part in parts] == sizes
    assert np.concatenate([part.indices for part in parts]).tolist() == list(range(n))


def test_images_and_masks_belong_to_the_indices_in_the_order_asked_for(tmp_path: Path):
    first, second = batches(opened(tmp_path, 5), np.array([4, 1, 3]), 2)
    assert first.images[:, 0, 0, 0].tolist() == [4, 1]
    assert second.images[:, 0, 0, 0].tolist() == [3]
    assert [int(mask.T.reshape(-1).argmax()) for mask in first.masks[:, 0]] == [4, 1]


def test_batch_is_uint8_with_one_channel(tmp_path: Path):
    (batch,) = batches(opened(tmp_path, 2), np.arange(2), 2)
    assert batch.images.shape == batch.masks.shape == (2, 1, 4, 4)
    assert batch.images.dtype == batch.masks.dtype == torch.uint8


def test_no_cases_are_no_batches(tmp_path: Path):
    assert list(batches(opened(tmp_path, 2), np.arange(0), 2)) == []


def test_damaged_mask_is_refused_after_the_batches_before_it(tmp_path: Path):
    stream = batches(opened(tmp_path, 4, mask_rle="15 2"), np.arange(4), 2)
    assert next(stream).indices.tolist() == [0, 1]
    with pytest.raises(InputError, match=r"cases\.csv: the mask of 3: "):
        next(stream)


def test_reader_that_is_left_early_leaves_no_thread_behind(tmp_path: Path):
    before = threading.active_count()
    stream = batches(opened(tmp_path, 6), np.arange(6), 2)
    next(stream)
    stream.close()  # type: ignore[attr-defined]  # a generator
    assert threading.active_count() == before
