"""Exposure, blur, compression and noise, applied to images, float32 (N, C, H, W) in [0, 1].

Each image is changed by its own numbers. No result is cut to [0, 1].
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

JPEG_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
)
"""Quantisation of the 8 x 8 luminance DCT at quality 50, row by row. Source: ITU-T T.81 (JPEG), table K.1."""


def _per_row(values: Tensor, images: Tensor) -> Tensor:
    return values.to(images.device)[:, None, None, None]


def change_contrast(images: Tensor, contrast: Tensor, brightness: Tensor) -> Tensor:
    """Contrast, a factor about the mean of each image, and brightness, added. Both (N,)."""
    mean = images.mean((1, 2, 3), keepdim=True)
    factor = _per_row(contrast, images)
    return images * factor + (mean * (1 - factor) + _per_row(brightness, images))


def change_gamma(images: Tensor, gamma: Tensor) -> Tensor:
    """Each image to the power of its gamma, (N,)."""
    return images ** _per_row(gamma, images)


def blur(images: Tensor, sigma_px: Tensor) -> Tensor:
    """A separable Gaussian blur whose sigma differs by image, (N,), cut at three sigma; edges are repeated."""
    n, channels, height, width = images.shape
    radius = math.ceil(3 * float(sigma_px.max()))
    offsets = torch.arange(-radius, radius + 1)
    sigma = sigma_px[:, None].clamp(min=0.01)  # or its square is 0 in float32, and 0 / 0 no number
    # Each row is cut at its own three sigma, so that it does not depend on its neighbours in the batch.
    kernel = torch.exp(-(offsets**2) / (2 * sigma**2)) * (offsets.abs() <= (3 * sigma).ceil())
    kernel = (kernel / kernel.sum(1, keepdim=True)).to(images.device).repeat_interleave(channels, 0)[:, None]
    flat = F.pad(images.reshape(1, n * channels, height, width), (radius,) * 4, mode="replicate")
    flat = F.conv2d(F.conv2d(flat, kernel[:, :, None], groups=n * channels), kernel[..., None], groups=n * channels)
    return flat.view(images.shape)


def compress(images: Tensor, quality: Tensor) -> Tensor:
    """Compress each channel as 8-bit greyscale JPEG of a quality, (N,) in 1 to 100.

    Source: ITU-T T.81, A.3; quality scaled as libjpeg does.
    """
    n, channels, height, width = images.shape
    k = torch.arange(8.0)
    dct = torch.cos((2 * k + 1) * k[:, None] * math.pi / 16) / 2
    dct[0] /= math.sqrt(2)
    dct = dct.to(images.device)
    quality = quality.floor()
    percent = torch.where(quality < 50, (5000 / quality).floor(), 200 - 2 * quality)
    table = ((torch.tensor(JPEG_LUMINANCE).view(8, 8) * percent[:, None, None] + 50) / 100).floor().clamp(1, 255)
    table = table.to(images.device)[:, None, None, None]
    levels = (F.pad(images, (0, -width % 8, 0, -height % 8), mode="replicate") * 255).round() - 128
    blocks = levels.view(n, channels, levels.shape[2] // 8, 8, -1, 8).transpose(3, 4)
    blocks = dct.T @ ((dct @ blocks @ dct.T / table).round() * table) @ dct
    levels = blocks.transpose(3, 4).reshape(levels.shape)[..., :height, :width]
    return (levels + 128).round() / 255


def add_noise(images: Tensor, sigma: Tensor, seed: Tensor) -> Tensor:
    """Nearly Gaussian noise (cut at 3.5 sigma) of a sigma and a seed, (N,), the same on every device: integers make it.

    Source: the 32-bit finaliser of MurmurHash3 (Appleby) over seed and position, and the sum of its four bytes.
    """
    place = torch.arange(images[0].numel(), dtype=torch.int32, device=images.device).view(images.shape[1:])
    state = place * -0x61C88647 + _per_row(seed.to(torch.int32), images)
    # Shifts of int32 drag the sign along: the mask makes them logical.
    state = (state ^ (state >> 16 & 0xFFFF)) * -0x7A143595
    state = (state ^ (state >> 13 & 0x7FFFF)) * -0x3D4D51CB
    total = (state & 0xFF) + (state >> 8 & 0xFF) + (state >> 16 & 0xFF) + (state >> 24 & 0xFF)
    # Four uniform bytes have a mean of 510 and a variance of 4 (256 ** 2 - 1) / 12.
    return images + (total - 510) * _per_row(sigma / math.sqrt((256**2 - 1) / 3), images)
