"""Augmentation of images and masks: parameters are sampled first and applied later, and pixels are resampled once.

Flip, affine, elastic, grid and optical distortion are composed into one sampling grid per image, so that a radiograph
is interpolated once however many warps it gets, from its prepared size to that of the stage, on whichever device the
batch lies. Lengths are relative to the side of the image: the same parameters warp 256 px and 1024 px alike.

The order, from input to output: flip, shift-scale-rotate, distortion, intensity, blur, JPEG, noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pleura.config.augmentation import AugmentConfig
from pleura.data.artefacts import add_noise, blur, change_contrast, change_gamma, compress

REFERENCE_SIDE_PX = 1024
"""The side at which the published elastic and optical settings are pixels."""


@dataclass(frozen=True)
class AugmentParameters:
    """What happens to each of n images, as CPU tensors whose first axis is n and whose type is float32 unless said.

    Neutral values leave a row alone, and nothing here depends on the size of the image.
    """

    flip: Tensor  # (n,) bool: mirror left and right
    shift: Tensor  # (n, 2): right and down, as fractions of width and height
    scale: Tensor  # (n,): above 1 enlarges
    rotation_degrees: Tensor  # (n,): counter-clockwise on the screen, as `torch.rot90`
    elastic_nodes: Tensor  # (n, 2, nodes, nodes): (x, y) at cubic B-spline nodes, as fractions of the side
    elastic_spacing: float  # distance between the nodes, as a fraction of the side
    grid_cells: Tensor  # (n, 2, steps): relative source widths of columns, heights of rows; 1 is neutral
    optical: Tensor  # (n, 3): radial coefficient, centre's offset (x, y) in fractions of the side
    contrast: Tensor  # (n,): factor about the mean of the image
    brightness: Tensor  # (n,): added
    gamma: Tensor  # (n,): exponent
    blur_sigma_px: Tensor  # (n,): Gaussian, in pixels of the image it is applied to; 0 is sharp
    jpeg_quality: Tensor  # (n,): 1 to 100; 100 skips the compression
    noise_sigma: Tensor  # (n,): standard deviation of additive noise
    noise_seed: Tensor  # (n,) int64: the noise is a function of this and of the pixel's position

    def __len__(self) -> int:
        return self.flip.shape[0]

    def take(self, rows: Tensor) -> AugmentParameters:
        """The parameters of the rows at these indices, int64 of shape (k,)."""
        tensors: dict[str, Any] = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **{name: value[rows] for name, value in tensors.items()})


Pair = tuple[Tensor, Tensor]
"""Images and masks."""


@torch.no_grad()
def augment(
    images: Tensor,
    masks: Tensor,
    config: AugmentConfig,
    seed: tuple[int, ...],
    of: tuple[int, int] | None = None,
    larger: Pair | None = None,
) -> Pair:
    """A randomly changed copy of a batch: images float32 (N, C, H, W) and masks float32 (N, 1, H, W), both in [0, 1].

    The same `seed`, for example (seed, epoch, step), draws the same on every device; pixels agree to rounding.
    of: (first, total), if processes share a batch of `total` and these are its rows from `first` on: each case is
    changed as in the whole batch, however that is split. larger: see `apply`.

    Raises: ValueError if a number of `seed` is negative, if the shapes do not belong together, or if `of` has no such
    rows.
    """
    n = len(images)
    first, total = of or (0, n)
    if not 0 <= first <= total - n:
        raise ValueError(f"of: a batch of {total} images has no rows {first} to {first + n}")
    parameters = sample_parameters(config, total, seed).take(torch.arange(first, first + n))
    return apply(images, masks, parameters, config, larger)


def sample_parameters(config: AugmentConfig, n: int, seed: tuple[int, ...]) -> AugmentParameters:
    """Draw parameters for n images: a pure function of the arguments.

    Every quantity is drawn whether it is used or not, so that changing one probability leaves the other draws alone.

    Raises: ValueError if a number of `seed` is negative.
    Source: the ranges and the one-of choices are those of the winner of SIIM-ACR 2019 (albumentations).
    """
    # The length, because SeedSequence takes (1,) and (1, 0) for the same.
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence((len(seed), *seed))))
    strength = config.strength

    def chance(probability: float) -> NDArray[np.bool_]:
        return generator.random(n) < probability

    def one_of(probability: float, *names: str) -> NDArray[np.str_]:
        return np.where(chance(probability), generator.choice(names, n), "none")

    def around_zero(limit: float | NDArray[np.float64], used: NDArray[np.bool_], *shape: int) -> Tensor:
        draws = generator.uniform(-1, 1, (n, *shape)) * limit * strength
        return torch.from_numpy((draws * used.reshape(n, *[1] * len(shape))).astype(np.float32))

    def between(low: float, high: float, used: NDArray[np.bool_], neutral: float) -> Tensor:
        draws = neutral + (generator.uniform(low, high, n) - neutral) * strength
        return torch.from_numpy(np.where(used, draws, neutral).astype(np.float32))

    flip, affine = chance(config.horizontal_flip), chance(config.affine_probability)
    warp = one_of(config.distortion_probability, "elastic", "grid", "optical")
    tone = one_of(config.intensity_probability, "contrast", "gamma", "brightness")
    blur, jpeg, noise = (chance(getattr(config, f"{name}_probability")) for name in ("blur", "jpeg", "noise"))
    optical_limits = np.array([config.optical_limit, *[config.optical_shift / REFERENCE_SIDE_PX] * 2])
    spacing = config.elastic_sigma * math.sqrt(3) / REFERENCE_SIDE_PX
    return AugmentParameters(
        flip=torch.from_numpy(flip),
        shift=around_zero(config.shift, affine, 2),
        scale=(1 + around_zero(config.scale, affine)).clamp(min=0.1),
        rotation_degrees=around_zero(config.rotate_degrees, affine),
        # 0.9: a cell keeps a tenth of its width at least, or the image would fold at a high strength.
        grid_cells=1 + around_zero(config.grid_limit, warp == "grid", 2, config.grid_steps).clamp(-0.9, 0.9),
        optical=around_zero(optical_limits, warp == "optical", 3),
        contrast=(1 + around_zero(config.contrast, tone == "contrast")).clamp(min=0),
        gamma=between(*config.gamma, tone == "gamma", 1.0).clamp(min=0.1),
        brightness=around_zero(config.brightness, tone == "brightness"),
        blur_sigma_px=between(*config.blur_sigma_px, blur, 0.0),
        jpeg_quality=between(*config.jpeg_quality, jpeg, 100.0).clamp(1, 100),
        noise_sigma=between(0.0, config.noise_sigma, noise, 0.0),
        noise_seed=torch.from_numpy(generator.integers(2**31, size=n)),
        elastic_nodes=_elastic_nodes(generator, config, spacing, warp == "elastic"),
        elastic_spacing=spacing,
    )


def _elastic_nodes(
    generator: np.random.Generator, config: AugmentConfig, spacing: float, used: NDArray[np.bool_]
) -> Tensor:
    """Random displacements (n, 2, nodes, nodes), zero where not `used`.

    The published field is uniform noise per pixel, smoothed by a Gaussian of sigma and multiplied by alpha, which has a
    standard deviation of alpha / (2 sqrt(3 pi) sigma) px. A cubic B-spline with nodes sqrt(3) sigma apart has the
    variance of that Gaussian, and lowers the standard deviation of independent nodes to 151 / 315.
    """
    nodes = math.ceil(1 / spacing) + 3
    deviation_px = config.strength * config.elastic_alpha / (2 * math.sqrt(3 * math.pi) * config.elastic_sigma)
    result = np.zeros((len(used), 2, nodes, nodes), np.float32)
    # Drawn last and for the used rows alone: this is the one draw whose size matters.
    draws = generator.standard_normal((int(used.sum()), 2, nodes, nodes), dtype=np.float32)
    result[used] = draws * np.float32(deviation_px / REFERENCE_SIDE_PX * 315 / 151)
    return torch.from_numpy(result)


@torch.no_grad()
def apply(
    images: Tensor, masks: Tensor, parameters: AugmentParameters, config: AugmentConfig, larger: Pair | None = None
) -> Pair:
    """A changed copy of images, float32 (N, C, H, W), and of masks, float32 (N, 1, H, W), both in [0, 1].

    Rows whose parameters are neutral come back bit for bit, and flips alone move pixels without interpolation. Image
    and mask are interpolated bilinearly in the same pass; a mask is the share of each pixel that it covers, and is not
    cut. With the border 'reflect' the pixels outside mirror those inside about the outer edge of the image, so the last
    row is repeated once (not reflect-101).
    larger: the same images and masks before they were reduced, at least as large. Rows that are warped are then taken
    from there in one step, where a warp of what is reduced would be a second interpolation.

    Raises: ValueError if the shapes do not belong together.
    """
    for each, of in ((images, masks), larger or (images, masks)):
        shape = each.shape
        if each.ndim != 4 or of.shape != (shape[0], 1, *shape[2:]) or not len(parameters) == len(each) == len(images):
            raise ValueError(
                f"images {tuple(shape)}, masks {tuple(of.shape)} and {len(parameters)} rows of parameters do not "
                "belong together; expected (N, C, H, W), (N, 1, H, W) and N"
            )
    with torch.autocast(images.device.type, enabled=False):  # 8 bits of a coordinate are not enough
        return _applied(images, masks, parameters, config, larger)


def _applied(
    images: Tensor, masks: Tensor, parameters: AugmentParameters, config: AugmentConfig, larger: Pair | None
) -> Pair:
    warped = _is_warped(parameters)
    padding = "reflection" if config.border == "reflect" else "zeros"
    stacked = torch.cat([images, masks], dim=1)
    _change_rows(stacked, parameters.flip & ~warped, lambda rows, _: rows.flip(-1))
    source, shape = larger or (images, masks), stacked.shape[2:]

    def taken(_: Tensor, rows: Tensor) -> Tensor:
        at = rows.to(images.device)
        return _resample(torch.cat([part[at] for part in source], 1), parameters.take(rows), shape, padding)

    _change_rows(stacked, warped, taken)
    images, masks = stacked[:, :-1].contiguous(), stacked[:, -1:].contiguous()
    for changed, change, names in (
        ((parameters.contrast != 1) | (parameters.brightness != 0), change_contrast, ("contrast", "brightness")),
        (parameters.gamma != 1, change_gamma, ("gamma",)),
        (parameters.blur_sigma_px > 0, blur, ("blur_sigma_px",)),
        (parameters.jpeg_quality < 100, compress, ("jpeg_quality",)),
        (parameters.noise_sigma > 0, add_noise, ("noise_sigma", "noise_seed")),
    ):
        _change_rows(images, changed, partial(_by_their_own, change, [getattr(parameters, name) for name in names]))
    return images, masks


def _change_rows(batch: Tensor, chosen: Tensor, change: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Replace the chosen rows of a batch, in place, by what `change` makes of them; the others cost nothing."""
    rows = chosen.nonzero().flatten()
    if len(rows):
        at = rows.to(batch.device)
        batch[at] = change(batch[at], rows).clamp_(0, 1)


def _by_their_own(change: Callable[..., Tensor], values: Sequence[Tensor], images: Tensor, rows: Tensor) -> Tensor:
    return change(images, *(value[rows] for value in values))


def _resample(stacked: Tensor, parameters: AugmentParameters, shape: torch.Size, padding: str) -> Tensor:
    """Images with their mask as the last channel, warped onto a grid of `shape`, smaller or equal, in one step.

    Where the grid is coarser, each of its pixels is the mean of times x times points in it, as many as it has pixels of
    the source on a side: one point alone would alias what is finer than the grid.
    """
    times = max(1, *(math.ceil(have / want) for have, want in zip(stacked.shape[2:], shape, strict=True)))
    grid = sampling_grid(parameters, times * shape[0], times * shape[1], stacked.device)
    warped = F.grid_sample(stacked, grid, mode="bilinear", padding_mode=padding, align_corners=False)
    return F.avg_pool2d(warped, times) if times > 1 else warped


def _is_elastic(parameters: AugmentParameters) -> Tensor:
    return parameters.elastic_nodes.flatten(1).any(1)


def _is_warped(parameters: AugmentParameters) -> Tensor:
    """Which rows need interpolation, bool (n,)."""
    affine = (parameters.shift != 0).any(1) | (parameters.scale != 1) | (parameters.rotation_degrees != 0)
    distorted = (parameters.grid_cells != 1).flatten(1).any(1) | (parameters.optical[:, 0] != 0)
    return affine | distorted | _is_elastic(parameters)


@torch.no_grad()
def sampling_grid(parameters: AugmentParameters, height: int, width: int, device: torch.device | str) -> Tensor:
    """Where each output pixel is read from: float32 (n, H, W, 2), as `grid_sample` with align_corners=False wants it.

    Coordinates are centred and in units of half the longer side until the last step, so that a rotation of an oblong
    image stays a rotation. The affine map is folded into whatever is smaller than a full field.
    """
    side = max(height, width)
    x, y = (
        _distorted_axis(parameters.grid_cells[:, axis], size, side, device) for axis, size in ((0, width), (1, height))
    )
    matrix, shift = _affine(parameters, height, width)
    centre = 2 * parameters.optical[:, 1:]
    offset = (matrix @ (centre - shift)[:, :, None])[..., None].to(device)
    centre, matrix = centre.to(device), matrix.to(device)
    x, y = (x - centre[:, :1])[:, None, :], (y - centre[:, 1:])[:, :, None]
    grid = matrix[:, :, :1, None] * x[:, None] + (matrix[:, :, 1:, None] * y[:, None] + offset)
    if len(rows := parameters.optical[:, 0].nonzero().flatten()):
        at = rows.to(device)
        factor = _radial_factor(x[at].square() + y[at].square(), parameters.optical[rows, 0].to(device))
        grid[at] = torch.lerp(offset[at], grid[at], factor[:, None])
    if len(rows := _is_elastic(parameters).nonzero().flatten()):
        at = rows.to(device)
        nodes = torch.einsum("nij,njhw->nihw", matrix[at], 2 * parameters.elastic_nodes[rows].to(device))
        count, spacing = nodes.shape[-1], parameters.elastic_spacing
        down, across = (_spline_weights(size, side, count, spacing, device) for size in (height, width))
        grid[at] += down @ nodes @ across.T
    return grid.permute(0, 2, 3, 1)


def _affine(parameters: AugmentParameters, height: int, width: int) -> tuple[Tensor, Tensor]:
    """From an output to an input position: the matrix (n, 2, 2) into grid_sample's units, and the shift (n, 2)."""
    angle = torch.deg2rad(parameters.rotation_degrees.double())
    cosine, sine = angle.cos(), angle.sin()
    matrix = torch.stack([cosine, -sine, sine, cosine], dim=1).view(-1, 2, 2) / parameters.scale[:, None, None]
    matrix[parameters.flip, 0] *= -1
    half_extent = torch.tensor([width, height]) / max(height, width)
    return (matrix / half_extent[:, None]).float(), 2 * parameters.shift * half_extent


def _distorted_axis(cells: Tensor, size: int, side: int, device: torch.device | str) -> Tensor:
    """Pixel centres (n, size) along one axis after the grid distortion, which keeps the two ends where they are."""
    steps = cells.shape[1]
    knots = F.pad(cells.double().cumsum(1), (1, 0))
    knots = knots / knots[:, -1:]
    centre = (torch.arange(size, dtype=torch.float64) + 0.5) / size * steps
    cell = centre.long()
    fraction = knots[:, cell] + (knots[:, cell + 1] - knots[:, cell]) * (centre - cell)
    return ((2 * fraction - 1) * (size / side)).float().to(device)


def _radial_factor(radius_squared: Tensor, coefficient: Tensor) -> Tensor:
    """How much farther out each output pixel is read, (n, H, W), where the radius is in units of half the side.

    Above 0 this is OpenCV's 1 + k (r^2 + r^4), r in units of the side, as published. Below 0 that would fold the image
    over itself from k = -0.4 on (a lung shown twice), so it is 1 / sqrt(1 - 2 k r^2): alike near the centre, no fold.
    """
    squared, coefficient = radius_squared / 4, coefficient[:, None, None]
    outwards = 1 + coefficient * squared * (1 + squared)
    return torch.where(coefficient > 0, outwards, (1 - 2 * coefficient.clamp(max=0) * squared).rsqrt())


def _spline_weights(size: int, side: int, count: int, spacing: float, device: torch.device | str) -> Tensor:
    """Weights (size, count) of the nodes of a cubic B-spline at each pixel centre along one axis."""
    place = (torch.arange(size, device=device) + 0.5) / (side * spacing)
    distance = (place[:, None] - (torch.arange(count, device=device) - 1)).abs()
    inner = 2 / 3 - distance.square() + distance**3 / 2
    return torch.where(distance < 1, inner, (2 - distance).clamp(min=0) ** 3 / 6)
