"""Settings of what a net learns from: masks of several sources, and a teacher."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from pleura.config.strict import NotNegative, Probability, Strict

Source = Annotated[str, Field(min_length=1)]
Weight = Annotated[float, Field(ge=0, le=1000)]
Smoothing = Annotated[float, Field(ge=0, lt=0.5)]


class LabelsConfig(Strict):
    """How much the masks of each source count, by `label_source` of cases.csv, and what a teacher adds to them."""

    weights: dict[Source, Weight] = Field(default={})
    """Source -> weight of its cases beside the others of a batch, in every loss; 1 where not named. 0 leaves the cases
    out of the epochs, of `positive_rate`, and of the cases that the checkpoint lists as seen. On the command line a
    source with a dot is written as `labels.weights={a.b: 0}`."""
    smoothing: dict[Source, Smoothing] = Field(default={})
    """Source -> s: what its masks mark becomes 1 - s. The background stays 0: a small value on each of its pixels
    would add up to more than most pneumothoraces."""
    teacher: Annotated[str, Field(min_length=1)] | None = None
    """A checkpoint, a run or an ensemble, as `pleura predict --model` takes it. It predicts on the same augmented
    images, without TTA. A teacher that was trained on validation cases is refused. One whose
    training cases are not listed, such as imported weights, causes a warning and a note in the provenance."""
    teacher_size_px: Annotated[int, Field(ge=32)] | None = None
    """Side of the images that the teacher sees: the same cases, warped alike; what it gives is then brought to the size
    of the stage. null: the size of the stage. A net knows little of images far smaller than those it has learned from:
    the included model, of 512 px, has AUROC 0.63 at 128 px and 0.92 at 384 px."""
    features: NotNegative = 0.0
    """Weight of a loss by which the encoder learns the teacher's features as well (arXiv 1412.6550): 1x1 convolutions,
    which are in no checkpoint, predict them at the strides from 4 on that both encoders have; the loss is the mean
    squared error, each of the teacher's channels standardised. The teacher is then one net."""
    teacher_share: Probability = 0.5
    """The target is (1 - share) x mask + share x the teacher's probabilities; 1: distillation alone."""
    teacher_sources: list[Source] = Field(default=[])
    """Sources whose cases learn from the teacher; empty: all."""
    least_agreement: Probability = 0.0
    """A case of `teacher_sources` has weight 0 in a step where the Dice of its mask and the teacher's mask, by the
    teacher's triplet, is lower than this; two empty masks have a Dice of 1."""

    @model_validator(mode="after")
    def _a_teacher_has_an_effect(self) -> LabelsConfig:
        for name in ("teacher_sources", "least_agreement", "features", "teacher_size_px"):
            if self.teacher is None and getattr(self, name):
                raise ValueError(f"{name} needs a teacher; set labels.teacher")
        if self.teacher is not None and not (self.teacher_share or self.least_agreement or self.features):
            raise ValueError("the teacher has no effect; give teacher_share, least_agreement or features a weight")
        return self
