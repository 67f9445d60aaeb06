"""Claim: composing all warps into one sampling grid costs less than one resampling for each transform and image.

Against: the same transforms with the same parameters, image by image, one after another, as augmentation libraries
chain them: flip, affine, then each distortion, each a grid of its own and a `grid_sample` of image and mask, then the
intensity. The elastic field comes in two forms: ours (a coarse spline), so that only the chaining differs; and as
published, noise for each pixel smoothed by a Gaussian.

Two loads: the winner's settings as they are drawn (at most affine and one distortion; a third of the images is not
warped at all), and all of flip, affine, elastic, grid, optical and contrast on every image. Processor time of one
thread. Run: python benchmarks/augment.py
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from paired import in_turn, machine, ratio, table
from scipy.ndimage import gaussian_filter
from torch import Tensor

from pleura.config.augmentation import AugmentConfig
from pleura.data.augmentation import AugmentParameters, apply, sample_parameters, sampling_grid

BATCH, ROUNDS = 8, 9
CONFIG = AugmentConfig()
ALL_ON = AugmentConfig(horizontal_flip=1, affine_probability=1, distortion_probability=1, intensity_probability=1)


def parameters_with_everything(n: int) -> AugmentParameters:
    """Six transforms on every image: what one-of draws apart, put together from several draws."""
    drawn = sample_parameters(ALL_ON, 20 * n, (1,))

    def rows(chosen: Tensor) -> AugmentParameters:
        return drawn.take(chosen.nonzero().flatten()[:n])

    return replace(
        drawn.take(torch.arange(n)),
        elastic_nodes=rows(drawn.elastic_nodes.flatten(1).any(1)).elastic_nodes,
        grid_cells=rows((drawn.grid_cells != 1).flatten(1).any(1)).grid_cells,
        optical=rows(drawn.optical[:, 0] != 0).optical,
        contrast=rows(drawn.contrast != 1).contrast,
        brightness=torch.zeros(n),
        gamma=torch.ones(n),
    )


def neutral() -> AugmentParameters:
    """One row that changes nothing."""
    off = {"horizontal_flip": 0, "affine_probability": 0, "distortion_probability": 0, "intensity_probability": 0}
    return sample_parameters(AugmentConfig(**off), 1, (0,))


def published_elastic(size_px: int) -> Tensor:
    """The grid (1, H, W, 2) of an elastic transform as published: smoothed noise of a displacement for each pixel."""
    scale = size_px / 1024
    field = torch.rand(2, size_px, size_px) * 2 - 1
    smooth = [torch.from_numpy(gaussian_filter(axis.numpy(), CONFIG.elastic_sigma * scale)) for axis in field]
    identity = F.affine_grid(torch.eye(2, 3)[None], [1, 1, size_px, size_px], align_corners=False)
    return identity + torch.stack(smooth, -1)[None] * (CONFIG.elastic_alpha * scale * 2 / size_px)


def chained(images: Tensor, masks: Tensor, parameters: AugmentParameters, as_published: bool) -> tuple[Tensor, Tensor]:
    """Each image by itself, each transform by itself; the mask is cut to {0, 1} after every warp."""
    done_images, done_masks = [], []
    nothing, size_px = neutral(), images.shape[-1]
    warps = ("affine", "elastic_nodes", "grid_cells", "optical")
    for row in range(len(parameters)):
        image, mask, own = images[row : row + 1], masks[row : row + 1], parameters.take(torch.tensor([row]))
        if own.flip:
            image, mask = image.flip(-1), mask.flip(-1)
        for warp in warps:
            fields = ("shift", "scale", "rotation_degrees") if warp == "affine" else (warp,)
            values = {field: getattr(own, field) for field in fields}
            if all(torch.equal(value, getattr(nothing, field)) for field, value in values.items()):
                continue
            if as_published and warp == "elastic_nodes":
                grid = published_elastic(size_px)
            else:
                grid = sampling_grid(replace(nothing, **values), size_px, size_px, "cpu")
            image = F.grid_sample(image, grid, padding_mode="reflection", align_corners=False)
            mask = F.grid_sample(mask, grid, padding_mode="reflection", align_corners=False).ge(0.5).float()
        tone = replace(nothing, contrast=own.contrast, brightness=own.brightness, gamma=own.gamma)
        image, mask = apply(image, mask, tone, CONFIG)
        done_images.append(image)
        done_masks.append(mask)
    return torch.cat(done_images), torch.cat(done_masks)


@torch.no_grad()
def main() -> None:
    """Both loads at both sizes: images/s and ratios."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"batches of {BATCH}; {machine()}\n")
    loads = {
        "the winner's settings": sample_parameters(CONFIG, BATCH, (3,)),
        "six on every image": parameters_with_everything(BATCH),
    }
    rows = []
    for load, parameters in loads.items():
        for size_px in (256, 512):
            images, masks = torch.rand(BATCH, 1, size_px, size_px), torch.zeros(BATCH, 1, size_px, size_px)
            masks[..., size_px // 4 : size_px // 2, size_px // 4 : size_px // 3] = 1

            def chain(
                as_published: bool, images: Tensor = images, masks: Tensor = masks, own: AugmentParameters = parameters
            ) -> Callable[[], object]:
                return lambda: chained(images, masks, own, as_published)

            def ours(
                images: Tensor = images, masks: Tensor = masks, own: AugmentParameters = parameters
            ) -> tuple[Tensor, Tensor]:
                return apply(images, masks, own, CONFIG)

            taken = in_turn(
                {"ours": ours, "chained": chain(False), "published": chain(True)}, ROUNDS, clock=time.process_time
            )
            speed = {side: f"{BATCH / sorted(values)[ROUNDS // 2]:.0f}" for side, values in taken.items()}
            ratios = [ratio(taken[side], taken["ours"]) for side in ("chained", "published")]
            rows.append([load, f"{size_px} px", *speed.values(), *ratios])
    header = ("load", "size", "ours, images/s", "chained", "published elastic", "chained / ours", "published / ours")
    table(header, rows)


if __name__ == "__main__":
    main()
