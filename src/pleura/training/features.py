"""What a teacher's encoder sees in an image, as a target of the encoder that learns.

Source: Romero et al. 2015 (FitNets, arXiv 1412.6550): the teacher's features, regressed from the pupil's by a layer
that is there for that alone. Here it is a 1x1 convolution at each stride that both encoders have, and each channel of
the teacher is standardised first, so that none counts more for being large.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pleura.errors import ConfigError
from pleura.models.encoders import Encoder
from pleura.models.resize import resize_images
from pleura.training.losses import AllReduce

FINEST_STRIDE = 4
"""What is finer are edges, which a net finds by itself, on most of the memory."""


@dataclass(frozen=True)
class FeatureTargets:
    """What a teacher's encoder gave for images of a batch."""

    values: tuple[Tensor, ...]
    """(k, channels, h, w) float32 at each stride in common, from high to low resolution, standardised."""
    rows: Tensor
    """(k,) int64: which images of the batch these are."""
    weights: Tensor
    """(k,) float32, of each of them in the loss."""


@contextmanager
def watched(encoder: Encoder) -> Iterator[list[Tensor]]:
    """Collect the features, from high to low resolution, that an encoder gives within."""
    features: list[Tensor] = []
    hook = encoder.register_forward_hook(lambda _, __, given: features.extend(given))
    try:
        yield features
    finally:
        hook.remove()


def strides_in_common(pupil: Encoder, teacher: Encoder) -> list[int]:
    """Return the strides at which features are learned. Raises: ConfigError if there is none."""
    strides = [each for each in pupil.reductions if each in teacher.reductions and each >= FINEST_STRIDE]
    if not strides:
        ours, theirs = (", ".join(map(str, encoder.reductions)) for encoder in (pupil, teacher))
        raise ConfigError(
            f"{pupil.name} has features at strides {ours}, the teacher's {teacher.name} at {theirs}, and none from "
            f"{FINEST_STRIDE} on is the same"
        )
    return strides


class Projections(nn.Module):
    """What predicts a teacher's features from those of the encoder that learns, at each stride that both have.

    It learns with the net in one stage, is a part of the run's state, and of no checkpoint.
    """

    def __init__(self, pupil: Encoder, teacher: Encoder, sample: Iterable[Sequence[Tensor]], seed: int) -> None:
        """sample: the teacher's features of some images, in parts of (n, channels, h, w) at each of its strides, of
        which the mean and the deviation of its channels are taken; no more than two are in memory. seed: draws the
        first weights. Raises: as `strides_in_common`.
        """
        super().__init__()
        strides = strides_in_common(pupil, teacher)
        self.of_pupil = [pupil.reductions.index(stride) for stride in strides]
        self.of_teacher = [teacher.reductions.index(stride) for stride in strides]
        with torch.random.fork_rng(devices=[]):  # what else is drawn stays what it is without a teacher
            torch.manual_seed(seed)
            self.layers = nn.ModuleList(
                nn.Conv2d(pupil.channels[ours], teacher.channels[theirs], 1)
                for ours, theirs in zip(self.of_pupil, self.of_teacher, strict=True)
            )
        for number, (mean, deviation) in enumerate(_mean_and_deviation(sample, self.of_teacher)):
            self.register_buffer(f"mean{number}", mean)
            # A channel that is the same everywhere has no scale to divide by.
            self.register_buffer(f"deviation{number}", torch.where(deviation > 1e-6, deviation, 1))

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The pupil's features at all of its strides -> (n, channels, h, w) at each stride in common."""
        return tuple(layer(features[ours]) for layer, ours in zip(self.layers, self.of_pupil, strict=True))

    def standardised(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The teacher's features at all of its strides -> those in common, of mean 0 and deviation 1, float32."""
        return tuple(
            (features[theirs].float() - self.get_buffer(f"mean{number}")) / self.get_buffer(f"deviation{number}")
            for number, theirs in enumerate(self.of_teacher)
        )

    def none(self) -> tuple[Tensor, ...]:
        """Return what `standardised` gives of no image."""
        return tuple(torch.zeros_like(self.get_buffer(f"mean{n}"))[:0] for n in range(len(self.layers)))


def _mean_and_deviation(sample: Iterable[Sequence[Tensor]], strides: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield those of each channel, (1, channels, 1, 1) float32, at some of the strides.

    Of each part only these are kept: 64 images of 512 px have 3 GB of features in a DenseNet121.
    """
    parts = [[_moments(features[stride].float()) for stride in strides] for features in sample]
    for of_stride in zip(*parts, strict=True):
        counts, means, variances = (torch.stack(each) for each in zip(*of_stride, strict=True))
        total = counts.sum()
        mean = (counts * means).sum(0) / total
        variance = (counts * (variances + (means - mean).square())).sum(0) / (total - 1)
        yield mean.float()[None, :, None, None], variance.sqrt().float()[None, :, None, None]


def _moments(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(n, channels, h, w) -> count of values of a channel, (1,), mean and variance; on the CPU, float64."""
    variance, mean = torch.var_mean(features, (0, 2, 3), correction=0)
    count = torch.tensor([features.numel() // features.shape[1]])
    return count.double(), mean.cpu().double(), variance.cpu().double()


def feature_loss(predicted: Sequence[Tensor], targets: FeatureTargets, all_reduce: AllReduce | None = None) -> Tensor:
    """Return the squared error of the teacher's predicted features; a scalar, 1 where their means are predicted.

    It is a mean over strides, of a weighted mean over images, of the mean over channels and pixels. predicted:
    (n, channels, h, w) at each stride. The teacher's are brought to h x w where it saw larger or smaller images.
    all_reduce: as in `combo_loss`.
    """
    terms = []
    for given, wanted in zip(predicted, targets.values, strict=True):
        of_rows = given[targets.rows].float()
        wanted = resize_images(wanted, given.shape[-1]) if len(wanted) else wanted
        terms.append((of_rows - wanted).square().mean((1, 2, 3)) @ targets.weights)
    sums = torch.stack([torch.stack(terms).mean(), targets.weights.sum()])
    total, weight = (sums if all_reduce is None else all_reduce(sums)).unbind()
    return total / torch.where(weight > 0, weight, 1)
