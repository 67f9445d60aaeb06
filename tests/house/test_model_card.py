"""docs/model-card.md is what `pleura card default` prints; `python tests/house/test_model_card.py` writes it anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from pleura.models import default as shipped

PAGE = Path(__file__).resolve().parents[2] / "docs" / "model-card.md"


@pytest.mark.skipif(not shipped.FILE.is_file(), reason=f"{shipped.FILE.name} is not in this tree: no default model")
def test_the_model_card_in_the_docs_is_that_of_the_default_model() -> None:
    from pleura.evaluation.card import card

    told = "run python tests/house/test_model_card.py"
    assert PAGE.read_text(encoding="utf-8") == card(shipped.DEFAULT), told


if __name__ == "__main__":
    from pleura.evaluation.card import card

    PAGE.write_text(card(shipped.DEFAULT), encoding="utf-8")
