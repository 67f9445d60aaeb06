"""What every setting shares: the strict base of all schemas, and numbers within limits."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

Probability: TypeAlias = Annotated[float, Field(ge=0, le=1)]
NotNegative: TypeAlias = Annotated[float, Field(ge=0)]
Rate: TypeAlias = Annotated[float, Field(gt=0, le=1)]


class Strict(BaseModel):
    """Unknown settings, wrong types, NaN and infinity are refused, and what was read stays as it is."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True, allow_inf_nan=False
    )
