"""The shape of what a checkpoint's header says of a model's past: as much of it as any command reads.

What nothing reads may be anything: recipes and scores of other versions stay readable.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from pleura.config.model import ModelConfig
from pleura.models.bfloat16 import Bfloat16Change


class _Open(BaseModel):
    """Further keys are let through; those that are named have just these types."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True, use_attribute_docstrings=True)


class LabelsPart(_Open):
    """Of a stage: where its targets came from."""

    teacher: str | None = None


class StagePart(_Open):
    """Of a recipe."""

    name: str
    labels: LabelsPart = LabelsPart()
    loss: dict[str, Any] = {}


class NetPart(_Open):
    """Of a recipe."""

    pretrained: bool | str | None = None


class RecipePart(_Open):
    """The recipe that a model was trained by; empty for imported weights."""

    name: str = ""
    seed: int | None = None
    tta: Literal["none", "flip"] = "none"
    model: NetPart = NetPart()
    stages: list[StagePart] = []


class TeacherPart(_Open):
    """Of the provenance."""

    weights_sha256: list[str] = []
    tells_what_it_has_seen: bool = True


class ProvenancePart(_Open):
    """Where a model comes from."""

    data_sha256: str | None = None
    fold: int | None = None
    stage: str | None = None
    started_from: list[str] = []
    teacher: TeacherPart | None = None
    imported: str | None = None


class ScoresPart(_Open):
    """The scores that a model came with."""

    split: str | None = None
    tuned: dict[str, Any] | None = None
    recalibrated: dict[str, Any] | None = None


class CardPart(BaseModel):
    """What users have to know, and the evaluation that travels with the model."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    title: str | list[str] = ""
    intended_use: str | list[str] = ""
    data: str | list[str] = ""
    saw: str | list[str] = ""
    did_not_see: str | list[str] = ""
    known_failures: str | list[str] = ""
    attribution: str | list[str] = ""
    licence: str | list[str] = ""
    evaluation: dict[str, Any] = {}


class PastPart(BaseModel):
    """The keys of a header that describe the net, its training and its scores."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    model: ModelConfig
    recipe: RecipePart
    provenance: ProvenancePart
    scores: ScoresPart
    card: CardPart | None
    bfloat16: Bfloat16Change | None
