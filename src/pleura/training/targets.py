"""What the net learns from: masks weighted and softened by their source, mixed with a teacher's probabilities."""

from __future__ import annotations

import functools
import operator
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pleura.config.recipe import Recipe
from pleura.config.training import StageConfig
from pleura.data.dataset import Dataset
from pleura.errors import CheckpointError, ConfigError, InputError
from pleura.inference.engines.torch import TorchEngine, infer
from pleura.inference.predictor import Predictor
from pleura.models.encoders import Encoder
from pleura.models.resize import resize_images
from pleura.models.seen import TAUGHT, SeenCases, listed
from pleura.training.features import FeatureTargets, Projections, watched


@dataclass(frozen=True)
class Targets:
    """The targets of a batch."""

    masks: Tensor
    """(n, classes, S, S) float32 in [0, 1]: the share of each pixel that is pneumothorax."""
    present: Tensor
    """(n,) float32 in [0, 1]: whether the image shows any, by its whole mask, before augmentation and reduction."""
    weights: Tensor | None = None
    """(n,) float32, of each image in the loss; None: all count alike."""
    features: FeatureTargets | None = None
    """None: nothing is learned from the teacher's features."""


class Teacher:
    """One net or the weighted mean of several, whose probabilities are targets of the net that learns."""

    def __init__(self, path: str, device: torch.device) -> None:
        """Raises: CheckpointError, InputError: as `Predictor.load`."""
        # Its nets run in the precision of the run that it teaches, so that none of its own is looked for.
        self.path, self.predictor = path, Predictor.load(path, "none", str(device), "float32", "torch")
        self.engines = cast(list[TorchEngine], self.predictor.engines)
        every = [one.seen for one in self.predictor.headers]
        self.lists_its_cases = all(seen.is_complete for seen in every)
        """Whether all cases that it has learned from are known; not those of imported weights, or of their pupils."""
        together = functools.reduce(operator.or_, every)
        self.seen = together if self.lists_its_cases else replace(together, unknown=tuple({*together.unknown, TAUGHT}))
        self.weights_sha256 = list(self.predictor.weights_sha256)

    def __call__(self, images: Tensor) -> Tensor:
        """Return the probabilities of images after augmentation: (n, 1, S, S) float32 in [0, 1] -> the same.

        Raises: CheckpointError if they are not finite.
        """
        total = torch.zeros_like(images)
        for engine, weight in zip(self.engines, self.predictor.weights, strict=True):
            at_this_size = replace(engine.preprocessing, size_px=images.shape[-1])
            total = total + float(weight) * infer(engine.net, images, at_this_size)[:, None]
        if not total.isfinite().all():
            raise CheckpointError(f"{self.path}: the teacher's probabilities are not finite; take another")
        return total.clamp(0, 1)  # weights like 0.1 add up to 1 but for a rounding

    def with_features(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return what a call does, and the features of the encoder of its first net, from high to low resolution.

        Raises: CheckpointError.
        """
        with watched(self.encoder) as features:
            probabilities = self(images)
        return probabilities, features

    @property
    def encoder(self) -> Encoder:
        """Of its first net."""
        return self.engines[0].net.encoder

    @property
    def size_px(self) -> int:
        """Side of the images that it has learned from last, of all its nets the smallest."""
        return min(engine.preprocessing.size_px for engine in self.engines)

    def agreement(self, probabilities: Tensor, masks: Tensor) -> Tensor:
        """Return the Dice, by area, of masks in [0, 1] with the teacher's predicted masks; 1 where both are empty.

        Both (n, 1, S, S); returns (n,).
        """
        area_px = masks[0, 0].numel()
        found = np.stack([self.predictor.triplet.apply(each[0], area_px) for each in probabilities.cpu().numpy()])
        shares, both = masks[:, 0].flatten(1), torch.from_numpy(found).to(masks).flatten(1)
        sizes = shares.sum(1) + both.sum(1)
        return torch.where(sizes > 0, 2 * (shares * both).sum(1) / sizes.clamp(min=1e-6), 1)


def refuse_leaks(path: Path | str, seen: SeenCases, dataset: Dataset, fold: int, way_out: str) -> None:
    """Refuse a model that has learned from cases that a fold validates on. Raises: InputError."""
    ids = [dataset.cases[index].image_id for index in dataset.indices("val", fold)]
    if leaked := int(listed(seen.train, ids).sum()):
        raise InputError(
            f"{path}: has learned from {leaked} of the validation cases of fold {fold}"
            f"{seen.by_chance('train', len(ids))}; train the fold that it left out, or {way_out}"
        )


class Labels:
    """The labels of one stage: its cases, and their targets."""

    def __init__(
        self,
        stage: StageConfig,
        dataset: Dataset,
        train_indices: NDArray[np.int64],
        teacher_of: Callable[[str], Teacher],
    ) -> None:
        """teacher_of: a teacher by its path.

        Raises: ConfigError for a source that no case has, or if no case or no positive one is left; CheckpointError,
        InputError for a teacher that cannot be used.
        """
        self.config, self.where = stage.labels, f"stages.{stage.name}.labels"
        config, self.sources = stage.labels, [case.label_source for case in dataset.cases]
        self._refuse_unknown_sources(dataset.folder)
        self.case_weights = np.array([config.weights.get(source, 1.0) for source in self.sources], dtype=np.float32)
        self.indices = train_indices[self.case_weights[train_indices] > 0]
        """Of the cases that the stage learns from."""
        if not len(self.indices):
            raise ConfigError(f"{self.where}.weights: leave no training case; give some source a weight above 0")
        self.marks = 1 - np.array([config.smoothing.get(source, 0.0) for source in self.sources], dtype=np.float32)
        of_all = not config.teacher_sources
        self.is_taught = np.array([of_all or source in config.teacher_sources for source in self.sources], dtype=bool)
        self.teacher = teacher_of(config.teacher) if config.teacher is not None else None
        if self.teacher is not None and config.features and len(self.teacher.engines) > 1:
            raise ConfigError(
                f"{self.where}.features: are those of one net, and {config.teacher} has {len(self.teacher.engines)}; "
                "take one of them for the teacher, or set features to 0"
            )
        taught = self.teacher is not None and config.teacher_share > 0
        self._refuse_negatives_alone(dataset.positive, train_indices, taught)
        self.present = dataset.positive * self.marks
        self.weighted = bool((self.case_weights[self.indices] != 1).any()) or config.least_agreement > 0

    def _refuse_negatives_alone(
        self, positive: NDArray[np.bool_], train_indices: NDArray[np.int64], taught: bool
    ) -> None:
        if positive[self.indices].any() or (taught and self.is_taught[self.indices].any()):
            return  # a teacher fills images without masks of their own
        if left_out := int(positive[train_indices].sum()):
            raise ConfigError(
                f"{self.where}.weights: leave none of the {left_out} positive training cases; give the source of some "
                "a weight above 0"
            )

    def _refuse_unknown_sources(self, folder: Path) -> None:
        config, there = self.config, set(self.sources)
        named: dict[str, Any] = {"weights": config.weights, "smoothing": config.smoothing}
        for setting, names in {**named, "teacher_sources": config.teacher_sources}.items():
            for name in names:
                if name not in there:
                    raise ConfigError(
                        f"{self.where}.{setting}: no case of {folder} has the label source {name!r}; there is "
                        f"{', '.join(sorted(there))}"
                    )

    def targets(
        self,
        indices: NDArray[np.int64],
        images: Tensor,
        masks: Tensor,
        autocast: Callable[[], Any],
        projections: Projections | None = None,
    ) -> Targets:
        """Return the targets of cases after augmentation: masks in [0, 1], (n, 1, S, S).

        images: as the teacher sees them, in [0, 1], (n, 1, T, T). autocast: for its pass. projections: of its features,
        where these are learned. Raises: CheckpointError if the teacher's probabilities are not finite.
        """
        goal = masks * torch.from_numpy(self.marks[indices]).to(masks)[:, None, None, None]
        present = torch.from_numpy(self.present[indices]).to(masks)
        weights = torch.from_numpy(self.case_weights[indices]).to(masks)
        rows = torch.from_numpy(np.flatnonzero(self.is_taught[indices])).to(masks.device)
        features = projections.none() if projections is not None else ()
        if self.teacher is not None and len(rows):
            with autocast():
                told, seen = self.teacher.with_features(images[rows])
            taught = resize_images(told, masks.shape[-1])
            features = projections.standardised(seen) if projections is not None else ()
            if share := self.config.teacher_share:
                goal[rows] = (1 - share) * goal[rows] + share * taught
                present[rows] = (1 - share) * present[rows] + share * taught.amax((1, 2, 3))
            if self.config.least_agreement:
                agreed = self.teacher.agreement(taught, masks[rows]) >= self.config.least_agreement
                weights[rows] = weights[rows] * agreed
        of_features = FeatureTargets(features, rows, weights[rows]) if projections is not None else None
        return Targets(goal, present, weights if self.weighted else None, of_features)

    def in_words(self) -> str:
        """Return how many cases of which source there are, with which weight, and what else changes their targets."""
        parts = []
        for source, count in sorted(Counter(self.sources[index] for index in self.indices).items()):
            part = f"{count} of {source} with weight {self.config.weights.get(source, 1.0):g}"
            if smoothing := self.config.smoothing.get(source, 0.0):
                part += f", smoothed by {smoothing:g}"
            parts.append(part)
        words = f"{len(self.indices)} cases: {'; '.join(parts)}"
        if self.teacher is not None:
            whose = ", ".join(self.config.teacher_sources) or "all"
            words += f"; {self.config.teacher_share:.0%} of the targets of {whose} from {self.teacher.path}"
            if self.config.teacher_size_px:
                words += f", which sees {self.config.teacher_size_px} px"
            if self.config.features:
                words += f", and its features with weight {self.config.features:g}"
            if self.config.least_agreement:
                words += f", none where Dice with it is below {self.config.least_agreement:g}"
        return words


def labels_of_stages(recipe: Recipe, dataset: Dataset, fold: int, device: torch.device) -> dict[str, Labels]:
    """Return the labels of each stage by its name; a teacher of several stages is loaded once.

    Raises: what `Labels` raises; InputError for a teacher that has learned from cases that the fold validates on.
    """
    teachers: dict[str, Teacher] = {}

    def teacher_of(path: str) -> Teacher:
        if path not in teachers:
            teachers[path] = Teacher(path, device)
            refuse_leaks(path, teachers[path].seen, dataset, fold, "take another teacher")
        return teachers[path]

    train_indices = dataset.indices("train", fold)
    return {stage.name: Labels(stage, dataset, train_indices, teacher_of) for stage in recipe.stages}
