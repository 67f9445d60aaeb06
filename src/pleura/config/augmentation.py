"""Settings of the augmentation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pleura.config.strict import NotNegative, Probability, Strict


class AugmentConfig(Strict):
    """Random warps and intensities. The defaults are the winner's published numbers, with three differences: his
    contrast multiplies about black, his brightness adds a share of the image's mean (albumentations of 2019), and his
    elastic warp includes a small affine one."""

    horizontal_flip: Probability = 0.5
    """Probability of a left-right flip."""
    affine_probability: Probability = 0.5
    """Probability of shift, scale and rotation together."""
    shift: Probability = 0.0625
    """Largest shift as a share of the side, each axis."""
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Largest relative change of scale."""
    rotate_degrees: Annotated[float, Field(ge=0, le=180)] = 45.0
    """Largest rotation, either way, in degrees."""
    distortion_probability: Probability = 0.3
    """Probability of one of elastic, grid or optical distortion."""
    elastic_alpha: NotNegative = 120.0
    """Strength of the elastic displacement, in px at a side of 1024."""
    elastic_sigma: Annotated[float, Field(gt=0)] = 6.0
    """Smoothness of the elastic displacement, in px at a side of 1024."""
    grid_steps: Annotated[int, Field(ge=2)] = 5
    """Cells per side of the grid distortion."""
    grid_limit: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Largest relative change of a cell's size."""
    optical_limit: NotNegative = 2.0
    """Largest radial distortion coefficient."""
    optical_shift: NotNegative = 0.5
    """Largest shift of the optical centre, in px as published."""
    intensity_probability: Probability = 0.3
    """Probability of one of contrast, brightness or gamma."""
    contrast: NotNegative = 0.2
    """Largest relative change of contrast, about the mean of the image."""
    brightness: NotNegative = 0.2
    """Largest change of brightness, added, as a share of the range."""
    gamma: tuple[float, float] = (0.8, 1.2)
    """Range of the exponent."""
    blur_probability: Probability = 0.0
    """Probability of a Gaussian blur."""
    blur_sigma_px: tuple[float, float] = (0.5, 1.5)
    """Range of its sigma, in px of the stage's size."""
    noise_probability: Probability = 0.0
    """Probability of additive Gaussian noise."""
    noise_sigma: NotNegative = 0.02
    """Largest sigma of the noise, as a share of the range."""
    jpeg_probability: Probability = 0.0
    """Probability of JPEG artefacts."""
    jpeg_quality: tuple[int, int] = (50, 95)
    """Range of the JPEG quality."""
    border: Literal["reflect", "zeros"] = "reflect"
    """Fill of pixels that a warp takes from beyond the edge."""
    strength: NotNegative = 1.0
    """Multiplies every magnitude above, but no probability."""

    @model_validator(mode="after")
    def _ranges_rise(self) -> AugmentConfig:
        ranges = (("gamma", self.gamma, 0.01, 100), ("blur_sigma_px", self.blur_sigma_px, 0, 100))
        for name, (low, high), least, most in (*ranges, ("jpeg_quality", self.jpeg_quality, 1, 100)):
            if not least <= low <= high <= most:
                raise ValueError(f"{name} runs from low to high within {least} to {most}, not from {low} to {high}")
        return self
