"""Recipes and ensembles: what a file describes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pleura.config.model import ModelConfig
from pleura.config.strict import NotNegative, Probability, Strict
from pleura.config.training import StageConfig


class _Experiment(Strict):
    """Name and notes of a recipe or an ensemble."""

    name: str = "unnamed"
    """Name of the run."""
    source: str = ""
    """Where the recipe comes from: paper, repository, notebook."""
    anchor: str = ""
    """The published score to compare with, and on what it was measured."""
    unknown: str = ""
    """What the source leaves open, and what is chosen here."""
    cost: str = ""
    """What a run takes: time, memory, hardware."""


class Recipe(_Experiment):
    """One experiment."""

    seed: Annotated[int, Field(ge=0)] = 42
    """Seed of everything random."""
    tta: Literal["none", "flip"] = "none"
    """Test-time augmentation in validation, for which the triplet is tuned; evaluate and predict use the same."""
    save_minutes: NotNegative = 10.0
    """Minutes after which the state for --resume is saved within an epoch, besides its end; 0: after each step."""
    samples: Annotated[int, Field(ge=0)] = 4
    """Validation cases drawn after each epoch, into samples/; 0: none."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """What the net computes in while it trains. `auto`: bfloat16 on GPUs that have it (float16 on others), and on CPUs
    where a measured step is faster in it. Weights, optimizer, BatchNorm statistics and losses are float32 always. Where
    it is `float32`, evaluate and predict compute in it too."""
    model: ModelConfig = ModelConfig()
    stages: Annotated[list[StageConfig], Field(min_length=1)]
    """At least one; each starts from the final weights of the one before."""

    @model_validator(mode="after")
    def _stage_names_differ(self) -> Recipe:
        names = [stage.name for stage in self.stages]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two stages are named {twice[0]!r}; give each its own name")
        kinds = ("best", "incoming", "swa", "ema", "top_k", "soup", "interpolated")
        taken = {"best", "last", *(f"{name}-{kind}" for name in names for kind in kinds)} & set(names)
        if taken:
            raise ValueError(f"no stage can be named {min(taken)!r}: the run has a file of that name; choose another")
        return self

    @model_validator(mode="after")
    def _losses_have_their_outputs(self) -> Recipe:
        for stage in self.stages:
            for weight, head in (("presence", "presence_head"), ("deep", "deep_supervision")):
                if getattr(stage.loss, weight) and not getattr(self.model, head):
                    raise ValueError(f"stage {stage.name} has loss.{weight}; set model.{head}=true for it")
        return self


class RuleConfig(Strict):
    """A decision rule that is given, not tuned."""

    top_threshold: Probability = 0.5
    """An image is empty unless enough pixels reach this probability, moved to the nearest 1/256."""
    min_pixels: Annotated[int, Field(ge=0)] = 0
    """How many pixels are enough, of 1024 x 1024; scaled with the area."""
    bottom_threshold: Probability = 0.5
    """Pixels that reach this probability then belong to the mask."""


class MemberConfig(Strict):
    """One recipe of an ensemble."""

    recipe: Annotated[str, Field(min_length=1)]
    """A recipe that comes with pleura, by name, or a YAML file, relative to the ensemble's."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """Weight of its probabilities in the mean; weights need not add up to 1."""

    @property
    def name(self) -> str:
        """Names the member's folder in the run."""
        return self.recipe.replace("\\", "/").split("/")[-1].split(".")[0]


class Ensemble(_Experiment):
    """Several recipes, trained independently; their probabilities are averaged by weight."""

    members: Annotated[list[MemberConfig], Field(min_length=1)]
    """At least one; each is trained into a folder of its name."""
    triplet: RuleConfig | None = None
    """The decision rule; null: the weighted mean of the members' own."""

    @model_validator(mode="after")
    def _member_names_differ(self) -> Ensemble:
        names = [member.name for member in self.members]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two members are named {twice[0]!r}; give one weight to it, or copy its file")
        return self
