"""The card of a model: what its users need to know besides numbers."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, ConfigDict, PlainValidator


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must be a text")
    return value.strip()


def _texts(value: Any) -> str | list[str]:
    texts = value if isinstance(value, list) else [value]
    if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise ValueError("must be a text or a list of texts")
    return [text.strip() for text in value] if isinstance(value, list) else value.strip()


Text: TypeAlias = Annotated[str, PlainValidator(_text)]
Texts: TypeAlias = Annotated[str | list[str], PlainValidator(_texts)]


class Card(BaseModel):
    """A model's purpose, data, limits and licence; each field but the title is one text or several."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    title: Text
    intended_use: Texts
    data: Texts
    saw: Texts
    did_not_see: Texts
    known_failures: Texts
    attribution: Texts
    licence: Texts
