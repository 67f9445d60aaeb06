"""Batches of a dataset as tensors, read one ahead of the step that uses them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pleura.data.dataset import Dataset


@dataclass(frozen=True)
class Batch:
    """images and masks: (n, 1, H, W) uint8, of the cases at `indices`."""

    indices: NDArray[np.int64]
    images: Tensor
    masks: Tensor


def batches(dataset: Dataset, order: NDArray[np.int64], batch_size: int) -> Iterator[Batch]:
    """Yield the cases at `order` in batches; the last may be smaller. Raises: InputError for a damaged mask."""
    parts = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    with ThreadPoolExecutor(1) as reader:
        ahead = None
        for part in [*parts, None]:
            ready = ahead
            ahead = None if part is None else reader.submit(_read, dataset, part)
            if ready is not None:
                yield ready.result()


def _read(dataset: Dataset, indices: NDArray[np.int64]) -> Batch:
    images = np.stack([dataset.images[index] for index in indices])
    return Batch(indices, torch.from_numpy(images)[:, None], torch.from_numpy(dataset.masks(indices))[:, None])
